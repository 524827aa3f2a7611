"""Verdicts on drops: against no drop at all, against other orders of the same pairs, a baseline.

Each is one family of tests, Holm-adjusted. Not a plug-in. Start reading at ``against_zero``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpo_diag.analyzers import _compare
from dpo_diag.analyzers._rows import Statistic
from dpo_diag.analyzers._shift_drops import (
    ALL,
    DROP,
    DROP_UNIT,
    HEADLINE_DROPS,
    MATCHED,
    MIXED_KINDS,
    Contrasts,
    groups_of,
    named,
    reasons_of,
)
from dpo_diag.analyzers._shift_rows import NAME, Scored
from dpo_diag.stats.contrast import share_sum_against_zero, weighted_sum

OTHER_ORDERS = (  # name that the drop is set against, score
    ("explicit reward", "explicit_reward_accuracy"),
    ("reference's ranking", "ref_ranking_accuracy_per_token"),
)


def against_zero(
    scored: Mapping[str, Scored], contrasts: Mapping[str, Contrasts], params: Any
) -> list[dict[str, Any]]:
    """Final models' drops by kind, raw and matched, tested against 0: one family.

    Returns:
        Rows of Findings in place of those that ``drop_findings`` has for the same drop.
    """
    family = []
    for model_id, model in scored.items():
        if not model.is_final:
            continue
        values = model.rows["reward_accuracy"].to_numpy(float)
        for kind in model.kinds:
            for adjustment in ("", MATCHED):
                label = f"kind={kind}"
                parts = contrasts[model_id].drops[label, adjustment]
                groups, prompts, rows = groups_of(model, parts, values)
                difference = share_sum_against_zero(groups, level=params.ci_level, shared=True)
                if difference.n:
                    difference = difference._replace(n=rows, n_clusters=prompts)
                family.append(
                    _compare.comparison(
                        NAME,
                        Statistic(named(DROP, adjustment), DROP_UNIT, "lower"),
                        model_id,
                        "",
                        difference=difference,
                        params=params,
                        label=label,
                        flag="; ".join(filter(None, reasons_of(model, label, parts))),
                    )
                )
    return _compare.judge(family, params.ci_level)


def against_other_orders(
    scored: Mapping[str, Scored], contrasts: Mapping[str, Contrasts], params: Any
) -> list[dict[str, Any]]:
    """Final models' drops by kind minus those of the explicit reward and of the reference.

    A difference of drops on the same pairs: above 0 where the implicit reward decays more.
    """
    family = []
    for model_id, model in scored.items():
        own = model.rows["reward_accuracy"].to_numpy(float)
        for name, score in OTHER_ORDERS:
            gap = own - model.rows[score].to_numpy(float)
            if not model.is_final or np.isnan(gap).all():
                continue
            family += [
                _difference(
                    model_id, model, contrasts[model_id], gap, name, (label, adjustment), params
                )
                for label in (f"kind={kind}" for kind in model.kinds)
                for adjustment in ("", MATCHED)
            ]
    return _compare.judge(family, params.ci_level)


def against_baseline(
    scored: Mapping[str, Scored], contrasts: Mapping[str, Contrasts], params: Any
) -> tuple[list[dict[str, Any]], list[str]]:
    """Difference of drops between a final model and the baseline on the same pairs; notes."""
    if params.baseline_id not in scored:
        return [], []
    baseline = scored[params.baseline_id]
    if baseline.rows["tie_share"].eq(1.0).all():
        return [], ["The baseline is its own reference: it has no implicit reward to compare with."]
    other = baseline.rows.set_index("pair_id")["reward_accuracy"]
    family = []
    for model_id, model in scored.items():
        if model_id == params.baseline_id or not model.is_final:
            continue
        ids = model.rows["pair_id"]
        gap = model.rows["reward_accuracy"].to_numpy(float) - other.reindex(ids).to_numpy(float)
        n_alone = int(np.isnan(gap).sum()) + int((~other.index.isin(ids)).sum())
        alone = f"{n_alone} rows in one model only" if n_alone else ""
        family += [
            _difference(
                model_id,
                model,
                contrasts[model_id],
                gap,
                params.baseline_id,
                (label, adjustment),
                params,
                flag=alone,
            )
            for label in (*(f"kind={kind}" for kind in model.kinds), ALL)
            for adjustment in ("", MATCHED)
        ]
    return _compare.judge(family, params.ci_level), []


def sentences(rows: Sequence[Mapping[str, Any]], models: Mapping[str, Scored]) -> list[str]:
    """What the verdicts against 0 say, one line for each final model: which kind hurts.

    A worse kind has beside it the drop at equal differences in length and the reference's own. The
    matched drop decides; the raw one where nothing could be matched.

    Args:
        rows: the analyzer's Findings.
        models: by model_id.
    """
    own = {
        (row["model_id"], row["slice"], row["statistic"]): row
        for row in rows
        if not row["baseline_id"]
    }
    lines = []
    for model_id, model in models.items():
        said: dict[str, list[str]] = {}
        for label in (f"kind={kind}" for kind in model.kinds):
            found = [own.get((model_id, label, name)) for name in reversed(HEADLINE_DROPS)]
            row = next((r for r in found if r is not None and r["verdict"]), None)
            if row is not None:
                beside = _beside(own, model_id, label) if row["verdict"] == "worse" else ""
                shown = f"{label.partition('=')[2]} ({_shown(row)}{beside})"
                said.setdefault(row["verdict"], []).append(shown)
        if said:
            parts = [f"{_WORDS[v]}: {', '.join(said[v])}" for v in _WORDS if v in said]
            lines.append(f"{model_id}, drop of the implicit reward's accuracy. {'. '.join(parts)}.")
    return lines


def _beside(own: Mapping[tuple[str, str, str], Any], model_id: str, label: str) -> str:
    """The drop with length held fixed, and that of the reference's ranking, in words."""
    words = {
        named(DROP, "same_length"): "with the difference in length held fixed",
        named("ref_ranking_drop", MATCHED): "for the reference's own ranking",
    }
    parts = [
        f"; {100.0 * row['estimate']:+.1f} {text}"
        for name, text in words.items()
        if (row := own.get((model_id, label, name))) is not None and row["n"]
    ]
    return "".join(parts)


_WORDS = {
    "worse": "Worse off-distribution",
    "better": "Better off-distribution",
    "not distinguishable": "Not distinguishable from no drop",
}


def _shown(row: Mapping[str, Any]) -> str:
    points = [100.0 * row[name] for name in ("estimate", "ci_low", "ci_high")]
    how = "at matched strata" if row["statistic"].endswith(MATCHED) else "unmatched"
    return f"{points[0]:+.1f} points, {points[1]:+.1f} to {points[2]:+.1f}, {how}"


def _difference(
    model_id: str,
    model: Scored,
    contrasts: Contrasts,
    gap: np.ndarray,
    other: str,
    what: tuple[str, str],
    params: Any,
    *,
    flag: str = "",
) -> _compare.Comparison:
    label, adjustment = what
    parts = contrasts.drops[label, adjustment]
    groups, prompts, rows = groups_of(model, parts, gap)
    difference = weighted_sum(groups, level=params.ci_level, shared=True)
    if difference.n:
        difference = difference._replace(n=rows, n_clusters=prompts)
    mixed = MIXED_KINDS if label == ALL and len(model.kinds) > 1 else ""
    return _compare.comparison(
        NAME,
        Statistic(named(DROP, adjustment), DROP_UNIT, "lower"),
        model_id,
        other,
        difference=difference,
        params=params,
        label=label,
        flag="; ".join(filter(None, (mixed, flag))),
    )
