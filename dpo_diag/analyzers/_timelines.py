"""One run's pairs by training step, and when each pair's order turned; not a plug-in.

A ``Panel`` holds, for the pairs of a run's final model, how far each step puts chosen above
rejected. Start reading at ``panels_of``; per-pair numbers are made by ``timeline_columns``.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _pairs, _steps

ORDERS = ("reward", "ranking")


class Panel(NamedTuple):
    """The pairs of one run over its steps.

    Attributes:
        run_id: model_id of the final model.
        models: (S,) model_ids by step, the final model last.
        steps: (S,) increasing; the last is NaN where no file says the final model's step.
        rows: (n,) rows of the final model in order of pair_id.
        margins: (n, S) reward margin, NaN where a step lacks the pair.
        differences: order name -> (n, S) chosen minus rejected, 0 inside the engines' noise.
        starts: order name -> (n,) the same at step 0, only for orders that say something there.
    """

    run_id: str
    models: tuple[str, ...]
    steps: np.ndarray
    rows: pd.DataFrame
    margins: np.ndarray
    differences: dict[str, np.ndarray]
    starts: dict[str, np.ndarray]


def panels_of(
    frame: pd.DataFrame, run_steps: pd.DataFrame | None, analyzer: str
) -> dict[str, Panel]:
    """Run id -> its panel, runs in order of their id.

    Args:
        frame: ImplicitRewards of final models and steps.
        run_steps: RunSteps; None reads steps from rows and names.
        analyzer: name for errors.
    """
    places = _steps.places_of(frame, run_steps)
    runs: dict[str, dict[str, _steps.Place]] = {}
    for model, place in places.items():
        runs.setdefault(place.run_id, {})[model] = place
    started: set[str] = set()
    if run_steps is not None:
        started = set(run_steps.loc[run_steps["is_start"].astype(bool), "run_id"])
    by_model = dict(list(frame.groupby("model_id", sort=False)))
    return {
        run: _panel(run, runs[run], by_model, analyzer, has_start=run in started)
        for run in sorted(runs)
    }


def ordered_models(places: Mapping[str, _steps.Place]) -> list[str]:
    """A run's models by step, the final one last; a step that is the final model itself left out.

    Args:
        places: model_id -> place, of one run.
    """
    final = next((place.step for place in places.values() if place.is_final), np.nan)
    kept = [m for m, place in places.items() if place.is_final or place.step != final]
    return sorted(kept, key=lambda m: (places[m].is_final, places[m].step))


def _panel(
    run: str,
    places: Mapping[str, _steps.Place],
    by_model: Mapping[str, pd.DataFrame],
    analyzer: str,
    *,
    has_start: bool,
) -> Panel:
    models = ordered_models(places)
    tables = {m: _pairs.one_model(by_model[m], m, analyzer) for m in models}
    rows = tables[models[-1]]
    pairs = pd.Index(rows["pair_id"])
    margins = np.empty((len(rows), len(models)))
    differences = {order: np.empty_like(margins) for order in ORDERS}
    for s, model in enumerate(models):
        own = tables[model]
        aligned = own if own["pair_id"].equals(rows["pair_id"]) else None
        if aligned is None:
            aligned = own.set_index("pair_id").reindex(pairs).reset_index()
        margins[:, s] = aligned["margin"].to_numpy(float)
        is_decided = _pairs.undecided(aligned) != 1.0
        raw = (aligned["logp_chosen"] - aligned["logp_rejected"]).to_numpy(float)
        for order, values in (("reward", margins[:, s]), ("ranking", raw)):
            differences[order][:, s] = np.where(is_decided, values, 0.0)
    start = (rows["ref_logp_chosen"] - rows["ref_logp_rejected"]).to_numpy(float)
    return Panel(
        run,
        tuple(models),
        np.array([places[m].step for m in models]),
        rows,
        margins,
        differences,
        {"ranking": start} if has_start and not np.isnan(start).all() else {},
    )


def with_start(panel: Panel, order: str) -> tuple[np.ndarray, np.ndarray]:
    """An order's (n, S) differences and (S,) steps, step 0 first where the order exists there."""
    difference, steps = panel.differences[order], panel.steps
    if order not in panel.starts:
        return difference, steps
    joined = np.column_stack([panel.starts[order], difference])
    return joined, np.concatenate([[0.0], steps])


def timeline_columns(
    difference: np.ndarray, steps: np.ndarray, *, from_step: int = 1
) -> dict[str, np.ndarray]:
    """When each pair's order turned, (n,) each.

    A tie (or a difference that is missing) is no order: it is passed over, so that right, tie,
    wrong is one crossing. By hand, steps 10 20 30 40 with signs + - 0 +: first right at 10, one
    flip back (at 20), one flip (at 40), not forgotten; with + - 0 - it is forgotten, at 20.

    Args:
        difference: (n, S) chosen minus rejected by step, NaN where unknown.
        steps: (S,) increasing, the last NaN where the end's step is unknown.
        from_step: only from this step on a pair counts as having been right.

    Returns:
        ``first_right`` (step, NaN for never), ``n_flips`` (wrong to right), ``n_flips_back``,
        ``last_crossing`` (step, NaN for none), ``is_right_ever``, ``is_forgotten`` (right at a
        step, wrong at the end), ``forgotten_at`` (NaN where not), ``end`` (score of the end).
    """
    sign = np.sign(np.nan_to_num(difference))
    n, columns = sign.shape
    decided = np.where(sign != 0.0, np.arange(columns), 0)
    state = np.take_along_axis(sign, np.maximum.accumulate(decided, axis=1), axis=1)
    turn = np.diff(state, axis=1, prepend=state[:, :1])
    up, down = turn == 2.0, turn == -2.0
    counted = (steps >= from_step) | np.isnan(steps)
    right = (sign > 0.0) & counted
    ever = right.any(axis=1)
    crossed = up | down
    last = columns - 1 - np.argmax(crossed[:, ::-1], axis=1)
    last_crossing = np.where(crossed.any(axis=1), steps[last], np.nan)
    forgotten = ever & (sign[:, -1] < 0.0)
    return {
        "first_right": np.where(ever, steps[np.argmax(right, axis=1)], np.nan),
        "n_flips": up.sum(axis=1),
        "n_flips_back": down.sum(axis=1),
        "last_crossing": last_crossing,
        "is_right_ever": ever,
        "is_forgotten": forgotten,
        "forgotten_at": np.where(forgotten, last_crossing, np.nan),
        "end": _pairs.order_score(difference[:, -1]) if columns else np.full(n, np.nan),
    }
