"""From per-row values to Findings: slices, intervals, flags.

Shared by the analyzers of this folder; not a plug-in. A statistic that is a mean over rows is
declared as a ``Statistic`` and computed as a column with NaN where it does not apply; everything
else (slices, intervals, comparisons in ``_compare``) follows from the declaration.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.analyzers._base import finding
from dpo_diag.errors import TableError
from dpo_diag.stats.intervals import (
    FEW_CLUSTERS,
    Interval,
    clustered_mean,
    clustered_proportion,
)

FEW_ROWS = 100
MAX_SLICE_VALUES = 40  # of one column; the rest is named in a note, never silently dropped


@dataclass(frozen=True)
class Statistic:
    """A mean over rows: its name, unit in words, direction, and whether it is a share.

    ``is_joint``: a row's value rests on other rows too (a rule fitted to all of them, what like
    pairs reached), so that the rows are no independent draws and no interval is a guarantee.
    """

    name: str
    unit: str
    better: str
    is_share: bool = True
    is_joint: bool = False


class Reasons(NamedTuple):
    """Flags: ``of_part`` from a slice's columns, ``of_missing`` from a statistic's name."""

    of_part: Callable[[pd.DataFrame], str]
    of_missing: Callable[[str], str]


class Slice(NamedTuple):
    """Part of the data: ``all`` or ``column=value``, with the (n,) mask of its rows."""

    label: str
    mask: np.ndarray


def slices_of(
    frame: pd.DataFrame, columns: Sequence[str], *, values: Mapping[str, Sequence[str]]
) -> list[Slice]:
    """Slices of the columns that the frame has; a value without rows gives an empty mask.

    Args:
        frame: rows of one model.
        columns: names to slice by, in order.
        values: column -> values to report, the same for every model.
    """
    found = []
    for column in columns:
        if column in frame.columns:
            text = as_text(frame[column])
            found += [Slice(f"{column}={value}", text == value) for value in values[column]]
    return found


def slice_values(
    frame: pd.DataFrame, columns: Sequence[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Values of each column over all models, most frequent kept, and notes on what was left out."""
    values, notes = {}, []
    for column in columns:
        if column not in frame.columns:
            continue
        counts = pd.Series(as_text(frame[column])).value_counts()
        counts = counts[counts.index != ""].sort_index().sort_values(ascending=False, kind="stable")
        values[column] = sorted(counts.index[:MAX_SLICE_VALUES])
        if len(counts) > MAX_SLICE_VALUES:
            notes.append(
                f"{column} has {len(counts)} values; the {MAX_SLICE_VALUES} largest are shown."
            )
    return values, notes


def as_text(column: pd.Series) -> np.ndarray:
    """A column as strings, missing as the empty string, booleans as ``true`` and ``false``."""
    codes, found = pd.factorize(column)
    values = list(pd.Series(found).astype(object))
    if column.dtype == object and not all(isinstance(value, str) for value in values):
        # 1 and True are one value to factorize, not to a reader
        return column.astype(object).where(column.notna(), "").map(_name_of).to_numpy(dtype=object)
    names = np.array([*map(_name_of, values), ""], dtype=object)  # the last is that of code -1
    return names[codes]


def _name_of(value: Any) -> str:
    # booleans beside missing values are objects, and must have the names that they have alone
    return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)


def interval_of(
    statistic: Statistic, values: np.ndarray, clusters: np.ndarray, level: float
) -> Interval:
    """The statistic's mean over rows with the interval its kind calls for."""
    make = clustered_proportion if statistic.is_share else clustered_mean
    found = make(values, clusters, level=level)
    return found._replace(is_guarantee=False) if statistic.is_joint else found


def flags_of(interval: Interval, *extra: str) -> str:
    """Why not to lean on an estimate, joined by semicolons; empty when nothing speaks against."""
    flags = [flag for flag in extra if flag]
    if interval.n == 0:
        return "; ".join(flags) or "no rows"
    if interval.n < FEW_ROWS:
        flags.append(f"n<{FEW_ROWS}")
    if 0 < interval.n_clusters < FEW_CLUSTERS:
        flags.append(f"fewer than {FEW_CLUSTERS} prompts")
    return "; ".join(flags)


def estimate_columns(interval: Interval, level: float) -> dict[str, Any]:
    """An interval as columns of the Findings table."""
    return {
        "estimate": interval.estimate,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "ci_level": level,
        "method": interval.method,
        "is_guarantee": interval.is_guarantee,
        "n": interval.n,
        "n_clusters": interval.n_clusters,
    }


def mean_findings(
    analyzer: str,
    model_id: str,
    columns: pd.DataFrame,
    parts: Sequence[Slice],
    *,
    statistics: Sequence[Statistic],
    clusters: np.ndarray,
    params: Any,
    reasons: Reasons,
) -> list[dict[str, Any]]:
    """One row for every statistic and slice: the mean of its column over the slice's rows.

    A slice without rows gives NaN with n = 0; a statistic without values in a slice that has rows
    is said once, in the slice ``all``.

    Args:
        analyzer: its name.
        model_id: the model's.
        columns: (n,) rows, one column per statistic, NaN where it does not apply.
        parts: slices with (n,) masks.
        statistics: what to estimate.
        clusters: (n,) integer prompt codes.
        params: the analyzer's parameters, with ``ci_level``.
        reasons: what speaks against a slice, and why a statistic has no values.
    """
    rows = []
    matrix = {s.name: columns[s.name].to_numpy(float) for s in statistics}
    for part in parts:
        codes = pd.factorize(clusters[part.mask])[0]
        against = reasons.of_part(columns[part.mask]) if len(codes) else ""
        for statistic in statistics:
            column = matrix[statistic.name][part.mask]
            interval = interval_of(statistic, column, codes, params.ci_level)
            if part.label != "all" and not interval.n and len(codes):
                continue
            missing = reasons.of_missing(statistic.name) if len(codes) else ""
            rows.append(
                finding(
                    analyzer,
                    statistic.name,
                    model_id,
                    params=params,
                    slice=part.label,
                    unit=statistic.unit,
                    better=statistic.better,
                    flag=flags_of(interval, against if interval.n else missing),
                    **estimate_columns(interval, params.ci_level),
                )
            )
    return rows


def all_and_slices(
    frame: pd.DataFrame, columns: Sequence[str], *, values: Mapping[str, Sequence[str]], main: Slice
) -> list[Slice]:
    """The slice ``all`` and those by column; all but those by domain lie inside ``all``."""
    parts = [main]
    for part in slices_of(frame, columns, values=values):
        is_domain = part.label.startswith("domain=")
        parts.append(part if is_domain else part._replace(mask=part.mask & main.mask))
    return parts


def main_slice(frame: pd.DataFrame, domains: Sequence[str]) -> Slice:
    """The slice ``all``: every row, or those of the named domains."""
    if not domains:
        return Slice("all", np.ones(len(frame), bool))
    return Slice("all", frame["domain"].isin(domains).to_numpy())


def cell_points(
    analyzer: str,
    curve: str,
    model_id: str,
    findings: Sequence[Mapping[str, Any]],
    *,
    cells: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Shares that sum to 1 as points of Curves, for a figure of kind ``flow``.

    Args:
        analyzer: its name.
        curve: name of the curve.
        model_id: the model's.
        findings: its rows, of which the slice ``all`` is drawn.
        cells: series -> statistic, in order.
    """
    by_name = {row["statistic"]: row for row in findings if row["slice"] == "all"}
    return [
        {
            "analyzer": analyzer,
            "curve": curve,
            "model_id": model_id,
            "series": series,
            "x": 0.0,
            "y": by_name[statistic]["estimate"],
            "y_low": by_name[statistic]["ci_low"],
            "y_high": by_name[statistic]["ci_high"],
            "n": by_name[statistic]["n"],
        }
        for series, statistic in cells.items()
    ]


def check_baseline(analyzer: str, models: Sequence[str], baseline_id: str) -> None:
    """Refuse a baseline that has no rows.

    Raises:
        TableError: names the models there are.
    """
    if baseline_id and models and baseline_id not in models:
        raise TableError(
            f"{analyzer}: the baseline {baseline_id} has no rows; there are "
            f"{', '.join(sorted(models))}."
        )


def with_columns(
    frame: pd.DataFrame, other: pd.DataFrame | None, *, key: str, columns: Sequence[str]
) -> pd.DataFrame:
    """The frame with those of the columns that only the other table has, matched on ``key``."""
    if other is None:
        return frame
    new = [c for c in columns if c in other.columns and c not in frame.columns]
    lookup = other.drop_duplicates(key).set_index(key)
    positions = lookup.index.get_indexer(frame[key])
    added = {c: lookup[c].take(np.maximum(positions, 0)).to_numpy() for c in new if len(lookup)}
    missing = positions < 0
    for column, values in added.items():
        if missing.any():
            added[column] = np.where(missing, None, values.astype(object))
    return frame.assign(**added)
