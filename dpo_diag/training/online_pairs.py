"""Steps of variants that train on pairs of their own answers, drawn anew each round.

A round draws K answers to some prompts with the current policy, asks an oracle of preferences about
them, makes a pair per prompt, scores the pairs under the reference and the opponents once, and
serves several optimiser steps of the one loop. The seeds of a round are functions of the run's seed
and the round; a run that stops within a round stores its pairs. Nothing here promises that play
against oneself converges. Start reading at ``PreferenceSteps``; ``pair_rounds`` makes the rounds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from dpo_diag.errors import DataError
from dpo_diag.tables import content_hash
from dpo_diag.text import EncodedResponse
from dpo_diag.training.pair_data import Material, PairData, pair_logps
from dpo_diag.training.pair_rounds import PairRound, PairRounds
from dpo_diag.training.round_state import require_same_prompts, round_fields, stored_round
from dpo_diag.training.sources._base import FieldSource
from dpo_diag.training.steps import (
    MicroLoss,
    detached,
    pair_metrics,
    schedule,
    shares,
    taken_up,
    updated_state,
)
from dpo_diag.variants._base import TrainingFacts


class _History(FieldSource):
    """The opponents' log-probs of a round's pairs, as a source of fields."""

    def __init__(self, drawn: PairRound, device: torch.device) -> None:
        self._values = {
            name: torch.as_tensor(getattr(drawn, name), device=device)
            for name in ("history_chosen", "history_rejected")
        }

    def fields(self, index: np.ndarray) -> Mapping[str, Any]:
        """(H, B) float32 of the pairs at ``index``."""
        return {name: values[:, index].float() for name, values in self._values.items()}


class PreferenceSteps:
    """Steps over pairs of on-policy answers; the unit is a pair, one per prompt at most.

    Args:
        frame: prompts (or pairs, whose prompts are taken once each).
        material: policy, variant and recipe, which has an ``online`` section with an oracle.

    Raises:
        DataError: no prompts, one that leaves no room for an answer, or an oracle's parameter is
            unknown or missing.
        UnknownName: no such oracle.
        CheckpointError: an opponent that cannot be read, or whose tokenizer differs.
        EngineError: the engine named in the recipe is not installed.
    """

    def __init__(self, frame: pd.DataFrame, material: Material) -> None:
        self._policy, self._variant = material.policy, material.variant
        self._rounds = PairRounds(frame, material)
        self.n_per_epoch = self._rounds.plan.n_per_epoch
        self.n_steps = schedule(material.recipe).n_steps(self.n_per_epoch)
        facts = TrainingFacts(len(self._rounds.ids), self.n_steps)
        self.state = material.variant.init_state(facts)
        self._round: PairRound | None = None
        self._number = -1

    def begin(self, step: int) -> None:
        """Draw, compare and score a new round where the step needs one."""
        number = self._rounds.plan.number(step)
        if number != self._number:
            self._take(self._rounds.draw(number))
            self._number = number

    def units(self, step: int) -> np.ndarray:
        """Places within the round of the step's pairs; each pass has an order of its own.

        None in a round that gave no pair: its steps leave the policy as it is.
        """
        if not len(self._now.prompts):
            return np.zeros(0, dtype=np.int64)
        return self._rounds.plan.units(step, len(self._now.prompts))

    @property
    def facts(self) -> Mapping[str, float]:
        """Numbers of the round as a whole, for the log."""
        return self._now.facts

    def loss(self, units: np.ndarray, n_units: int) -> MicroLoss:
        """Mean of the pairs' losses, weighted by their share of the step."""
        batch = pair_logps(self._policy.model, self._data, units, share_prompts=self._share)
        losses = self._variant.losses(batch, self.state)
        sums = pair_metrics(batch, self._variant)
        for side in ("chosen", "rejected"):
            wins = getattr(self._now, f"wins_{side}")[units].sum()
            sums[f"win_rate/{side}"] = torch.tensor(wins)
        return MicroLoss(losses.sum() / n_units, sums, len(units), detached(batch))

    def names(self, units: np.ndarray) -> list[str]:
        """Prompt ids."""
        return [self._rounds.ids[self._now.prompts[i]] for i in units]

    def finish(self, losses: Sequence[MicroLoss]) -> None:
        """Hand the step's pairs to the variant's state."""
        if losses:
            self.state = updated_state(self._variant, self.state, losses)

    def artefacts(self, folder: Path) -> None:
        """Nothing beside the model."""

    def state_dict(self) -> dict[str, Any]:
        """The variant's state, the round's pairs, the opponents, earlier answers."""
        return {
            "variant": self.state,
            "number": self._number,
            "round": stored_round(self._round),
            "rounds": self._rounds.state_dict(),
            "prompts": content_hash(self._rounds.ids),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a stored state.

        Raises:
            CheckpointError: the run was started with other prompts or opponents.
        """
        require_same_prompts(state["prompts"], content_hash(self._rounds.ids))
        self.state, self._number = taken_up(self.state, state["variant"]), state["number"]
        self._rounds.load_state_dict(state["rounds"])
        if state["round"] is not None:
            self._take(PairRound(**round_fields(state["round"])))

    @property
    def _now(self) -> PairRound:
        if self._round is None:
            raise DataError("no pairs were drawn yet.")
        return self._round

    def _take(self, drawn: PairRound) -> None:
        self._round = drawn
        prompts = [self._rounds.prompt_ids[i] for i in drawn.prompts]
        sides = [
            tuple(EncodedResponse(p, r) for p, r in zip(prompts, answers, strict=True))
            for answers in (drawn.chosen, drawn.rejected)
        ]
        self._data = PairData(
            tuple(self._rounds.ids[i] for i in drawn.prompts),
            *sides,
            drawn.ref_chosen,
            drawn.ref_rejected,
            sources={"history": _History(drawn, self._policy.device)},
        )
        self._share = bool(len(self._data)) and shares(self._policy.model, self._data)
