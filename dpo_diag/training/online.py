"""Rounds of sample, score, learn, for variants that train on their own samples.

A round draws answers to some prompts with the current policy, has them scored by a reward and a
cost, and serves several optimiser steps of the one loop. Prompts come in a seeded order; the
seed of a round's samples is a function of the run's seed and the round. A run that stops within a
round stores the round's samples. Start reading at ``SampleSteps``.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from dpo_diag import registry
from dpo_diag.costs._base import Cost, build
from dpo_diag.engines._base import SamplingSettings, ScoreRequest
from dpo_diag.errors import CheckpointError, DataError
from dpo_diag.tables import content_hash
from dpo_diag.training.batches import pack, step_units
from dpo_diag.training.forward import response_logps
from dpo_diag.training.optimization import autocast
from dpo_diag.training.policy import Policy
from dpo_diag.training.recipe import OnlineSection, Recipe
from dpo_diag.training.steps import MicroLoss, detached, schedule, updated_state
from dpo_diag.variants._base import SampleLogps, TrainingFacts, Variant

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Round:
    """Scored samples of P prompts, K each, in the order of the prompts.

    Attributes:
        prompts: (P,) positions in the table of prompts.
        responses: P * K token ids.
        behaviour, ref: (P * K,) float64, nats.
        reward, cost: (P * K,) float64; the threshold is already subtracted from the cost. NaN
            where a cost model abstained; such samples are left out of the loss.
    """

    prompts: np.ndarray
    responses: tuple[tuple[int, ...], ...]
    behaviour: np.ndarray
    ref: np.ndarray
    reward: np.ndarray
    cost: np.ndarray


@dataclass(frozen=True)
class Scorer:
    """Reward and cost of answers, as the recipe's ``online`` section names them."""

    reward_model: Cost
    cost_model: Cost
    threshold: float

    def reward(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(N,), higher better: the model's upper end minus its value."""
        top = self.reward_model.high if math.isfinite(self.reward_model.high) else 0.0
        return top - self.reward_model.cost(prompts, responses)

    def cost(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(N,), cost units above the threshold; positive violates the constraint."""
        return self.cost_model.cost(prompts, responses) - self.threshold


def make_scorer(section: OnlineSection) -> Scorer:
    """The scorer of a recipe.

    Raises:
        UnknownName: no such cost model.
        DataError: a parameter of a cost model is unknown or missing.
    """
    reward = build(registry.load("costs", section.reward), section.reward_parameters)
    cost = build(registry.load("costs", section.cost), section.cost_parameters)
    return Scorer(reward, cost, section.threshold)


class SampleSteps:
    """Steps over on-policy samples; the unit is a prompt with all its samples.

    Args:
        policy: the model in training; its reference must be frozen.
        frame: prompts (or pairs, whose prompts are taken once each).
        variant: the online variant.
        recipe: complete, with its ``online`` section.

    Raises:
        DataError: no prompts, or one that leaves no room for an answer.
        UnknownName: no such cost model.
    """

    def __init__(
        self, policy: Policy, frame: pd.DataFrame, variant: Variant, recipe: Recipe
    ) -> None:
        section = recipe.online
        if section is None:
            raise DataError("an online variant needs the recipe's [online] section.")
        self._policy, self._variant, self._section = policy, variant, section
        self._scorer = make_scorer(section)
        self._seed, self._batch = recipe.run.seed, recipe.optimizer.batch_size
        prompts = frame.drop_duplicates("prompt_id")
        if not len(prompts):
            raise DataError("there are no training prompts to sample answers to.")
        self._ids = prompts["prompt_id"].tolist()
        self._texts = prompts["prompt"].tolist()
        messages = prompts.get("prompt_messages", pd.Series([None] * len(prompts)))
        self._prompt_ids = [
            policy.encoder.encode_prompt(text, turns, room=section.max_new_tokens).ids
            for text, turns in zip(self._texts, messages, strict=True)
        ]
        self._per_round = min(section.prompts_per_round, len(self._ids))
        self._steps_per_pass = math.ceil(self._per_round / self._batch)
        rounds = math.ceil(len(self._ids) / self._per_round)
        self.n_per_epoch = rounds * self._steps_per_pass * section.passes
        length = schedule(recipe)
        self.n_steps = length.n_steps(self.n_per_epoch)
        self.state = variant.init_state(TrainingFacts(len(self._ids), self.n_steps))
        self._round: Round | None = None
        self._round_number = -1

    def begin(self, step: int) -> None:
        """Draw and score a new round where the step needs one."""
        number = step // (self._steps_per_pass * self._section.passes)
        if number != self._round_number:
            self._round = self._draw(number)
            self._round_number = number

    def units(self, step: int) -> np.ndarray:
        """Places within the round of the step's prompts; each pass has an order of its own."""
        within = step % (self._steps_per_pass * self._section.passes)
        seed = _derived_seed(self._seed, "order", self._round_number)
        return step_units(seed, within, n=len(self._now.prompts), batch_size=self._batch)

    def loss(self, units: np.ndarray, n_units: int) -> MicroLoss:
        """Mean of the samples' losses over the step's samples."""
        k, now = self._section.samples_per_prompt, self._now
        rows = (units[:, None] * k + np.arange(k)).ravel()
        rows = rows[np.isfinite(now.reward[rows]) & np.isfinite(now.cost[rows])]
        if not len(rows):
            raise DataError(
                f"reward or cost abstained on every sample of {', '.join(self.names(units)[:3])}."
            )
        batch = self._logps(rows, k)
        losses = self._variant.sample_losses(batch, self.state)
        return MicroLoss(
            losses.sum() / (n_units * k), _metrics(batch, k), len(units), detached(batch)
        )

    def names(self, units: np.ndarray) -> list[str]:
        """Prompt ids."""
        return [self._ids[self._now.prompts[i]] for i in units]

    def finish(self, losses: Sequence[MicroLoss]) -> None:
        """Hand the step's samples to the variant's state."""
        self.state = updated_state(self._variant, self.state, losses)

    def state_dict(self) -> dict[str, Any]:
        """The variant's state and the round's samples."""
        stored = None
        if self._round is not None:
            stored = {
                key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
                for key, value in vars(self._round).items()
            }
        return {
            "variant": self.state,
            "number": self._round_number,
            "round": stored,
            "prompts": content_hash(self._ids),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the variant's state and a round.

        Raises:
            CheckpointError: the run was started with other prompts.
        """
        if state["prompts"] != content_hash(self._ids):
            raise CheckpointError(
                "the run was started with other prompts; resume with the same, or take another "
                "folder."
            )
        self.state, self._round_number = state["variant"], state["number"]
        if state["round"] is not None:
            self._round = Round(
                **{
                    key: value.numpy() if isinstance(value, torch.Tensor) else value
                    for key, value in state["round"].items()
                }
            )

    @property
    def _now(self) -> Round:
        if self._round is None:
            raise DataError("no samples were drawn yet.")
        return self._round

    def _draw(self, number: int) -> Round:
        section, policy = self._section, self._policy
        chosen = step_units(self._seed, number, n=len(self._ids), batch_size=self._per_round)
        settings = SamplingSettings(
            n=section.samples_per_prompt,
            max_new_tokens=section.max_new_tokens,
            seed=_derived_seed(self._seed, "samples", number),
        )
        with autocast(policy.device, policy.precision):
            answers = policy.engine().sample([self._prompt_ids[i] for i in chosen], settings)
        requests = [
            ScoreRequest(self._prompt_ids[chosen[a.prompt_index]], a.response_ids) for a in answers
        ]
        texts = [policy.encoder.decode(a.response_ids) for a in answers]
        prompts = [self._texts[chosen[a.prompt_index]] for a in answers]
        return Round(
            prompts=chosen,
            responses=tuple(a.response_ids for a in answers),
            behaviour=np.array([a.logp for a in answers]),
            ref=policy.reference_scores(requests).logp,
            reward=self._scorer.reward(prompts, texts),
            cost=self._scorer.cost(prompts, texts),
        )

    def _logps(self, rows: np.ndarray, k: int) -> SampleLogps:
        now, device = self._now, self._policy.device
        requests = [
            ScoreRequest(self._prompt_ids[now.prompts[row // k]], now.responses[row])
            for row in rows
        ]
        packed = pack(requests, device)
        logps = response_logps(self._policy.model, packed).sums

        def column(values: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(values[rows], dtype=logps.dtype, device=device)

        return SampleLogps(
            policy=logps,
            behaviour=column(now.behaviour),
            ref=column(now.ref),
            n_tokens=packed.n_tokens,
            reward=column(now.reward),
            cost=column(now.cost),
            prompt_index=torch.as_tensor(rows // k, device=device),
        )


def _metrics(batch: SampleLogps, k: int) -> dict[str, torch.Tensor]:
    """Sums over prompts of the means over their samples."""
    return {
        "reward": batch.reward.sum() / k,
        "cost": batch.cost.sum() / k,
        "rectified_cost": batch.cost.clamp(min=0).sum() / k,
        "violation_rate": (batch.cost > 0).sum() / k,
        "kl": (batch.behaviour - batch.ref).sum() / k,
        "completions/mean_length": batch.n_tokens.sum() / k,
        "ratio_deviation": (batch.policy.detach() - batch.behaviour).abs().sum() / k,
    }


def _derived_seed(seed: int, use: str, number: int) -> int:
    """A seed of its own for each use and round, so that no two streams run in step."""
    return int(content_hash([seed, use, number])[:8], 16)
