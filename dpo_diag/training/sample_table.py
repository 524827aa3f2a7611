"""Steps over scored samples from a file, which nothing is drawn to replace.

The samples are taken to be the starting model's, so its log-probs are the behaviour's; they and the
reference's are computed once, before the first step. Start reading at ``SampleTableSteps``.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dpo_diag.encoded import EncodedResponse
from dpo_diag.engines._base import ScoreRequest
from dpo_diag.errors import CheckpointError, DataError
from dpo_diag.tables import content_hash, content_id
from dpo_diag.training.batches import step_units
from dpo_diag.training.pair_data import Material
from dpo_diag.training.sample_batches import COLUMNS, micro_loss, sample_logps
from dpo_diag.training.steps import MicroLoss, schedule, updated_state
from dpo_diag.variants._base import TrainingFacts

logger = logging.getLogger(__name__)

SCORES = ("reward", "cost")
HOW = "dpo-diag sample CKPT --reward NAME --cost NAME --out samples.jsonl makes such a table"


@dataclass(frozen=True)
class SampleTable:
    """N usable samples, those of a prompt side by side, P prompts.

    Attributes:
        prompt_ids: (P,) ids, in order of first appearance.
        starts: (P + 1,) where each prompt's samples begin.
        frame: N rows with ``prompt``, ``response``, ``reward``, ``cost``.
        counts: what became of the rows.
    """

    prompt_ids: tuple[str, ...]
    starts: np.ndarray
    frame: pd.DataFrame
    counts: Mapping[str, int]

    def rows(self, prompts: np.ndarray) -> np.ndarray:
        """Rows of the samples of some prompts."""
        return np.concatenate([np.arange(self.starts[p], self.starts[p + 1]) for p in prompts])


class SampleTableSteps:
    """Steps over a table of samples; the unit is a prompt with all its samples.

    Args:
        material: policy, variant, recipe, and the table in ``inputs.samples``.

    Raises:
        DataError: no table, a column is missing, a score is no number, or no prompt has two
            samples with scores.
    """

    def __init__(self, material: Material) -> None:
        policy, variant, recipe = material.policy, material.variant, material.recipe
        self._policy, self._variant = policy, variant
        self._seed, self._batch = recipe.run.seed, recipe.optimizer.batch_size
        self._table = usable_samples(material.inputs.samples, variant.name)
        self.counts = self._table.counts
        encoded = _encoded(self._table.frame, material)
        self._requests = [ScoreRequest(e.prompt_ids, e.response_ids) for e in encoded]
        self._columns = {
            **{name: self._table.frame[name].to_numpy(np.float64) for name in SCORES},
            **_logps(self._requests, material),
        }
        self._owner = np.repeat(np.arange(len(self._table.prompt_ids)), np.diff(self._table.starts))
        self.n_per_epoch = math.ceil(len(self._table.prompt_ids) / self._batch)
        self.n_steps = schedule(recipe).n_steps(self.n_per_epoch)
        self.state = variant.init_state(TrainingFacts(len(self._table.prompt_ids), self.n_steps))

    def begin(self, step: int) -> None:
        """Nothing: all samples are there."""

    def units(self, step: int) -> np.ndarray:
        """The step's prompts; each once per pass over the table."""
        n = len(self._table.prompt_ids)
        return step_units(self._seed, step, n=n, batch_size=self._batch)

    def loss(self, units: np.ndarray, n_units: int) -> MicroLoss:
        """Mean over the step's prompts of the mean loss of each prompt's samples."""
        rows = self._table.rows(units)
        batch = sample_logps(
            self._policy,
            [self._requests[row] for row in rows],
            {name: self._columns[name][rows] for name in COLUMNS},
            self._owner[rows],
        )
        losses = self._variant.sample_losses(batch, self.state)
        sizes = np.diff(self._table.starts)[self._owner[rows]]
        weight = losses.new_tensor(1.0 / (n_units * sizes))
        return micro_loss(batch, losses, weight, self._variant)

    def names(self, units: np.ndarray) -> list[str]:
        """Prompt ids."""
        return [self._table.prompt_ids[i] for i in units]

    def finish(self, losses: Sequence[MicroLoss]) -> None:
        """Hand the step's samples to the variant's state."""
        self.state = updated_state(self._variant, self.state, losses)

    def artefacts(self, folder: Any) -> None:
        """Nothing: the table is the user's file."""

    def state_dict(self) -> dict[str, Any]:
        """The variant's state, and which table it was."""
        return {"variant": self.state, "samples": self._hash()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the variant's state.

        Raises:
            CheckpointError: the run was started with another table.
        """
        if state["samples"] != self._hash():
            raise CheckpointError(
                "the run was started with other samples; resume with the same, or take another "
                "folder."
            )
        self.state = state["variant"]

    def _hash(self) -> str:
        frame = self._table.frame
        texts = [frame["prompt_id"], frame["response"], *(frame[name] for name in SCORES)]
        return content_hash([list(row) for row in zip(*texts, strict=True)])


def usable_samples(frame: pd.DataFrame | None, name: str) -> SampleTable:
    """The samples that can be learned from; what is left out is counted and logged.

    Left out are rows of another split than ``train`` (where there is one), samples without reward
    or cost, those that were cut at the longest length (``finish_reason`` is ``length``: their end
    is not the model's), and prompts that are left with fewer than two samples.

    Args:
        frame: columns ``prompt``, ``response``, ``reward``, ``cost``; ``prompt_id``, ``split``,
            ``finish_reason`` and ``prompt_messages`` are used where they are there.
        name: the variant's.

    Raises:
        DataError: no table, a missing column, a score that is no number, or nothing left.
    """
    _require_columns(frame, name)
    assert frame is not None
    frame = frame.assign(**{column: _numbers(frame[column], name) for column in SCORES})
    if "prompt_id" not in frame:
        frame = frame.assign(prompt_id=[content_id(text) for text in frame["prompt"]])
    counts = {"rows": len(frame)}
    if "split" in frame and (frame["split"] == "train").any():
        frame = _kept(frame, frame["split"] == "train", "other_split", counts)
    scored = np.isfinite(frame[list(SCORES)].to_numpy(np.float64)).all(axis=1)
    frame = _kept(frame, scored, "without_score", counts)
    if "finish_reason" in frame:
        frame = _kept(frame, frame["finish_reason"] != "length", "cut", counts)
    # the text rule has no answer without text; a model that ends at once leaves such samples
    frame = _kept(frame, frame["response"].str.strip() != "", "empty", counts)
    several = frame.groupby("prompt_id")["prompt_id"].transform("size") >= 2
    frame = _kept(frame, several, "alone_on_their_prompt", counts)
    if not len(frame):
        raise DataError(
            f"{name}: no prompt of the samples has two answers with reward and cost to compare "
            f"({_told(counts)})."
        )
    logger.info("samples: %s", _told(counts))
    order = pd.Categorical(frame["prompt_id"], categories=frame["prompt_id"].unique())
    frame = frame.iloc[np.argsort(order.codes, kind="stable")].reset_index(drop=True)
    sizes = frame.groupby("prompt_id", sort=False).size()
    starts = np.concatenate([[0], np.cumsum(sizes.to_numpy())])
    counts |= {"prompts": len(sizes), "samples": len(frame)}
    return SampleTable(tuple(sizes.index), starts, frame, counts)


def _require_columns(frame: pd.DataFrame | None, name: str) -> None:
    if frame is None:
        raise DataError(f"{name} needs a table of scored samples: give --samples FILE ({HOW}).")
    for column in ("prompt", "response", *SCORES):
        if column not in frame.columns:
            found = ", ".join(map(str, frame.columns)) or "none"
            raise DataError(
                f"{name} needs the column {column} in the samples, which have {found}; {HOW}."
            )


def _numbers(values: pd.Series, name: str) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce")
    wrong = (numbers.isna() & values.notna()).to_numpy()
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{name}: the samples' {values.name} must be numbers (missing where a model "
            f"abstained), got {values.iloc[row]!r} in row {row + 1}."
        )
    return numbers.astype(np.float64)


def _kept(frame: pd.DataFrame, keep: Any, what: str, counts: dict[str, int]) -> pd.DataFrame:
    keep = np.asarray(keep, dtype=bool)
    if not keep.all():
        counts[what] = int((~keep).sum())
        logger.warning("%d of %d samples are left out: %s", counts[what], len(frame), what)
    return frame[keep]


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {what}" for what, n in counts.items())


def _encoded(frame: pd.DataFrame, material: Material) -> list[EncodedResponse]:
    """Token ids of every sample; a message names the prompt."""
    encoded: list[EncodedResponse] = []
    for prompt_id, rows in frame.groupby("prompt_id", sort=False):
        turns = rows["prompt_messages"].iloc[0] if "prompt_messages" in rows else None
        try:
            encoded += material.policy.encoder.responses(
                rows["prompt"].iloc[0],
                list(rows["response"]),
                turns if isinstance(turns, str) else None,
            )
        except DataError as error:
            raise DataError(f"samples of prompt {prompt_id}: {error}") from error
    return encoded


def _logps(requests: Sequence[ScoreRequest], material: Material) -> dict[str, np.ndarray]:
    """Log-probs of all samples under the starting model and the reference, (N,) nats each."""
    policy = material.policy
    behaviour = policy.scores(requests).logp
    if policy.reference.fingerprint == policy.base.fingerprint:
        return {"behaviour": behaviour, "ref": behaviour}
    return {"behaviour": behaviour, "ref": policy.reference_scores(requests).logp}
