"""From values of rows to measures and words; shared by the checks, not a plug-in."""

from dataclasses import replace

import numpy as np
import pandas as pd

from dpo_diag.pair_checks._base import KNOW, LOOK, REPAIR, Case, Measure, PairData
from dpo_diag.stats.intervals import Interval, clustered_mean, clustered_proportion

MAX_PARTS = 20  # values of one column that are shown, the most frequent first


def share(
    statistic: str,
    values: np.ndarray,
    data: PairData,
    *,
    unit: str = "share of pairs",
    better: str = "lower",
    part: str = "all",
    mask: np.ndarray | None = None,
) -> Measure:
    """Mean of values in [0, 1] with its clustered interval.

    Args:
        statistic: its name.
        values: (n,) 0, 1 or a fraction; NaN rows are left out.
        data: whose prompts are the clusters.
        unit: in words.
        better: direction.
        part: what ``mask`` keeps, in words.
        mask: (n,) rows to look at; all where None.
    """
    kept = np.ones(data.n, bool) if mask is None else mask
    interval = clustered_proportion(
        np.asarray(values, float)[kept], data.prompts[kept], level=data.ci_level
    )
    return Measure(statistic, interval, unit, better, part)


def of_ranks(measure: Measure) -> Measure:
    """A share of rows picked by their rank among all: they are no independent draws."""
    return replace(measure, interval=measure.interval._replace(is_guarantee=False))


def mean(
    statistic: str, values: np.ndarray, data: PairData, *, unit: str, better: str = "neither"
) -> Measure:
    """Mean of any values with its clustered interval; NaN rows are left out."""
    interval = clustered_mean(values, data.prompts, level=data.ci_level)
    return Measure(statistic, interval, unit, better)


def by_column(
    statistic: str, values: np.ndarray, data: PairData, column: str, **words: str
) -> list[Measure]:
    """The share in each value of a column; none where the column is absent or has one value."""
    return [
        share(statistic, values, data, part=f"{column}={value}", mask=mask, **words)
        for value, mask in parts_of(data, column)
    ]


def parts_of(data: PairData, column: str) -> list[tuple[str, np.ndarray]]:
    """Values of a column with the (n,) masks of their rows, by frequency; none for one value."""
    if column not in data.rows.columns:
        return []
    present = data.rows[column].notna()
    text = data.rows[column].astype(object).where(present, "").astype(str)
    counts = text[text != ""].value_counts().sort_index()
    counts = counts.sort_values(ascending=False, kind="stable")
    if len(counts) < 2:
        return []
    return [(value, (text == value).to_numpy()) for value in counts.index[:MAX_PARTS]]


def graded(mask: np.ndarray, *, repair: float = np.inf, look: float = np.inf) -> str:
    """Concern of rows with a fault: ``repair`` and ``look`` are the shares above which it is so."""
    found = float(np.mean(mask)) if len(mask) else 0.0
    return REPAIR if found > repair else LOOK if found > look else KNOW


def counted(mask: np.ndarray, what: str = "pairs") -> str:
    """``12 of 3,142 pairs (0.38 %)``."""
    k, n = int(np.sum(mask)), len(mask)
    return f"{k:,} of {n:,} {what}" + (f" ({100 * k / n:.2g} %)" if n else "")


def percent(interval: Interval) -> str:
    """``61.2 % (58.8 % to 63.5 %)``; without limits where there are none."""
    if np.isnan(interval.estimate):
        return "n/a"
    shown = f"{100 * interval.estimate:.1f} %"
    if np.isnan(interval.low):
        return shown
    return f"{shown} ({100 * interval.low:.1f} % to {100 * interval.high:.1f} %)"


def places(data: PairData, rows: np.ndarray, limit: int = 3) -> str:
    """Where some rows were read, in words: ``line 3, line 9 and 4 more``."""
    named = [str(place) for place in data.rows["place"].iloc[rows[:limit]]]
    more = len(rows) - len(named)
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


def examples(
    data: PairData,
    mask: np.ndarray,
    kind: str,
    notes: pd.Series | str,
    severity: np.ndarray | None = None,
) -> tuple[Case, ...]:
    """The gravest of the rows with a fault, one per pair_id.

    Args:
        data: the pairs.
        mask: (n,) rows with the fault.
        kind: what they show.
        notes: one line for all, or (n,) one for each.
        severity: (n,) higher first; all alike where None.
    """
    grade = np.ones(data.n) if severity is None else severity
    rows = np.flatnonzero(mask)
    ids = data.rows["pair_id"].to_numpy()
    order = rows[np.lexsort((ids[rows].astype(str), -grade[rows]))] if len(rows) else rows
    cases, seen = [], set()
    for row in order:
        if len(cases) == data.n_cases:
            break
        if ids[row] not in seen:
            seen.add(ids[row])
            note = notes if isinstance(notes, str) else str(notes.iloc[row])
            note = f"{data.rows['place'].iloc[row]}: {note}"
            cases.append(Case(int(row), kind, float(grade[row]), note))
    return tuple(cases)
