"""The best step of a run and what was lost after it, honest about the choice; not a plug-in.

Start reading at ``since_best``; the statistics are in ``stats.selection``.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _compare, _pairs
from dpo_diag.analyzers._base import finding
from dpo_diag.analyzers._rows import Statistic
from dpo_diag.analyzers._timelines import Panel, timeline_columns
from dpo_diag.stats import selection

BEST = "best step"  # what ``..._since_best`` is compared with
SINCE = (
    Statistic("reward_accuracy_since_best", "share of pairs, end minus best step", "higher"),
    Statistic("ranking_accuracy_since_best", "share of pairs, end minus best step", "higher"),
    Statistic("mean_margin_since_best", "reward, end minus best step", "higher", is_share=False),
)


class Since(NamedTuple):
    """Findings, curves and notes about one run's best step."""

    findings: list[dict[str, Any]]
    curves: list[dict[str, Any]]
    notes: list[str]


def since_best(
    analyzer: str, panel: Panel, columns: pd.DataFrame, *, params: Any, seed: int
) -> Since:
    """The best step, what the end has lost against it, and the band over all steps.

    Args:
        analyzer: its name.
        panel: one run.
        columns: its per-pair columns, with ``prompt_id``.
        params: the analyzer's parameters, with ``ci_level``.
        seed: splits the prompts and draws the band; the same for every run.

    Returns:
        Nothing for a run without steps or with a single prompt.
    """
    clusters = pd.factorize(columns["prompt_id"], sort=True)[0]
    if len(panel.steps) < 2 or len(np.unique(clusters)) < 2:
        return Since([], [], [])
    rng = np.random.default_rng(seed)
    score = _pairs.order_score(panel.margins)
    best = selection.best_column(score)
    choice = selection.cross_fit(score, clusters, rng=rng)
    ranking = _pairs.order_score(panel.differences["ranking"])
    family = []
    for statistic, values in zip(SINCE, (score, ranking, panel.margins), strict=True):
        difference = selection.since_chosen(
            values, choice, clusters, level=params.ci_level, rng=np.random.default_rng(seed)
        )
        family.append(
            _compare.comparison(
                analyzer, statistic, panel.run_id, BEST, difference=difference, params=params
            )
        )
    rows = _compare.judge(family, params.ci_level)
    halves = " and ".join(_step_words(panel, k) for k in choice.chosen)
    row = finding(
        analyzer,
        "best_step",
        panel.run_id,
        params=params,
        estimate=panel.steps[best],
        method="largest reward accuracy on these pairs",
        n=len(score) if not np.isnan(panel.steps[best]) else 0,
        n_clusters=len(np.unique(clusters)) if not np.isnan(panel.steps[best]) else 0,
        unit="training step",
        flag=f"halves of the prompts chose {halves}"
        + ("; the final model, whose step no file says" if np.isnan(panel.steps[best]) else ""),
    )
    lost = rows[0]
    note = (
        f"{panel.run_id}: the best step was {_step_words(panel, best)}; from there to the end "
        f"reward accuracy changed by {100 * lost['estimate']:+.1f} points "
        f"[{100 * lost['ci_low']:+.1f}, {100 * lost['ci_high']:+.1f}], by halves that chose "
        f"{halves}."
    )
    return Since([row, *rows], _against_end(analyzer, panel, clusters, params, rng), [note])


def forgotten_pairs(
    analyzer: str, panel: Panel, *, from_step: int, n_cases: int
) -> list[dict[str, Any]]:
    """The pairs that were right at a step and are wrong at the end, by how far they fell."""
    if len(panel.steps) < 2:
        return []
    found = timeline_columns(panel.differences["reward"], panel.steps, from_step=from_step)
    candidates = np.flatnonzero(found["is_forgotten"])
    known = np.where(np.isnan(panel.margins), -np.inf, panel.margins)
    peak = known[candidates].argmax(axis=1)
    fall = known[candidates, peak] - panel.margins[candidates, -1]
    cases = []
    for place in np.argsort(-fall, kind="stable")[:n_cases]:
        position = candidates[place]
        lost = found["forgotten_at"][position]
        when = "after the last saved step" if np.isnan(lost) else f"at step {lost:g}"
        cases.append(
            {
                "analyzer": analyzer,
                "kind": "forgotten_pair",
                "model_id": panel.run_id,
                "row_key": panel.rows["pair_id"].iloc[position],
                "severity": float(fall[place]),
                "note": (
                    f"first right at step {found['first_right'][position]:g}, lost {when}; margin "
                    f"{known[position, peak[place]]:+.3f} at {_step_words(panel, peak[place])}, "
                    f"{panel.margins[position, -1]:+.3f} at the end"
                ),
            }
        )
    return cases


def _step_words(panel: Panel, column: int) -> str:
    step = panel.steps[column]
    return "the end" if np.isnan(step) else f"{step:g}"


def _against_end(
    analyzer: str, panel: Panel, clusters: np.ndarray, params: Any, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Reward accuracy of each step minus the end's, with a band that holds for all steps."""
    score = _pairs.order_score(panel.margins)
    kept = ~np.isnan(score).any(axis=1)
    gaps = score[kept, :-1] - score[kept, -1:]
    band = selection.simultaneous_band(gaps, clusters[kept], level=params.ci_level, rng=rng)
    return [
        {
            "analyzer": analyzer,
            "curve": "accuracy_against_end",
            "model_id": panel.run_id,
            "series": "reward_accuracy",
            "x": step,
            "y": band.estimate[s],
            "y_low": band.low[s],
            "y_high": band.high[s],
            "n": int(kept.sum()),
        }
        for s, step in enumerate(panel.steps[:-1])
    ]
