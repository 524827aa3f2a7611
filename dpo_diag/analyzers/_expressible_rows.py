"""Findings and curves of the table Expressible; not a plug-in.

What a space can express grows with the length of the change, so a single number is only read off
at one length: the run's own. Start reading at ``expressible_rows``.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.analyzers._base import finding
from dpo_diag.analyzers._rows import Statistic

STATISTICS = (
    Statistic("residual_share", "share of squared target margins", "lower", is_share=False),
    Statistic("sign_errors", "share of fitted pairs", "lower", is_share=False),
    Statistic("held_out_sign_errors", "share of pairs that were not fitted", "lower"),
)
EXACT = "computed from these pairs, to first order: no interval"
OWN_LENGTH = "run's own"  # first in the name: a legend cuts long ones
_MOVED = Statistic("moved_norm", "length of the parameter change", "neither", is_share=False)


class Reading(NamedTuple):
    """Numbers at the run's own length, NaN where they cannot be read off, and the reason."""

    values: dict[str, float]
    norm: float
    n: int
    n_prompts: int
    flag: str


def expressible_rows(
    analyzer: str, model_id: str, table: pd.DataFrame, params: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Findings at the run's own length, and curves over length and over dimension.

    The slice ``all`` is the space of all parameters where there is one, else the largest; every
    space has a slice of its own besides.

    Args:
        analyzer: its name.
        model_id: the model's.
        table: Expressible of this model, any order.
        params: the analyzer's parameters, with ``ci_level``.
    """
    spaces = _spaces(table)
    readings = {key: at_own_length(part) for key, part in spaces.items()}
    rows = []
    main = _main(list(spaces))
    if main is None:
        nothing = Reading({}, np.nan, 0, 0, "nothing was computed")
        rows += _findings(analyzer, model_id, "all", nothing, params=params)
    else:
        rows += _findings(analyzer, model_id, "all", readings[main], params=params)
    for key, reading in readings.items():
        label = f"space={key[0]} {key[1]}"
        rows += _findings(analyzer, model_id, label, reading, params=params)
    curves = []
    for key, part in spaces.items():
        curves += _over_norm(analyzer, model_id, key, part=part, reading=readings[key])
    curves += _over_dimension(analyzer, model_id, readings)
    return rows, curves


def at_own_length(part: pd.DataFrame) -> Reading:
    """The numbers of one space at the length that the run itself moved.

    Between two lengths they are read off a straight line over the log of the length; beyond the
    shortest and longest they are not known.

    Args:
        part: Expressible rows of one model and space, in order of ``norm``.
    """
    n = int(part["n"].max())
    n_prompts = int(part["n_prompts"].max()) if "n_prompts" in part else n
    own = part["moved_norm"].dropna()
    if own.empty:
        return Reading({}, np.nan, n, n_prompts, "the run's own length is not known")
    length, norms = float(own.iloc[0]), part["norm"].to_numpy(float)
    slack = 1e-6 * length
    if not norms[0] - slack <= length <= norms[-1] + slack:
        return Reading({}, length, n, n_prompts, "the run's own length lies outside those tried")
    is_met = bool(np.any(np.abs(norms - length) <= slack))
    values = {
        s.name: float(np.interp(np.log(length), np.log(norms), part[s.name].to_numpy(float)))
        for s in STATISTICS
        if s.name in part
    }
    flag = "" if is_met else "read off between two lengths"
    return Reading(values, length, n, min(n_prompts, n), flag)


def _spaces(table: pd.DataFrame) -> dict[tuple[str, int], pd.DataFrame]:
    ordered = table.sort_values(["space", "dimension", "norm"], kind="stable")
    return {
        (str(space), int(dimension)): part
        for (space, dimension), part in ordered.groupby(["space", "dimension"], sort=True)
    }


def _main(spaces: Sequence[tuple[str, int]]) -> tuple[str, int] | None:
    whole = [key for key in spaces if key[0] == "all"]
    return max(whole or spaces, key=lambda key: key[1], default=None)


def _findings(
    analyzer: str, model_id: str, label: str, reading: Reading, *, params: Any
) -> list[dict[str, Any]]:
    rows = []
    numbers = dict(reading.values)
    for statistic in (*STATISTICS, _MOVED):
        value = reading.norm if statistic is _MOVED else numbers.get(statistic.name, np.nan)
        if np.isnan(value) and (label != "all" or statistic.name == "held_out_sign_errors"):
            continue
        is_known = not np.isnan(value)
        flag = "" if statistic is _MOVED and is_known else reading.flag
        rows.append(
            finding(
                analyzer,
                statistic.name,
                model_id,
                params=params,
                slice=label,
                estimate=value,
                method=EXACT if is_known else "",
                n=reading.n if is_known else 0,
                n_clusters=reading.n_prompts if is_known else 0,
                unit=statistic.unit,
                better=statistic.better,
                flag=flag or ("" if is_known else "not computed"),
            )
        )
    return rows


def _over_norm(
    analyzer: str, model_id: str, key: tuple[str, int], *, part: pd.DataFrame, reading: Reading
) -> list[dict[str, Any]]:
    name = f"{key[0]} {key[1]}"
    points = [
        _point("residual_over_norm", (analyzer, model_id, name), x, y, n=n)
        for x, y, n in zip(part["norm"], part["residual_share"], part["n"], strict=True)
    ]
    if "residual_share" in reading.values:
        own, line = reading.values["residual_share"], (analyzer, model_id, f"{OWN_LENGTH}, {name}")
        points.append(_point("residual_over_norm", line, reading.norm, own, n=reading.n))
    return points


def _over_dimension(
    analyzer: str, model_id: str, readings: dict[tuple[str, int], Reading]
) -> list[dict[str, Any]]:
    """At the run's own length, one line for each kind of space with several dimensions."""
    points = []
    for (space, dimension), reading in readings.items():
        several = sum(other == space for other, _ in readings) > 1
        if several and "residual_share" in reading.values:
            y, line = reading.values["residual_share"], (analyzer, model_id, space)
            points.append(_point("residual_over_dimension", line, dimension, y, n=reading.n))
    return points


def _point(curve: str, line: tuple[str, str, str], x: float, y: float, *, n: int) -> dict[str, Any]:
    """A point of a curve on the line of an analyzer, a model and a series."""
    return {
        "analyzer": line[0],
        "curve": curve,
        "model_id": line[1],
        "series": line[2],
        "x": float(x),
        "y": float(y),
        "y_low": np.nan,
        "y_high": np.nan,
        "n": int(n),
    }
