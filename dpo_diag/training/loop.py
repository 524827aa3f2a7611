"""The one training loop: every variant, pairs or samples, goes through ``train``.

A step: prepare it, add up gradients over its forward passes, clip, AdamW, let the variant update
its state, log, evaluate, save. What a variant needs is prepared before; the loop has no branch on
a variant's name. Start reading at ``train``, then ``_Run.step``.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dpo_diag.engines._batching import is_out_of_memory
from dpo_diag.errors import CheckpointError, TrainingError
from dpo_diag.store import RowStore
from dpo_diag.training.inputs import Inputs
from dpo_diag.training.matmul import float32_matmul
from dpo_diag.training.meter import Meter
from dpo_diag.training.optimization import autocast, learning_rate
from dpo_diag.training.pair_data import PairData, pair_logps
from dpo_diag.training.preparation import Prepared, prepare
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.recipe_file import dump_recipe
from dpo_diag.training.runs import (
    Stopped,
    is_finished,
    random_state,
    require_recipe,
    set_random_state,
    trainer_state,
)
from dpo_diag.training.steps import MicroLoss, pair_metrics

if TYPE_CHECKING:
    from dpo_diag.pairs import PairSet

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainProgress:
    """Where a run is, for a progress bar or a caller that wants to stop it.

    Attributes:
        step: optimiser steps done.
        n_steps: of the whole run.
        metrics: the row just added to ``log_history``; empty between rows.
    """

    step: int
    n_steps: int
    metrics: Mapping[str, float]


Progress = Callable[[TrainProgress], None]


def train(
    recipe: Recipe,
    pairs: "PairSet",
    *,
    out: Path,
    resume: bool = False,
    progress: Progress | None = None,
    store: RowStore | None = None,
    inputs: Inputs | None = None,
) -> Path:
    """Train as the recipe says and write the run folder.

    Rows with split ``train`` are trained on, rows with split ``validation`` are evaluated.

    Args:
        recipe: complete, with ``run.model``.
        pairs: preference pairs.
        out: run folder; must not hold a run unless ``resume``.
        resume: go on from the last complete checkpoint; the result is the same bit for bit as
            without the stop. Starts from the beginning where there is none; a finished run is
            left as it is.
        progress: called after each step. What it raises ends the run; checkpoints stay.
        store: where reference log-probs are looked up and kept; None keeps them in ``out``.
        inputs: data beside the pairs that only some variants read.

    Returns:
        ``out``.

    Raises:
        RecipeError: no model, or a variant that needs what the loop does not provide.
        DataError: no training pairs, labels missing, or pairs that cannot be encoded.
        CheckpointError: unreadable model, or ``out`` holds another run.
        EngineError: weights that are incomplete or not finite.
        TrainingError: a loss or gradient that is not finite, or memory too small for one pair.
    """
    out = Path(out)
    if is_finished(out):
        if resume:
            require_recipe(out, dump_recipe(recipe))
            logger.info("%s is finished", out)
            return out
        raise CheckpointError(f"{out}: already holds a run; take another --out, or --resume.")
    if any(out.glob("checkpoint-*")) and not resume:
        raise CheckpointError(f"{out}: holds a stopped run; give --resume, or another --out.")
    # restored on leaving: the caller's generator is none of our business
    with torch.random.fork_rng():
        torch.manual_seed(recipe.run.seed)  # dropout; order and sampling have their own
        run = _Run(prepare(recipe, pairs, out, store=store, inputs=inputs))
        stopped = run.parts.folder.last_checkpoint()
        run.parts.folder.start()
        if stopped is not None:
            run.take_up(stopped)
        matmul = float32_matmul(run.parts.policy.model, recipe.run.matmul)
        with matmul, run.parts.policy.resources:
            run.to_the_end(progress)
    return out


class _Run:
    """A run in memory: what was prepared, and how far it is."""

    def __init__(self, parts: Prepared) -> None:
        self.parts = parts
        section = parts.recipe.optimizer
        self.micro = section.micro_batch_size or section.batch_size
        self.step_number = 0
        self.log: list[dict[str, Any]] = []
        self.meter = Meter()

    def to_the_end(self, progress: Progress | None) -> None:
        """All remaining steps, then the final model."""
        log = self.parts.recipe.log
        while self.step_number < self.parts.n_steps:
            self.step()
            done, last = self.step_number, self.step_number == self.parts.n_steps
            row: dict[str, Any] = {}
            if done % log.log_every == 0 or last:
                row = self.write_row(self.meter.take())
            if self.parts.validation is not None and (
                last or (log.eval_every and done % log.eval_every == 0)
            ):
                self.write_row(self.evaluate(self.parts.validation))
            if log.save_every and done % log.save_every == 0 and not last:
                self.save_checkpoint()
            if progress is not None:
                progress(TrainProgress(done, self.parts.n_steps, row))
        self.parts.steps.artefacts(self.parts.folder.path)
        self.parts.folder.save_model(
            self.parts.policy.model, self.parts.policy.encoder.tokenizer, self.summary()
        )

    def step(self) -> None:
        """One optimiser step."""
        started = time.perf_counter()
        section, model = self.parts.recipe.optimizer, self.parts.policy.model
        self.parts.steps.begin(self.step_number)
        model.train()
        units = self.parts.steps.units(self.step_number)
        losses = self.gradients(units)
        rate = learning_rate(section, self.step_number, self.parts.n_steps)
        for group in self.parts.optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        weights = [g for g in self.parts.optimizer.param_groups if not g.get("is_learned")]
        trained = [p for group in weights for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(trained, section.max_grad_norm or math.inf)
        self.require_finite(norm, "gradient", units)
        self.parts.optimizer.step()
        self.parts.optimizer.zero_grad(set_to_none=True)
        self.parts.steps.finish(losses)
        self.step_number += 1
        state = self.parts.variant.metrics(self.parts.steps.state)
        # numbers of a round are said as they are: a mean over steps of two rounds is neither's
        facts = getattr(self.parts.steps, "facts", {})
        self.meter.add(losses, {**state, **facts, "learning_rate": rate}, float(norm))
        self.meter.seconds += time.perf_counter() - started

    def gradients(self, units: np.ndarray) -> list[MicroLoss]:
        """Add up the gradients of a step; out of memory is met with smaller passes, said once."""
        while True:
            try:
                return [self.backward(part, len(units)) for part in self.portions(units)]
            except (RuntimeError, MemoryError) as error:
                self.parts.optimizer.zero_grad(set_to_none=True)
                self.halve_passes(error, self.parts.variant.needs.couples_batch)

    def halve_passes(self, error: Exception, is_whole: bool = False) -> None:
        """After out of memory: half as many units per pass; any other error is raised again."""
        if not is_out_of_memory(error):
            raise error
        if self.micro == 1 or is_whole:
            raise TrainingError(
                f"out of memory at step {self.step_number + 1} with {self.micro} units in "
                "a pass; use gradient checkpointing, LoRA or a shorter max_length."
            ) from error
        self.micro = math.ceil(self.micro / 2)
        logger.warning("out of memory: going on with %d units per pass", self.micro)

    def portions(self, units: np.ndarray) -> list[np.ndarray]:
        """The units of a step in the portions of one forward pass."""
        return [units[i : i + self.micro] for i in range(0, len(units), self.micro)]

    def backward(self, units: np.ndarray, n_units: int) -> MicroLoss:
        """Loss and gradient of one forward pass."""
        with autocast(self.parts.policy.device, self.parts.recipe.run.precision):
            result = self.parts.steps.loss(units, n_units)
        self.require_finite(result.loss, "loss", units)
        result.loss.backward()
        return MicroLoss(result.loss.detach(), result.sums, result.n, result.batch)

    def require_finite(self, value: torch.Tensor, what: str, units: np.ndarray) -> None:
        """Stop on NaN or infinity, naming step, units and what is left of the run."""
        if not torch.isfinite(value):
            names = self.parts.steps.names(units)
            shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if names[8:] else "")
            raise TrainingError(
                f"the {what} is {value.item()} at step {self.step_number + 1}, on {shown}; lower "
                f"the learning rate, or look at these. {self.last_good()}"
            )

    def last_good(self) -> str:
        """Where the run could be taken up again, in words."""
        found = self.parts.folder.checkpoints()
        if not found:
            return "There is no checkpoint before it: log.save_every keeps some."
        return f"The last good checkpoint is {found[max(found)]}."

    def evaluate(self, data: PairData) -> dict[str, float]:
        """Loss and metrics on the validation pairs; out of memory is met with smaller passes."""
        while True:
            try:
                return self._evaluated(data)
            except (RuntimeError, MemoryError) as error:
                self.halve_passes(error)

    @torch.no_grad()
    def _evaluated(self, data: PairData) -> dict[str, float]:
        """Loss (where the variant has one on pairs) and metrics on the validation pairs."""
        model, totals, loss = self.parts.policy.model, Meter(), 0.0
        model.eval()
        size = max(1, self.micro)
        for start in range(0, len(data), size):
            index = np.arange(start, min(start + size, len(data)))
            with autocast(self.parts.policy.device, self.parts.recipe.run.precision):
                batch = pair_logps(model, data, index)
            if self.parts.variant.needs.has_pair_loss:
                loss += float(self.parts.variant.losses(batch, self.parts.steps.state).sum())
            totals.add_sums(pair_metrics(batch, self.parts.variant), len(index))
        row = {f"eval_{key}": value for key, value in totals.means().items()}
        if self.parts.variant.needs.has_pair_loss:
            row = {"eval_loss": loss / len(data), **row}
        return row

    def write_row(self, values: Mapping[str, float]) -> dict[str, Any]:
        """Add a row to the log, with step and epoch as transformers writes them."""
        row = {**values, "epoch": self.epoch, "step": self.step_number}
        self.log.append(row)
        return row

    @property
    def epoch(self) -> float:
        """Passes over the data so far."""
        return round(self.step_number / self.parts.steps.n_per_epoch, 4)

    def summary(self) -> dict[str, Any]:
        """Content of ``trainer_state.json``, with what happened to the pairs."""
        state = trainer_state(
            self.log,
            step=self.step_number,
            n_steps=self.parts.n_steps,
            epoch=self.epoch,
            batch_size=self.parts.recipe.optimizer.batch_size,
        )
        return {**state, "pair_counts": dict(self.parts.counts)}

    def save_checkpoint(self) -> None:
        """Write ``checkpoint-<step>`` with all that an exact continuation needs."""
        state = {
            "optimizer": self.parts.optimizer.state_dict(),
            "random": random_state(self.parts.policy.device),
            "steps": self.parts.steps.state_dict(),
            "meter": self.meter.state_dict(),
            "micro": self.micro,
        }
        tokenizer = self.parts.policy.encoder.tokenizer
        self.parts.steps.artefacts(self.parts.folder.path)
        self.parts.folder.save_checkpoint(self.parts.policy.model, tokenizer, self.summary(), state)

    def take_up(self, stopped: Stopped) -> None:
        """Continue from a stored state."""
        parts, state = self.parts, stopped.state
        parts.policy.restore(stopped.folder)
        parts.optimizer.load_state_dict(state["optimizer"])
        parts.steps.load_state_dict(state["steps"])
        self.meter.load_state_dict(state["meter"])
        self.micro, self.step_number, self.log = state["micro"], stopped.step, stopped.log
        set_random_state(state["random"], parts.policy.device)
        logger.info("resumed at step %d of %d", self.step_number, parts.n_steps)
