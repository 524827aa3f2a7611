"""What a selector needs, made ready as columns: margins of a scorer, of a run, products of states.

Start reading at ``Sources`` and ``gather``.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from dpo_diag.checkpoints import Checkpoint, ModelRef, require_reference
from dpo_diag.costs._base import Cost
from dpo_diag.errors import DataError
from dpo_diag.pairs import PairSet
from dpo_diag.pipeline.rewards import build_variant, reward_rows
from dpo_diag.pipeline.states import state_rows
from dpo_diag.pipeline.work import EngineChoice, Work
from dpo_diag.selectors._base import Selector, numbers

CARRIED_BY = "UltraFeedback-binarized, the sandbox's panel.jsonl"


@dataclass(frozen=True)
class ScoreColumns:
    """An external margin from two columns of the pairs; a higher score is a better answer."""

    chosen: str = "score_chosen"
    rejected: str = "score_rejected"

    @property
    def definition(self) -> str:
        """The margin in words, for the record."""
        return f"{self.chosen} - {self.rejected}"

    def margins(self, pairs: PairSet) -> np.ndarray:
        """Score of chosen minus score of rejected, (n,), NaN where one is missing.

        Raises:
            DataError: a column is missing or holds no numbers.
        """
        for column in (self.chosen, self.rejected):
            if column not in pairs.frame.columns:
                raise DataError(
                    f"{pairs.source}: the external margin needs the column {column}, which the "
                    f"pairs lack; take pairs that carry it ({CARRIED_BY}), name other columns with "
                    "--external columns:CHOSEN,REJECTED, or compute it with --external cost:NAME."
                )
        return numbers(pairs.frame, self.chosen) - numbers(pairs.frame, self.rejected)


@dataclass(frozen=True)
class CostMargin:
    """An external margin from a cost: how much worse the rejected answer is."""

    cost: Cost

    @property
    def definition(self) -> str:
        """The margin in words, for the record."""
        return f"{self.cost.cost_def} of rejected - of chosen"

    def margins(self, pairs: PairSet) -> np.ndarray:
        """Cost of rejected minus cost of chosen, (n,), NaN where the cost abstains."""
        prompts = list(pairs.frame["prompt"])
        chosen, rejected = (
            self.cost.cost(prompts, list(pairs.frame[side])) for side in ("chosen", "rejected")
        )
        return rejected - chosen


@dataclass(frozen=True)
class Sources:
    """Where a selector's columns come from; None where nothing was named.

    Attributes:
        external: scorer beside the policy; None for the columns of ``ScoreColumns``.
        seed_run: checkpoint whose implicit margins are taken, against its own reference.
        model: model whose hidden states are read, as training starts from.
    """

    external: ScoreColumns | CostMargin | None = None
    seed_run: Checkpoint | None = None
    model: Checkpoint | None = None

    def check(self, selector: Selector) -> None:
        """Refuse what is missing, and what the selector does not look at.

        Raises:
            DataError: names the option.
            CheckpointError: the seed run's reference is not known.
        """
        given = {"external": self.external, "implicit": self.seed_run, "states": self.model}
        check_given(selector, {origin for origin, value in given.items() if value is not None})
        if self.seed_run is not None and build_variant(self.seed_run).needs.reference:
            require_reference(self.seed_run)


def check_given(selector: Selector, given: Set[str]) -> None:
    """Refuse origins that the selector has no use for, and the lack of those it needs.

    Args:
        selector: who needs.
        given: those of ``external``, ``implicit`` and ``states`` that the user named.

    Raises:
        DataError: names the option.
    """
    needed = set(selector.needs.values())
    for origin in sorted(given - needed):
        wanted = " and ".join(sorted(needed & _OPTIONS.keys())) or "nothing but the pairs"
        raise DataError(
            f"{_OPTIONS[origin]} is of no use to {selector.name}, which needs {wanted}; leave it "
            "out or take another selector."
        )
    for origin in sorted((needed & _ASK.keys()) - given):
        raise DataError(f"{selector.name} needs {_ASK[origin]}")


_OPTIONS = {"external": "--external", "implicit": "--checkpoint", "states": "--model"}
_ASK = {
    "implicit": "the implicit margins of a trained run: give --checkpoint RUN, such as a DPO run "
    "on a random part of the pairs (dpo-diag select random).",
    "states": "the hidden states of a model: give --model M, the one that training starts from.",
}
_ON_TRUST = (
    "{name}: its folder holds no record of the reference's weights, so the reference is taken on "
    "trust; implicit margins against another one than it was trained with mean nothing."
)


@dataclass(frozen=True)
class Gathered:
    """Columns of the pairs, one row each in their order, and what they were made from.

    Attributes:
        table: ``pair_id`` and what the selector needs.
        record: origin -> what it was, with fingerprints.
        notes: what to say aloud.
    """

    table: pd.DataFrame
    record: Mapping[str, Any]
    notes: tuple[str, ...]


def gather(
    selector: Selector, pairs: PairSet, sources: Sources, choice: EngineChoice, work: Work
) -> Gathered:
    """Every column that the selector needs.

    Raises:
        DataError: a column of the data is missing or holds no numbers.
        CheckpointError, EngineError: as scoring.
    """
    table = pairs.frame[["pair_id"]].reset_index(drop=True)
    record: dict[str, Any] = {}
    notes: list[str] = []
    for origin in dict.fromkeys(selector.needs.values()):
        names = [name for name, where in selector.needs.items() if where == origin]
        made = _MAKERS[origin](names, pairs, sources, choice, work)
        table = table.assign(**{name: made.table[name].to_numpy() for name in names})
        record |= made.record
        notes += made.notes
    return Gathered(table, record, tuple(notes))


Maker = Callable[[list[str], PairSet, Sources, EngineChoice, Work], Gathered]


def _of_pairs(
    names: list[str], pairs: PairSet, sources: Sources, choice: EngineChoice, work: Work
) -> Gathered:
    for name in names:
        if name not in pairs.frame.columns:
            raise DataError(f"{pairs.source}: selection needs the column {name}, which it lacks.")
    return Gathered(pairs.frame[names], {}, ())


def _external(
    names: list[str], pairs: PairSet, sources: Sources, choice: EngineChoice, work: Work
) -> Gathered:
    external = sources.external or ScoreColumns()
    table = pd.DataFrame({"external_margin": external.margins(pairs)})
    return Gathered(table, {"external": external.definition}, ())


def _implicit(
    names: list[str], pairs: PairSet, sources: Sources, choice: EngineChoice, work: Work
) -> Gathered:
    assert sources.seed_run is not None  # Sources.check
    run = replace(sources.seed_run, steps=())
    rewards = reward_rows([run], pairs, choice, work).rewards
    margins = rewards.set_index("pair_id")["margin"].reindex(pairs.frame["pair_id"])
    used = {
        "model": _named(run.model),
        "reference": _named(run.reference) if run.reference else None,
        "is_reference_recorded": run.manifest is not None,
        "reward_def": build_variant(run).reward_def,
    }
    notes = [] if run.manifest else [_ON_TRUST.format(name=run.model.name)]
    table = pd.DataFrame({"implicit_margin": margins.to_numpy()})
    return Gathered(table, {"implicit": used}, (*notes, *_cut(rewards)))


def _states(
    names: list[str], pairs: PairSet, sources: Sources, choice: EngineChoice, work: Work
) -> Gathered:
    assert sources.model is not None  # Sources.check
    rows = state_rows(sources.model, pairs, choice, work)
    return Gathered(rows[names], {"states": {"model": _named(sources.model.model)}}, _cut(rows))


_MAKERS: dict[str, Maker] = {
    "pairs": _of_pairs,
    "external": _external,
    "implicit": _implicit,
    "states": _states,
}


def _cut(rows: pd.DataFrame) -> tuple[str, ...]:
    n = int(rows["truncated"].sum())
    return (f"{n} of {len(rows)} pairs were cut to fit the model's window.",) if n else ()


def _named(model: ModelRef) -> dict[str, str]:
    return {"model_id": model.model_id, "fingerprint": model.fingerprint}
