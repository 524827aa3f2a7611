"""Answers without preferences, a fixed number of them beside each batch of pairs.

They pass the policy in a forward of their own, with gradient. Their order is seeded apart from the
pairs', each answer once before any comes again; a step's answers are a function of run seed and
step, so a resumed run meets the same ones.
"""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from dpo_diag.encoded import EncodedResponse
from dpo_diag.engines._base import ScoreRequest
from dpo_diag.errors import CheckpointError, DataError
from dpo_diag.tables import content_hash
from dpo_diag.training.batches import pack, step_units
from dpo_diag.training.forward import response_logps
from dpo_diag.training.sources._base import Context, FieldSource

logger = logging.getLogger(__name__)


class Unlabelled(FieldSource):
    """``unlabelled_policy``, ``unlabelled_ref`` and ``unlabelled_n_tokens``, each (U,).

    Attributes:
        n: answers there are.

    Raises:
        DataError: none are given, or one cannot be encoded.
    """

    def __init__(self, context: Context) -> None:
        frame = required_answers(context)
        self._policy = context.policy
        self._seed = int(content_hash([context.recipe.run.seed, "unlabelled"])[:8], 16)
        self._size = context.variant.unlabelled_per_batch
        self._answers = _encoded(frame, context)
        self.n = len(self._answers)
        self.counts = {"unlabelled": self.n}
        self._ref = np.full(self.n, np.nan)
        if context.variant.needs.reference:
            requests = [ScoreRequest(a.prompt_ids, a.response_ids) for a in self._answers]
            self._ref = context.policy.reference_scores(requests).logp
        if self._size > self.n:
            logger.info("only %d answers without preferences: all are in every batch", self.n)
        self._now = np.arange(0)

    def begin(self, step: int) -> None:
        """Choose the step's answers."""
        self._now = step_units(self._seed, step, n=self.n, batch_size=self._size)

    def state_dict(self) -> dict[str, Any]:
        """Which answers they are."""
        return {"answers": content_hash([[a.prompt_ids, a.response_ids] for a in self._answers])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Check that they are the same.

        Raises:
            CheckpointError: the run was started with other answers.
        """
        if state != self.state_dict():
            raise CheckpointError(
                "the run was started with other answers without preferences; resume with the "
                "same, or take another folder."
            )

    def fields(self, index: np.ndarray) -> Mapping[str, Any]:
        """The step's answers, whichever pairs are asked for."""
        batch = pack([self._answers[i] for i in self._now], self._policy.device)
        logps = response_logps(self._policy.model, batch).sums
        return {
            "unlabelled_policy": logps,
            "unlabelled_ref": torch.as_tensor(self._ref[self._now]).to(logps),
            "unlabelled_n_tokens": batch.n_tokens,
        }


def required_answers(context: Context) -> pd.DataFrame:
    """The table of answers without preferences.

    Raises:
        DataError: there is none, or it lacks a column or any row.
    """
    frame, name = context.inputs.unlabelled, context.variant.name
    if frame is None:
        raise DataError(
            f"{name} needs answers without preferences: give --unlabelled FILE with the columns "
            "prompt and response (the sandbox writes unlabelled.jsonl)."
        )
    lacking = [column for column in ("prompt", "response") if column not in frame.columns]
    if lacking:
        raise DataError(
            f"the answers without preferences lack the column {' and '.join(lacking)}; found "
            f"{', '.join(map(str, frame.columns))}."
        )
    if not len(frame):
        raise DataError(f"{name} needs answers without preferences, and there are none.")
    return frame


def _encoded(frame: pd.DataFrame, context: Context) -> list[EncodedResponse]:
    turns = frame["prompt_messages"] if "prompt_messages" in frame.columns else [None] * len(frame)
    answers = []
    rows = zip(frame["prompt"], frame["response"], turns, strict=True)
    for number, (prompt, response, messages) in enumerate(rows, 1):
        if not isinstance(prompt, str) or not isinstance(response, str):
            raise DataError(
                f"row {number} of the answers without preferences: prompt and response must be "
                "text."
            )
        try:
            answers.append(context.policy.encoder.response(prompt, response, messages))
        except DataError as error:
            raise DataError(f"row {number} of the answers without preferences: {error}") from error
    n_cut = sum(answer.truncated for answer in answers)
    logger.info("%d answers without preferences, %d of them cut", len(answers), n_cut)
    return answers


def make_source(context: Context) -> FieldSource:
    """The answers for training; validation pairs are judged without any."""
    return Unlabelled(context) if context.is_training else _Nothing()


class _Nothing(FieldSource):
    """No fields."""
