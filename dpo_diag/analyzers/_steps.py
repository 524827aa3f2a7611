"""Curves along training: findings of a run's steps put on one line; not a plug-in.

Where each model stands comes from the table RunSteps where there is one, else from the rows'
``step`` and the models' names. Start reading at ``places_of``.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

_STEP_NAME = re.compile(r"-step\d+-[0-9a-f]{8}$")
_FINAL_NAME = re.compile(r"(-step\d+)?-[0-9a-f]{8}$")  # a run may have its last step only


class Place(NamedTuple):
    """Where a model stands: its run, named by the final model's id, and its training step.

    ``step`` is NaN for a final model whose step no file says.
    """

    run_id: str
    step: float
    is_final: bool


def places_of(frame: pd.DataFrame, run_steps: pd.DataFrame | None = None) -> dict[str, Place]:
    """The place of every model in the rows.

    Args:
        frame: rows with ``model_id`` and ``step``, optionally ``run_id``.
        run_steps: RunSteps; the step of a final model is only known from there.
    """
    runs, models = runs_of(frame), frame.drop_duplicates("model_id")
    step = dict(zip(models["model_id"], models["step"], strict=True))
    places = {
        model: Place(run, float(step[model]) if step[model] >= 0 else np.nan, step[model] < 0)
        for model, run in runs.items()
    }
    if run_steps is not None:
        for row in run_steps[~run_steps["is_start"].astype(bool)].to_dict("records"):
            model, run_id = row["model_id"], row["run_id"]
            if model in places:
                places[model] = Place(run_id, float(row["step"]), model == run_id)
    return places


def runs_of(frame: pd.DataFrame) -> dict[str, str]:
    """The model_id that each model's curve is drawn under: its run's final model.

    Steps belong to the final model of the same ``run_id`` column where there is one, else of the
    same run name (a step's model_id is the run's name, ``-step``, the step and the weights' hash).
    A step whose run has no final model is drawn under the run's name.

    Args:
        frame: rows with ``model_id`` and ``step``, optionally ``run_id``.
    """
    models = frame.drop_duplicates("model_id")
    names = {}
    for row in models.to_dict("records"):
        pattern = _FINAL_NAME if row["step"] == -1 else _STEP_NAME
        names[row["model_id"]] = str(row.get("run_id") or pattern.sub("", row["model_id"]))
    final = models.loc[models["step"] == -1, "model_id"].sort_values()
    # where a run's final model and one of its steps were both asked for, the final model last
    ordered = sorted(final, key=lambda model: _STEP_NAME.search(model) is None)
    finals = {names[model]: model for model in ordered}
    return {model: finals.get(name, name) for model, name in names.items()}


def step_curve(
    analyzer: str,
    curve: str,
    findings: list[dict[str, Any]],
    frame: pd.DataFrame,
    *,
    statistic: str,
    run_steps: pd.DataFrame | None = None,
) -> list[dict[str, Any]]:
    """A statistic by training step, one line per domain.

    Args:
        analyzer: its name.
        curve: name of the curve.
        findings: rows of the steps' models, slices ``domain=...``.
        frame: rows with ``model_id`` and ``step``.
        statistic: what to draw.
        run_steps: RunSteps, which says where the final models stand.

    Returns:
        Rows of Curves; of a run with steps only, and without a final model whose step is unknown.
    """
    places = places_of(frame, run_steps)
    with_steps = {place.run_id for place in places.values() if not place.is_final}
    points: dict[tuple[str, str, float], dict[str, Any]] = {}
    for row in findings:
        place = places.get(row["model_id"])
        if row["statistic"] != statistic or row["baseline_id"] or not row["n"] or place is None:
            continue
        if np.isnan(place.step) or place.run_id not in with_steps:
            continue
        point = curve_point(analyzer, curve, row, place)
        key = (place.run_id, point["series"], place.step)
        if place.is_final or key not in points:  # the last step may be the final model itself
            points[key] = point
    return [points[key] for key in sorted(points)]


def curve_point(
    analyzer: str, curve: str, row: Mapping[str, Any], place: Place, series: str = ""
) -> dict[str, Any]:
    """A finding as a point of a curve along training."""
    return {
        "analyzer": analyzer,
        "curve": curve,
        "model_id": place.run_id,
        "series": series or row["slice"].removeprefix("domain="),
        "x": place.step,
        "y": row["estimate"],
        "y_low": row["ci_low"],
        "y_high": row["ci_high"],
        "n": row["n"],
    }
