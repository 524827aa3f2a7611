"""Rounds of sample, score, learn, for variants that train on their own samples.

A round draws answers to some prompts with the current policy, has them scored by a reward and a
cost, and serves several optimiser steps of the one loop. Prompts come in a seeded order; the
seed of a round's samples is a function of the run's seed and the round. A run that stops within a
round stores the round's samples. Start reading at ``SampleSteps``.
"""

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from dpo_diag.engines._base import SamplingSettings, ScoreRequest
from dpo_diag.errors import DataError
from dpo_diag.stats.ranks import within_group_rank_correlation
from dpo_diag.tables import content_hash
from dpo_diag.training.pair_data import Material
from dpo_diag.training.round_plan import round_plan
from dpo_diag.training.round_state import require_same_prompts, round_fields, stored_round
from dpo_diag.training.rounds import sampler
from dpo_diag.training.sample_batches import COLUMNS, micro_loss, nothing_to_learn, sample_logps
from dpo_diag.training.scorers import REFERENCE_ANSWER, make_scorer, with_reference_answers
from dpo_diag.training.steps import MicroLoss, schedule, taken_up, updated_state
from dpo_diag.variants._base import TrainingFacts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Round:
    """Scored samples of P prompts, K each, in the order of the prompts.

    Attributes:
        prompts: (P,) positions in the table of prompts.
        responses: P * K token ids.
        behaviour, ref: (P * K,) float64, nats; ``ref`` is NaN for a variant without a reference.
        reward, cost: (P * K,) float64; the threshold is already subtracted from the cost. NaN
            where a cost model abstained; such samples are left out of the loss.
    """

    prompts: np.ndarray
    responses: tuple[tuple[int, ...], ...]
    behaviour: np.ndarray
    ref: np.ndarray
    reward: np.ndarray
    cost: np.ndarray

    @property
    def is_scored(self) -> np.ndarray:
        """(P * K,) bool, whether a sample has both reward and cost."""
        return np.isfinite(self.reward) & np.isfinite(self.cost)

    def facts(self) -> dict[str, float]:
        """What is said of a round as a whole in the log.

        ``reward_length_correlation`` is Spearman's correlation of raw reward (similarity) and
        number of tokens within prompts, pooled over them; left out where nothing varies.
        ``abstained_rate`` is the share of samples without a score.
        """
        scored = self.is_scored
        k = len(self.responses) // len(self.prompts)
        lengths = np.array([len(ids) for ids in self.responses])
        owner = np.arange(len(self.responses)) // k
        correlation = within_group_rank_correlation(
            self.reward[scored], lengths[scored], owner[scored]
        )
        found = {"abstained_rate": 1.0 - float(scored.mean())}
        if math.isfinite(correlation):
            found["reward_length_correlation"] = correlation
        return found


class SampleSteps:
    """Steps over on-policy samples; the unit is a prompt with all its samples.

    Args:
        frame: prompts (or pairs, whose prompts are taken once each), with reference answers where
            the variant needs them.
        material: policy, variant and recipe, which has an ``online`` section.

    Raises:
        DataError: no prompts, one that leaves no room for an answer, or no reference answers.
        UnknownName: no such cost model or similarity.
        EngineError: the engine named in the recipe is not installed.
    """

    def __init__(self, frame: pd.DataFrame, material: Material) -> None:
        policy, variant, recipe = material.policy, material.variant, material.recipe
        section = recipe.online
        if section is None:
            raise DataError("an online variant needs the recipe's [online] section.")
        self._policy, self._variant, self._section = policy, variant, section
        prompts = asked(frame, material)
        self._scorer = make_scorer(variant, section, prompts)
        self._sampler = sampler(policy, section, material.folder / "cache")
        if variant.needs.reference:
            policy.freeze_reference()
        self._ids = prompts["prompt_id"].tolist()
        self.counts = {"prompts": len(prompts)}
        left_out = frame["prompt_id"].nunique() - len(prompts)
        if left_out:
            self.counts["prompts_without_reference_answer"] = int(left_out)
        self._hash = _hash_of(prompts)
        self._prompt_ids = encoded_prompts(prompts, material)
        self._plan = round_plan(recipe, len(self._ids))
        self.n_per_epoch = self._plan.n_per_epoch
        self.n_steps = schedule(recipe).n_steps(self.n_per_epoch)
        self.state = variant.init_state(TrainingFacts(len(self._ids), self.n_steps))
        self._round: Round | None = None
        self._facts: dict[str, float] = {}
        self._round_number = -1

    def begin(self, step: int) -> None:
        """Draw and score a new round where the step needs one."""
        number = self._plan.number(step)
        if number != self._round_number:
            self._take(self._draw(number))
            self._round_number = number

    def units(self, step: int) -> np.ndarray:
        """Places within the round of the step's prompts; each pass has an order of its own.

        Raises:
            DataError: none of the step's samples has a score.
        """
        units = self._plan.batch(step, len(self._now.prompts))
        if not self._now.is_scored[self._rows(units)].any():
            raise DataError(
                f"reward or cost abstained on every sample of {', '.join(self.names(units)[:3])}."
            )
        return units

    def loss(self, units: np.ndarray, n_units: int) -> MicroLoss:
        """Mean of the samples' losses over the step's samples; those without a score are left out.

        A pass whose samples all lack one moves nothing; the others of its step count.
        """
        k, now = self._section.samples_per_prompt, self._now
        rows = self._rows(units)
        rows = rows[now.is_scored[rows]]
        if not len(rows):
            logger.warning("no sample of %s has a score: skipped", ", ".join(self.names(units)[:3]))
            return nothing_to_learn(self._policy)
        requests = [
            ScoreRequest(self._prompt_ids[now.prompts[row // k]], now.responses[row])
            for row in rows
        ]
        columns = {name: getattr(now, name)[rows] for name in COLUMNS}
        batch = sample_logps(self._policy, requests, columns, rows // k)
        losses = self._variant.sample_losses(batch, self.state)
        result = micro_loss(batch, losses, 1.0 / (n_units * k), self._variant)
        facts = {name: torch.tensor(value * result.n) for name, value in self._facts.items()}
        return dataclasses.replace(result, sums={**result.sums, **facts})

    def names(self, units: np.ndarray) -> list[str]:
        """Prompt ids."""
        return [self._ids[self._now.prompts[i]] for i in units]

    def finish(self, losses: Sequence[MicroLoss]) -> None:
        """Hand the step's samples to the variant's state."""
        self.state = updated_state(self._variant, self.state, losses)

    def artefacts(self, folder: Path) -> None:
        """Nothing: a round's samples are in the checkpoints."""

    def state_dict(self) -> dict[str, Any]:
        """The variant's state and the round's samples."""
        return {
            "variant": self.state,
            "number": self._round_number,
            "round": stored_round(self._round),
            "prompts": self._hash,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the variant's state and a round.

        Raises:
            CheckpointError: the run was started with other prompts.
        """
        require_same_prompts(state["prompts"], self._hash)
        self.state = taken_up(self.state, state["variant"])
        self._round_number = state["number"]
        if state["round"] is not None:
            self._take(Round(**round_fields(state["round"])))

    @property
    def _now(self) -> Round:
        if self._round is None:
            raise DataError("no samples were drawn yet.")
        return self._round

    def _take(self, drawn: Round) -> None:
        self._round, self._facts = drawn, drawn.facts()

    def _rows(self, units: np.ndarray) -> np.ndarray:
        """Rows of the round that hold the units' samples."""
        k = self._section.samples_per_prompt
        return (units[:, None] * k + np.arange(k)).ravel()

    def _draw(self, number: int) -> Round:
        section, policy = self._section, self._policy
        chosen = self._plan.prompts(number)
        settings = SamplingSettings(
            n=section.samples_per_prompt,
            max_new_tokens=section.max_new_tokens,
            seed=self._plan.derived_seed("samples", number),
        )
        answers = self._sampler.sample([self._prompt_ids[i] for i in chosen], settings)
        places = np.array([chosen[a.prompt_index] for a in answers])
        requests = [
            ScoreRequest(self._prompt_ids[place], answer.response_ids)
            for place, answer in zip(places, answers, strict=True)
        ]
        texts = [policy.encoder.decode(a.response_ids) for a in answers]
        reward, cost = self._scorer.score(places, texts)
        return Round(
            prompts=chosen,
            responses=tuple(a.response_ids for a in answers),
            behaviour=np.array([a.logp for a in answers]),
            ref=self._reference(requests),
            reward=reward,
            cost=cost,
        )

    def _reference(self, requests: Sequence[ScoreRequest]) -> np.ndarray:
        if not self._variant.needs.reference:
            return np.full(len(requests), np.nan)
        return self._policy.reference_scores(requests).logp


def asked(frame: pd.DataFrame, material: Material) -> pd.DataFrame:
    """What a variant samples answers to: each prompt once, in order.

    Raises:
        DataError: there are none, or the variant needs reference answers and none is there.
    """
    prompts = frame.drop_duplicates("prompt_id").reset_index(drop=True)
    if not len(prompts):
        raise DataError("there are no training prompts to sample answers to.")
    if material.variant.needs.reference_answers:
        prompts = with_reference_answers(prompts, material.variant).reset_index(drop=True)
    return prompts


def encoded_prompts(prompts: pd.DataFrame, material: Material) -> list[tuple[int, ...]]:
    """Token ids of prompts, each with room for an answer.

    Raises:
        DataError: one leaves no room.
    """
    messages = prompts.get("prompt_messages", pd.Series([None] * len(prompts)))
    room = material.recipe.online.max_new_tokens if material.recipe.online else 1
    return [
        material.policy.encoder.encode_prompt(text, turns, room=room).ids
        for text, turns in zip(prompts["prompt"], messages, strict=True)
    ]


def _hash_of(prompts: pd.DataFrame) -> str:
    """What a resumed run must have been started with."""
    ids = prompts["prompt_id"].tolist()
    if REFERENCE_ANSWER not in prompts:
        return content_hash(ids)
    return content_hash([ids, prompts[REFERENCE_ANSWER].tolist()])
