"""How accuracy changes with the distance from the training pairs; not a plug-in.

Two distances: of the prompt's embedding from the nearest training prompts, and how surprising the
text is to the reference. Neither sees the policy. Kinds of shift are never mixed: a curve is that
of the in-distribution pairs and of one kind's. Start reading at ``distance_findings``.
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
ORDERS = (  # score, its slope's name
    ("reward_accuracy", "accuracy_slope"),
    ("ref_ranking_accuracy_per_token", "ref_ranking_slope"),
    ("explicit_reward_accuracy", "explicit_accuracy_slope"),
)
CONTROLS = ("length_difference", "answer_overlap", "reference_margin")
FIGURES = tuple(
    Figure(
        name=f"accuracy_by_{measure.column}",
        kind="lines",
        curve=f"accuracy_by_{measure.column}",
        x_label=measure.axis,
        y_label="implicit-reward accuracy (share of pairs)",
        title=f"Accuracy by {measure.column.replace('_', ' ')} and kind of shift, with the "
        "in-distribution pairs",
    )
    for measure in MEASURES
)


def distance_findings(model_id: str, model: Scored, params: Any) -> list[dict[str, Any]]:
    """Slope of each order's accuracy over each distance by kind of shift, and with controls.

    ``_within_sets`` holds the set fixed (does distance say more than which set a pair is from?);
    ``_controlled`` holds the set, the difference in length, the likeness of the answers and the
    reference's margin fixed.
    """
    found = []
    for label, part in _parts(model):
        for measure in _measured(part):
            for suffix, (held, loose) in _controls(part.rows).items():
                for score, name in ORDERS:
                    if part.rows[score].isna().all():
                        continue
                    slope = clustered_slope(
                        part.rows[measure.column].to_numpy(float),
                        part.rows[score].to_numpy(float),
                        part.clusters,
                        controls=held,
                        level=params.ci_level,
                    )
                    better = "neither" if name.startswith("ref") else "higher"
                    unit = f"share of pairs per {measure.unit}"
                    full = f"{name}_{measure.column}{suffix}"
                    said = f"not held fixed: {', '.join(loose)}" if loose else ""
                    constant = "" if slope.n else "distance does not vary"
                    reasons = (constant, said, ties_flag(part.rows))
                    spec = Statistic(full, unit, better, is_share=False)
                    found.append(row_of(spec, model_id, label, slope, params, reasons))
    return found


def distance_points(model_id: str, model: Scored, params: Any) -> list[dict[str, Any]]:
    """Accuracy with its interval over bins of equally many pairs, by mean distance of the bin."""
    points = []
    accuracy = Statistic("reward_accuracy", "share of pairs", "higher")
    for label, part in _parts(model):
        for measure in _measured(part):
            x = part.rows[measure.column].to_numpy(float)
            y = part.rows[accuracy.name].to_numpy(float)
            bins = _bins(x, params.n_bins)
            for b in range(int(bins.max()) + 1):
                member = bins == b
                own = _rows.interval_of(accuracy, y[member], part.clusters[member], params.ci_level)
                points.append(
                    {
                        "analyzer": NAME,
                        "curve": f"accuracy_by_{measure.column}",
                        "model_id": model_id,
                        "series": label.partition("=")[2],
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


def _parts(model: Scored) -> Iterator[tuple[str, Scored]]:
    """The in-distribution rows together with those of each kind of shift."""
    domain = model.rows["domain"].to_numpy()
    for kind, members in model.kinds.items():
        mask = model.inside | np.isin(domain, members)
        rows = model.rows[mask].reset_index(drop=True)
        part = model._replace(rows=rows, inside=model.inside[mask], clusters=model.clusters[mask])
        yield f"kind={kind}", part


def _measured(model: Scored) -> Iterator[Measure]:
    return (m for m in MEASURES if model.rows[m.column].notna().sum() >= 2 * LEAST_PER_BIN)


def _controls(rows: pd.DataFrame) -> dict[str, tuple[np.ndarray | None, list[str]]]:
    """Suffix of the statistic -> columns held fixed, and the controls that no pair has.

    A pair that lacks one of the others is left out of the slope, and of its n.
    """
    sets = pd.get_dummies(rows["domain"]).to_numpy(float)[:, 1:]
    known = [name for name in CONTROLS if rows[name].notna().any()]
    loose = [name.replace("_", " ") for name in CONTROLS if name not in known]
    return {
        "": (None, []),
        "_within_sets": (sets, []),
        "_controlled": (np.column_stack([sets, rows[known].to_numpy(float)]), loose),
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
