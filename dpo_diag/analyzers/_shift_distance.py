"""How accuracy changes with the distance from the training pairs; not a plug-in.

Two distances: of the prompt's embedding from the nearest training prompts, and how surprising the
text is to the reference. Both say nothing of the policy. Start reading at ``distance_findings``.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _rows
from dpo_diag.analyzers._base import Figure
from dpo_diag.analyzers._rows import Statistic
from dpo_diag.analyzers._shift_rows import NAME, Scored, row_of, ties_flag
from dpo_diag.stats.slopes import clustered_slope

LEAST_PER_BIN = 25  # rows; fewer bins where there are fewer rows


class Measure(NamedTuple):
    """A distance: its column, its unit, and its axis in words."""

    column: str
    unit: str
    axis: str


MEASURES = (
    Measure(
        "embedding_distance",
        "unit of cosine distance",
        "distance of the prompt from the nearest training prompts (cosine)",
    ),
    Measure(
        "prompt_surprise",
        "nat per token",
        "surprise of the prompt to the reference (nats per token)",
    ),
    Measure(
        "answer_surprise",
        "nat per token",
        "surprise of both answers to the reference (nats per token)",
    ),
)
ORDERS = (  # series of the curve, score, name in statistics
    ("implicit reward", "reward_accuracy", "accuracy_slope"),
    ("reference's ranking", "ref_ranking_accuracy_per_token", "ref_ranking_slope"),
    ("explicit reward", "explicit_reward_accuracy", "explicit_accuracy_slope"),
)
CONTROLS = ("length_difference", "answer_overlap", "reference_margin")
FIGURES = tuple(
    Figure(
        name=f"accuracy_by_{measure.column}",
        kind="lines",
        curve=f"accuracy_by_{measure.column}",
        x_label=measure.axis,
        y_label="share of pairs ordered right",
        title=f"Accuracy by {measure.column.replace('_', ' ')}, bins of equally many pairs",
    )
    for measure in MEASURES
)


def distance_findings(model_id: str, model: Scored, params: Any) -> list[dict[str, Any]]:
    """Slope of each order's accuracy over each distance, as it is and with controls.

    ``_within_sets`` holds the set fixed (does distance say more than which set a pair is from?);
    ``_controlled`` holds the set, the difference in length, the likeness of the answers and the
    reference's margin fixed.
    """
    found = []
    for measure in _measured(model):
        x = model.rows[measure.column].to_numpy(float)
        for name, held in _controls(model.rows).items():
            for _, score, statistic in _orders(model):
                slope = clustered_slope(
                    x,
                    model.rows[score].to_numpy(float),
                    model.clusters,
                    controls=held,
                    level=params.ci_level,
                )
                full = f"{statistic}_{measure.column}{name}"
                unit = f"share of pairs per {measure.unit}"
                better = "neither" if statistic.startswith("ref") else "higher"
                reasons = ("" if slope.n else "distance does not vary", ties_flag(model.rows))
                spec = Statistic(full, unit, better, is_share=False)
                found.append(row_of(spec, model_id, "all", slope, params, reasons))
    return found


def distance_points(model_id: str, model: Scored, params: Any) -> list[dict[str, Any]]:
    """Accuracy with its interval over bins of equally many pairs, by mean distance of the bin."""
    points = []
    for measure in _measured(model):
        x = model.rows[measure.column].to_numpy(float)
        bins = _bins(x, params.n_bins)
        for series, score, _ in _orders(model):
            y = model.rows[score].to_numpy(float)
            for b in range(int(bins.max()) + 1):
                member = bins == b
                own = _rows.interval_of(
                    Statistic(score, "share", "higher"),
                    y[member],
                    model.clusters[member],
                    params.ci_level,
                )
                points.append(
                    {
                        "analyzer": NAME,
                        "curve": f"accuracy_by_{measure.column}",
                        "model_id": model_id,
                        "series": series,
                        "x": float(x[member].mean()),
                        "y": own.estimate,
                        "y_low": own.low,
                        "y_high": own.high,
                        "n": own.n,
                    }
                )
    return points


def distance_notes(scored: Mapping[str, Scored]) -> list[str]:
    """Which distances are missing, in words."""
    missing = [
        measure.column.replace("_", " ")
        for measure in MEASURES
        if scored and all(model.rows[measure.column].isna().all() for model in scored.values())
    ]
    if not missing:
        return []
    return [
        f"Not measured: {', '.join(missing)}. The table PromptDistances has them; `dpo-diag ood` "
        "makes it where it knows the training pairs."
    ]


def _measured(model: Scored) -> Iterator[Measure]:
    return (m for m in MEASURES if model.rows[m.column].notna().sum() >= 2 * LEAST_PER_BIN)


def _orders(model: Scored) -> list[tuple[str, str, str]]:
    return [order for order in ORDERS if model.rows[order[1]].notna().any()]


def _controls(rows: pd.DataFrame) -> dict[str, np.ndarray | None]:
    """Suffix of the statistic -> columns held fixed."""
    sets = pd.get_dummies(rows["domain"]).to_numpy(float)[:, 1:]
    known = [name for name in CONTROLS if rows[name].notna().all()]
    return {
        "": None,
        "_within_sets": sets,
        "_controlled": np.column_stack([sets, rows[known].to_numpy(float)]),
    }


def _bins(x: np.ndarray, n_bins: int) -> np.ndarray:
    """Equally full bins from 0, -1 where x is missing; equal values are in one bin."""
    known = ~np.isnan(x)
    count = int(np.clip(known.sum() // LEAST_PER_BIN, 1, n_bins))
    edges = np.unique(np.quantile(x[known], np.arange(1, count) / count))
    bins = np.full(len(x), -1)
    found = np.searchsorted(edges, x[known], side="left")
    bins[known] = np.unique(found, return_inverse=True)[1]
    return bins
