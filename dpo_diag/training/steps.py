"""What the loop asks of its material: which units a step works on, and their loss.

The loop knows optimisers, schedules, checkpoints and logs; a ``Steps`` knows pairs or samples.
Start reading at ``Steps``; ``PairSteps`` serves every variant that learns from pairs, ``online``
has the one for variants that learn from their own samples.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from dpo_diag.training.batches import step_units
from dpo_diag.training.forward import shares_prompts
from dpo_diag.training.pair_data import PairData, pair_logps
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.sources._base import Context
from dpo_diag.variants._base import PairLogps, SampleLogps, TrainingFacts, Variant

MAX_SHARED_ROW = 2048


@dataclass(frozen=True)
class MicroLoss:
    """Loss of one forward pass.

    Attributes:
        loss: scalar with gradient, the sum of the units' losses over the units of the whole step.
        sums: metric -> sum over this pass's units, no gradient.
        n: units in this pass.
        batch: what the variant saw, without gradient, for its state.
    """

    loss: torch.Tensor
    sums: dict[str, torch.Tensor]
    n: int
    batch: PairLogps | SampleLogps


@dataclass(frozen=True)
class Schedule:
    """How long a run is.

    Attributes:
        seed: the run's.
        batch_size: units per step.
        epochs: passes over the data.
        max_steps: optimiser steps; 0 leaves it to ``epochs``.
    """

    seed: int
    batch_size: int
    epochs: float = 1.0
    max_steps: int = 0

    def n_steps(self, n_per_epoch: int) -> int:
        """Optimiser steps of the whole run."""
        return self.max_steps or max(1, math.ceil(self.epochs * n_per_epoch))


def schedule(recipe: Recipe) -> Schedule:
    """The length of a recipe's run."""
    section = recipe.optimizer
    return Schedule(recipe.run.seed, section.batch_size, section.epochs, section.max_steps)


class Steps(Protocol):
    """Material of a run, in optimiser steps; everything is a function of the step and the seed."""

    #: steps in one pass over the data
    n_per_epoch: int
    #: steps of the whole run
    n_steps: int
    #: the variant's state, learned or running
    state: Any

    def begin(self, step: int) -> None:
        """Prepare a step (from 0); samples a new round where one is due."""

    def units(self, step: int) -> np.ndarray:
        """Units (pairs, prompts) of a step, those of one forward pass split off its front."""

    def loss(self, units: np.ndarray, n_units: int) -> MicroLoss:
        """Loss of some units of a step of ``n_units``."""

    def names(self, units: np.ndarray) -> list[str]:
        """Ids of the units, for messages."""

    def finish(self, losses: Sequence[MicroLoss]) -> None:
        """After the optimiser step: update the variant's state."""

    def artefacts(self, folder: Path) -> None:
        """Write what the run leaves behind beside the model; called whenever that is saved."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and texts that a resumed run needs beside model and optimiser."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a stored state."""


class PairSteps:
    """Steps over preference pairs in a seeded order, each pair once per epoch."""

    def __init__(
        self, model: torch.nn.Module, data: PairData, variant: Variant, section: Schedule
    ) -> None:
        self._model, self._data, self._variant = model, data, variant
        self._seed, self._batch = section.seed, section.batch_size
        self.n_per_epoch = math.ceil(len(data) / self._batch)
        self.n_steps = section.n_steps(self.n_per_epoch)
        self.state = variant.init_state(_facts(data, self.n_steps))
        self._share = not data.is_scored and shares(model, data)

    def begin(self, step: int) -> None:
        """Let the sources prepare the step, and the variant its state where a round begins."""
        for source in self._data.sources.values():
            source.begin(step)
        rounds = self._data.sources.get("round_margins")
        number = round_begun(step, self.n_steps, self._variant.n_rounds)
        if rounds is not None and number is not None:
            margins = rounds.margins(self._data.ref_chosen - self._data.ref_rejected)
            self.state = self._variant.begin_round(margins, number, self.state)

    def units(self, step: int) -> np.ndarray:
        """Positions of the step's pairs, (B,); fewer at the end of an epoch."""
        return step_units(self._seed, step, n=len(self._data), batch_size=self._batch)

    def loss(self, units: np.ndarray, n_units: int) -> MicroLoss:
        """Mean of the pairs' losses, weighted by their share of the step, plus any penalty."""
        batch = pair_logps(self._model, self._data, units, share_prompts=self._share)
        losses = self._variant.losses(batch, self.state)
        total = losses.sum() / n_units
        penalty = self._variant.penalty(batch, self.state)
        if penalty is not None:
            total = total + penalty * (len(units) / n_units)
        sums = pair_metrics(batch, self._variant)
        return MicroLoss(total, sums, len(units), detached(batch))

    def names(self, units: np.ndarray) -> list[str]:
        """Pair ids."""
        return [self._data.pair_ids[i] for i in units]

    def finish(self, losses: Sequence[MicroLoss]) -> None:
        """Hand the step's batch to the variant's state, where it keeps one."""
        self.state = updated_state(self._variant, self.state, losses)

    def artefacts(self, folder: Path) -> None:
        """What the sources leave behind."""
        for source in self._data.sources.values():
            source.artefacts(folder)

    def state_dict(self) -> dict[str, Any]:
        """The variant's state and the sources'."""
        sources = {need: source.state_dict() for need, source in self._data.sources.items()}
        return {"variant": self.state, "sources": sources}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the variant's state and the sources'."""
        self.state = taken_up(self.state, state["variant"])
        for need, source in self._data.sources.items():
            source.load_state_dict(state["sources"][need])


def round_begun(step: int, n_steps: int, n_rounds: int) -> int | None:
    """Number of the round that begins with a step, both from 0; None within a round.

    Rounds split the run's steps as evenly as whole steps allow; of more rounds than steps some
    never begin.
    """
    number = step * n_rounds // n_steps
    return number if step == 0 or (step - 1) * n_rounds // n_steps < number else None


def taken_up(fresh: Any, stored: Any) -> Any:
    """The stored state; learned tensors keep the identity that the optimiser knows."""
    if not isinstance(fresh, Mapping):
        return stored
    result = dict(stored)
    for key, value in fresh.items():
        if isinstance(value, torch.Tensor) and value.requires_grad:
            with torch.no_grad():
                value.copy_(stored[key])
            result[key] = value
    return result


def _facts(data: PairData, n_steps: int) -> TrainingFacts:
    annotators = getattr(data.sources.get("annotators"), "names", ())
    unlabelled = data.sources.get("unlabelled")
    return TrainingFacts(
        n_pairs=len(data),
        n_steps=n_steps,
        n_annotators=len(annotators),
        n_unlabelled=getattr(unlabelled, "n", 0),
        null_space=getattr(data.sources.get("reference_gradients"), "null_space", None),
        columns=data.sources["columns"].whole() if "columns" in data.sources else {},
    )


def shares(model: torch.nn.Module, data: PairData | Context) -> bool:
    """Whether the two answers of a pair go through the model in one row, as ``pack_pairs`` does."""
    return _saves_much(data) and shares_prompts(model, data.chosen[:4], data.rejected[:4])


def _saves_much(data: PairData | Context) -> bool:
    """Whether the prompts are a tenth or more of all tokens, and rows stay short.

    Beyond some length the full mask costs more than the prompt: the lean attention kernels know
    only the plain causal one.
    """
    pairs = list(zip(data.chosen, data.rejected, strict=True))
    prompts = sum(len(c.prompt_ids) for c, _ in pairs)
    answers = [len(c.response_ids) + len(r.response_ids) for c, r in pairs]
    longest = max(len(c.prompt_ids) + n for (c, _), n in zip(pairs, answers, strict=True))
    return prompts >= 0.1 * (2 * prompts + sum(answers)) and longest <= MAX_SHARED_ROW


def pair_metrics(batch: PairLogps, variant: Variant) -> dict[str, torch.Tensor]:
    """Sums over the pairs of the metrics that TRL logs, under its names, no gradient.

    ``rewards/accuracies`` counts a tie as wrong, as TRL does; ``rewards/accuracies_ties_half``
    counts it one half. A model with a score head has no log-probs to log.
    """
    chosen_logp, rejected_logp = batch.policy_chosen.detach(), batch.policy_rejected.detach()
    chosen = variant.rewards(chosen_logp, batch.ref_chosen, batch.n_tokens_chosen)
    rejected = variant.rewards(rejected_logp, batch.ref_rejected, batch.n_tokens_rejected)
    wins, ties = (chosen > rejected).sum(), (chosen == rejected).sum()
    rewards = {
        "rewards/chosen": chosen.sum(),
        "rewards/rejected": rejected.sum(),
        "rewards/margins": (chosen - rejected).sum(),
        "rewards/accuracies": wins,
        "rewards/accuracies_ties_half": wins + 0.5 * ties,
    }
    if variant.needs.score_head:
        return rewards
    return {
        **rewards,
        "logps/chosen": chosen_logp.sum(),
        "logps/rejected": rejected_logp.sum(),
    }


def updated_state(variant: Variant, state: Any, losses: Sequence[MicroLoss]) -> Any:
    """The variant's state after a step, from the step's whole batch."""
    if type(variant).update_state is Variant.update_state:
        return state
    return variant.update_state(joined([loss.batch for loss in losses]), state)


def detached(batch: Any) -> Any:
    """The batch without gradients."""
    changes = {
        f.name: value.detach()
        for f in dataclasses.fields(batch)
        if isinstance(value := getattr(batch, f.name), torch.Tensor)
    }
    return dataclasses.replace(batch, **changes)


def joined(batches: Sequence[Any]) -> Any:
    """One batch from the passes of a step; per-token fields, whose widths differ, are left out."""
    if len(batches) == 1:
        return batches[0]
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(batches[0]):
        values = [getattr(batch, item.name) for batch in batches]
        if all(isinstance(v, torch.Tensor) and v.ndim == 1 for v in values):
            changes[item.name] = torch.cat(values)
        elif item.name.startswith("history") and values[0] is not None:
            changes[item.name] = torch.cat(values, dim=1)
        elif isinstance(values[0], torch.Tensor):
            changes[item.name] = None
        elif item.name == "extra":
            keys = values[0]
            changes["extra"] = {key: torch.cat([v[key] for v in values]) for key in keys}
    return dataclasses.replace(batches[0], **changes)
