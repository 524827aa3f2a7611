"""Since when are preferences turned around, and what was lost after the best step?

Over the ``checkpoint-*`` steps of a run and its final model, each pair is right, wrong or a tie by
two orders: the implicit reward's, and (names with ``ranking_``) the policy's own log-probs, which
also exists at step 0 where training starts from its reference. A crossing is a turn from one to the
other; ties, and margins inside the engines' noise, are passed over.

``ever_right_rate`` is the share of pairs right at some step from ``from_step`` on,
``never_right_rate`` its complement, ``forgotten_rate`` the share that was right at a step and is
wrong at the end, ``forgotten_of_right`` the same of those ever right, ``flip_back_rate`` the share
that turned from right to wrong at least once, ``crossings`` their mean number of turns.

``best_step`` has the largest reward accuracy. The best of many steps looks better than it is, so
``..._since_best`` (the end minus the best step) is cross-fitted: each half of the prompts chooses a
step, the other half measures what was lost since; the band of ``accuracy_against_end`` holds for
all steps at once.

For runs that differ in their seed only: ``seed_agreement`` (mean share of seed pairs that order a
pair alike), ``seed_kappa`` (beyond chance), ``reversed_in_every_seed_rate`` (data or method),
``reversed_in_some_seed_rate`` (chance of the run), ``reversal_repeat_rate`` (a reversal of one seed
is one of another).

Misleads: what happens between two saved steps is not seen, and more steps mean more crossings:
compare runs only at the same steps. A label is not the truth: forgetting a wrong one is no loss.

Source: Toneva et al. 1812.05159 (forgetting events); Cox 1975 and Hothorn et al. 2008 (choice);
Fleiss 1971 (kappa). Start reading at ``Timeline.run``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _best_step, _compare, _pairs, _rows, _seeds, _steps, _timelines
from dpo_diag.analyzers._base import Analyzer, AnalyzerResult, Figure, Tables, findings_frame
from dpo_diag.analyzers._rows import Statistic
from dpo_diag.tables import CASES, CURVES, empty

NAME = "timeline"
_SHARE = "share of pairs"
_OF_RIGHT = "share of pairs that were right at some step"


def _of_order(prefix: str) -> tuple[Statistic, ...]:
    return (
        Statistic(f"{prefix}ever_right_rate", _SHARE, "higher"),
        Statistic(f"{prefix}never_right_rate", _SHARE, "lower"),
        Statistic(f"{prefix}forgotten_rate", _SHARE, "lower"),
        Statistic(f"{prefix}forgotten_of_right", _OF_RIGHT, "lower"),
        Statistic(f"{prefix}flip_back_rate", _SHARE, "lower"),
        Statistic(f"{prefix}crossings", "turns of a pair's order", "neither", is_share=False),
    )


STATISTICS = (*_of_order(""), *_of_order("ranking_"))
BY_NAME = {statistic.name: statistic for statistic in STATISTICS}
BY_STEP = (
    Statistic("reward_accuracy", _SHARE, "higher"),
    Statistic("ranking_accuracy", _SHARE, "higher"),
    Statistic("ranking_accuracy_per_token", _SHARE, "higher"),
    Statistic("displacement_rate", _SHARE, "lower"),
    Statistic("mean_margin", "reward", "higher", is_share=False),
    Statistic("chosen_shift", "nats, policy minus reference", "higher", is_share=False),
    Statistic("rejected_shift", "nats, policy minus reference", "neither", is_share=False),
)
AT_START = BY_STEP[1:3]  # the policy's own orders exist at step 0: the reference's
CURVES_BY_STEP = {  # curve -> statistics that are its series
    "accuracy_by_step": ("reward_accuracy", "ranking_accuracy", "ranking_accuracy_per_token"),
    "margin_by_step": ("mean_margin",),
    "displacement_by_step": ("chosen_shift", "rejected_shift"),
}


@dataclass(frozen=True)
class Parameters:
    """Options of the timeline.

    Attributes:
        baseline_id: final model the others are compared with, empty for none.
        ci_level: nominal coverage, in (0, 1).
        from_step: only from this step on a pair counts as having been right, at least 0; the
            default leaves out step 0, the reference's own order.
        slices: columns to slice the shares by, of ImplicitRewards or PreferencePairs, plus
            ``length`` and ``safety``.
        n_cases: pairs listed per kind and model.
    """

    baseline_id: str = ""
    ci_level: float = 0.95
    from_step: int = 1
    slices: tuple[str, ...] = ("split", "annotator", "stratum", "subset", "safety", "length")
    n_cases: int = 20


FIGURES = (
    Figure(
        name="timeline_accuracy",
        kind="lines",
        curve="accuracy_by_step",
        x_label="training step",
        y_label="pairs ordered right (share of pairs)",
        title="Reward and ranking accuracy along training",
    ),
    Figure(
        name="timeline_against_end",
        kind="lines",
        curve="accuracy_against_end",
        x_label="training step",
        y_label="reward accuracy minus the end's (share of pairs)",
        title="What each step had over the end; the band holds for all steps at once",
    ),
    Figure(
        name="timeline_margin",
        kind="lines",
        curve="margin_by_step",
        x_label="training step",
        y_label="mean margin (reward)",
        title="Mean margin along training",
    ),
    Figure(
        name="timeline_displacement",
        kind="lines",
        curve="displacement_by_step",
        x_label="training step",
        y_label="log-prob against the reference (nats)",
        title="Where chosen and rejected answers went",
    ),
)


class Timeline(Analyzer):
    """Orders of pairs over the steps of runs; see the module."""

    question: ClassVar[str] = "Since when are preferences turned around, and what was lost?"
    reading: ClassVar[str] = (
        "A forgotten pair was right at a saved step and is wrong at the end. A number since the "
        "best step is the end minus that step, on prompts that had no part in choosing it."
    )
    misleads: ClassVar[str] = (
        "What happens between two saved steps is not seen; more steps mean more crossings. "
        "Forgetting a pair whose label is wrong is no loss."
    )
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"ImplicitRewards": _pairs.PAIR_COLUMNS}
    Parameters: ClassVar[type] = Parameters
    headline: ClassVar[tuple[str, ...]] = (
        "forgotten_rate",
        "ever_right_rate",
        "flip_back_rate",
        "ranking_forgotten_rate",
    )
    reads_steps: ClassVar[bool] = True

    def run(self, tables: Tables, params: Parameters, rng: np.random.Generator) -> AnalyzerResult:
        """Findings by run, by step and by group of seeds; curves; forgotten pairs."""
        self.check(tables)
        seed = int(rng.integers(2**63))
        frame, run_steps = tables["ImplicitRewards"], tables.get("RunSteps")
        panels = _timelines.panels_of(frame, run_steps, NAME)
        _rows.check_baseline(NAME, list(panels), params.baseline_id)
        rows, curves = _by_step(frame, run_steps, panels, params)
        values, notes = _slice_values(panels, tables, params)
        cases: list[dict[str, Any]] = []
        scored = {}
        for run, panel in panels.items():
            found, columns = _of_run(panel, tables.get("PreferencePairs"), values, params)
            rows += found
            scored[run] = columns
            best = _best_step.since_best(NAME, panel, columns, params=params, seed=seed)
            rows += best.findings
            curves += best.curves
            notes += best.notes
            cases += _best_step.forgotten_pairs(
                NAME, panel, from_step=params.from_step, n_cases=params.n_cases
            )
        headline = [BY_NAME[name] for name in self.headline]
        known = {run: c for run, c in scored.items() if len(panels[run].steps) > 1}
        family = _compare.paired_family(NAME, headline, known, params=params, seed=seed)
        rows += _compare.judge(family, params.ci_level)
        seeds = _seeds.of_seeds(NAME, panels, run_steps, params=params)
        return AnalyzerResult(
            findings=findings_frame([*rows, *seeds.findings]),
            curves=pd.DataFrame(curves) if curves else empty(CURVES),
            cases=pd.DataFrame(c) if (c := [*cases, *seeds.cases]) else empty(CASES),
            figures=FIGURES,
            notes=(*notes, *seeds.notes),
        )


def run_columns(panel: _timelines.Panel, *, from_step: int = 1) -> pd.DataFrame:
    """Every per-pair statistic of a run, (n,) rows; NaN throughout for a run without steps."""
    columns: dict[str, np.ndarray] = {}
    for order, prefix in (("reward", ""), ("ranking", "ranking_")):
        difference, steps = _timelines.with_start(panel, order)
        found = _timelines.timeline_columns(difference, steps, from_step=from_step)
        ever, forgotten = (found[k].astype(float) for k in ("is_right_ever", "is_forgotten"))
        columns |= {
            f"{prefix}ever_right_rate": ever,
            f"{prefix}never_right_rate": 1.0 - ever,
            f"{prefix}forgotten_rate": forgotten,
            f"{prefix}forgotten_of_right": np.where(ever > 0.0, forgotten, np.nan),
            f"{prefix}flip_back_rate": (found["n_flips_back"] > 0).astype(float),
            f"{prefix}crossings": (found["n_flips"] + found["n_flips_back"]).astype(float),
        }
    frame = pd.DataFrame(columns)
    return frame if len(panel.steps) > 1 else frame * np.nan


def _slice_values(
    panels: Mapping[str, _timelines.Panel], tables: Tables, params: Parameters
) -> tuple[dict[str, list[str]], list[str]]:
    ends = [panel.rows for panel in panels.values()]
    if not ends:
        return {}, []
    joined = pd.concat(ends, ignore_index=True)
    frame = _pairs.with_pair_columns(joined, tables.get("PreferencePairs"), params.slices)
    return _rows.slice_values(frame, params.slices)


def _of_run(
    panel: _timelines.Panel,
    pairs: pd.DataFrame | None,
    values: Mapping[str, list[str]],
    params: Parameters,
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Findings of one run, and its per-pair columns indexed by pair_id."""
    columns = run_columns(panel, from_step=params.from_step)
    model = _pairs.with_pair_columns(panel.rows, pairs, params.slices)
    rows = _rows.mean_findings(
        NAME,
        panel.run_id,
        columns,
        _rows.all_and_slices(model, params.slices, values=values, main=_rows.main_slice(model, ())),
        statistics=STATISTICS,
        clusters=pd.factorize(panel.rows["prompt_id"])[0],
        params=params,
        reasons=_rows.Reasons(lambda part: "", lambda name: _missing(panel)),
    )
    index = pd.Index(panel.rows["pair_id"])
    return rows, columns.assign(prompt_id=panel.rows["prompt_id"].to_numpy()).set_index(index)


def _missing(panel: _timelines.Panel) -> str:
    return "no steps" if len(panel.steps) < 2 else "never right"


def _by_step(
    frame: pd.DataFrame,
    run_steps: pd.DataFrame | None,
    panels: Mapping[str, _timelines.Panel],
    params: Parameters,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Findings of the final models, and the same numbers of every step as curves."""
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    places = _steps.places_of(frame, run_steps)
    for model_id, part in sorted(frame.groupby("model_id", sort=False), key=lambda item: item[0]):
        model, place = _pairs.one_model(part, model_id, NAME), places[model_id]
        columns = _pairs.pair_columns(model)
        found = _numbers(model, columns, BY_STEP, params)
        is_end = model_id == panels[place.run_id].models[-1]
        rows += found if is_end else []
        if len(panels[place.run_id].steps) > 1 and not np.isnan(place.step):
            curves += _points(found, place)
        if is_end and panels[place.run_id].starts:
            names = {f"ref_{s.name}": s.name for s in AT_START}
            start = columns[list(names)].rename(columns=names)
            at_start = _numbers(model, start, AT_START, params)
            curves += _points(at_start, _steps.Place(place.run_id, 0.0, False))
    kept = {(c["curve"], c["model_id"], c["series"], c["x"]): c for c in curves}
    return rows, [kept[key] for key in sorted(kept)]


def _numbers(
    model: pd.DataFrame,
    columns: pd.DataFrame,
    statistics: tuple[Statistic, ...],
    params: Parameters,
) -> list[dict[str, Any]]:
    return _rows.mean_findings(
        NAME,
        str(model["model_id"].iloc[0]),
        columns,
        [_rows.main_slice(model, ())],
        statistics=statistics,
        clusters=pd.factorize(model["prompt_id"])[0],
        params=params,
        reasons=_rows.Reasons(lambda part: "", lambda name: "no reference"),
    )


def _points(found: list[dict[str, Any]], place: _steps.Place) -> list[dict[str, Any]]:
    by_name = {row["statistic"]: row for row in found if row["n"]}
    return [
        _steps.curve_point(NAME, curve, by_name[name], place, series=name)
        for curve, names in CURVES_BY_STEP.items()
        for name in names
        if name in by_name
    ]


ANALYZER = Timeline
