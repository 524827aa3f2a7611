"""Drops: in-distribution minus shifted, as the sets come, at matched strata, with controls.

By kind of shift first; a kind's drop is the plain mean over its sets. Not a plug-in. Start reading
at ``Contrasts.of``, then ``drop_findings``; comparisons are in ``_shift_verdicts``.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from dpo_diag.analyzers import _shift_covariates, _strata
from dpo_diag.analyzers._rows import Statistic
from dpo_diag.analyzers._shift_rows import Scored, row_of, ties_flag
from dpo_diag.analyzers._strata import Contrast
from dpo_diag.stats.contrast import Group, weighted_share_sum, weighted_sum

DROP = "ood_accuracy_drop"
MATCHED = "matched"
HEADLINE_DROPS = (DROP, f"{DROP}_{MATCHED}")
DROP_UNIT = "difference in share of pairs, in-distribution minus shifted"
MIX_UNIT = "share of pairs, of the drop"
OTHERS = (  # the same drop of another order of the same pairs: statistic, score
    ("ref_ranking_drop", "ref_ranking_accuracy_per_token"),
    ("explicit_accuracy_drop", "explicit_reward_accuracy"),
)
# what of the drop the mix makes: statistic, the strata that it is a mix of
MIXES = (
    ("ood_drop_from_mix", MATCHED),
    ("ood_drop_from_length", "same_length"),
    ("ood_drop_from_overlap", "same_overlap"),
    ("ood_drop_from_length_overlap", "same_length_overlap"),
)
MIXED_KINDS = "mixes kinds of shift: read the kinds"
ALL = "all"
Make = Callable[[np.ndarray, np.ndarray, np.ndarray], Contrast]


class Contrasts(NamedTuple):
    """The drops of one model as sums over groups of rows, and what could not be matched on.

    Attributes:
        drops: (slice, adjustment) -> contrasts whose sum is the drop; the adjustment is empty for
            the sets as they come, ``matched``, or a control.
        mixes: (slice, adjustment) -> contrasts whose sum is what the mix makes of it.
        notes: in words.
    """

    drops: Mapping[tuple[str, str], list[Contrast]]
    mixes: Mapping[tuple[str, str], list[Contrast]]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, model: Scored, params: Any) -> "Contrasts":
        """Every slice's contrasts: shifted sets, kinds of shift, all."""
        strata, notes = _shift_covariates.strata_of(model.rows, params.match)
        adjustments = {MATCHED: strata, **_shift_covariates.controls_of(model.rows)}
        domain = model.rows["domain"].to_numpy()
        own: dict[tuple[str, str], Contrast] = {}
        mixes: dict[tuple[str, str], Contrast] = {}
        for name in model.domains:
            shifted = domain == name
            own[name, ""] = _strata.plain_contrast(model.inside, shifted)
            for adjustment, labels in adjustments.items():
                key = name, adjustment
                own[key] = _strata.matched_contrast(model.inside, shifted, labels)
                mixes[key] = _strata.mix_contrast(model.inside, shifted, labels)
        labels = slices_of(model)
        return cls(
            {(s, a): _mean(own, model.members(s), a) for s in labels for a in ("", *adjustments)},
            {(s, a): _mean(mixes, model.members(s), a) for s in labels for a in adjustments},
            tuple(notes),
        )


def slices_of(model: Scored) -> list[str]:
    """Slices that have a drop: kinds of shift, shifted sets, and all of them together."""
    kinds = [f"kind={kind}" for kind in model.kinds]
    return [*kinds, *(f"domain={name}" for name in model.domains), ALL]


def drop_findings(
    model_id: str, model: Scored, contrasts: Contrasts, params: Any
) -> list[dict[str, Any]]:
    """Drops of the implicit reward, of the reference's ranking and of an explicit reward."""
    found = []
    scores = {DROP: "reward_accuracy", **dict(OTHERS)}
    for (label, adjustment), parts in contrasts.drops.items():
        for name, score in scores.items():
            values = model.rows[score].to_numpy(float)
            is_own = name == DROP
            if not is_own and (np.isnan(values).all() or adjustment not in ("", MATCHED)):
                continue
            statistic = Statistic(named(name, adjustment), DROP_UNIT, "lower")
            interval = interval_of(model, parts, values, params.ci_level)
            reasons = reasons_of(model, label, parts)
            found.append(row_of(statistic, model_id, label, interval, params, reasons))
    return found + _mix_findings(model_id, model, contrasts, params)


def _mix_findings(
    model_id: str, model: Scored, contrasts: Contrasts, params: Any
) -> list[dict[str, Any]]:
    """What of the drop the mix of strata, of lengths and of likeness makes."""
    found = []
    values = model.rows["reward_accuracy"].to_numpy(float)
    for name, adjustment in MIXES:
        for label in slices_of(model):
            parts = contrasts.mixes[label, adjustment]
            statistic = Statistic(name, MIX_UNIT, "neither")
            groups, prompts, rows = groups_of(model, parts, values)
            total = weighted_sum(groups, level=params.ci_level, shared=True)
            total = total._replace(n=rows, n_clusters=prompts)
            if not model.domains:
                total = total._replace(n=0, n_clusters=0)
            reasons = reasons_of(model, label, parts)
            found.append(row_of(statistic, model_id, label, total, params, reasons))
    return found


def named(statistic: str, adjustment: str) -> str:
    """Name of a drop under an adjustment."""
    return f"{statistic}_{adjustment}" if adjustment else statistic


def interval_of(model: Scored, parts: list[Contrast], values: np.ndarray, level: float) -> Any:
    """The weighted sum of shares of a contrast, rows and prompts counted once."""
    groups, prompts, rows = groups_of(model, parts, values)
    interval = weighted_share_sum(groups, level=level, shared=True)
    return interval._replace(n=rows, n_clusters=prompts) if interval.n else interval


def groups_of(
    model: Scored, parts: list[Contrast], values: np.ndarray
) -> tuple[list[Group], int, int]:
    """Groups of a contrast's rows with a value, the different prompts and rows behind them."""
    groups = _strata.merged(parts)
    return (
        _strata.as_groups(groups, values, model.clusters),
        _strata.n_prompts(groups, values, model.clusters),
        _strata.n_rows(groups, values),
    )


def reasons_of(model: Scored, label: str, parts: list[Contrast]) -> tuple[str, ...]:
    """What speaks against a drop of a slice."""
    if not model.domains:
        return ("no shifted set",)
    mixed = MIXED_KINDS if label == ALL and len(model.kinds) > 1 else ""
    flags = dict.fromkeys(part.flag for part in parts)
    if not parts:
        flags = {"no stratum on both sides": None}
    return (mixed, model.flag, *flags, ties_flag(model.rows))


def _mean(own: Mapping[tuple[str, str], Contrast], names: list[str], by: str) -> list[Contrast]:
    parts = [own[name, by] for name in names]
    return _strata.averaged(parts) or parts[:1]
