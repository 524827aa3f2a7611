"""Is the fall of the chosen answers' log-prob harmless, and where did the mass go?

Training lowers the log-prob of chosen answers in most runs. Four cells tell how, by pair, with
``lr`` the log-ratio to the reference: ``chosen_held`` (lr of chosen at or above 0);
``rejected_fell_more`` (chosen fell, rejected more: the margin still grew); ``chosen_fell_more``
(both fell, chosen more or as much); ``rejected_rose`` (chosen fell and rejected rose, a strong
reversal). They sum to 1. Log-probs are shown summed and per token.

Where the mass went is exact for the pair's own answers (``..._mass_change``, probabilities, small
for long answers) and measured on sampled answers where SampleLogps are there: ``mass_moved`` is the
total variation distance of policy and reference, the share of probability that changed place,
``mass_moved_to_third_answers`` what of it landed on answers that are neither chosen nor rejected.
Mean log-ratios of third answers are estimates of KL divergences: above 0 on the policy's answers
and below 0 on the reference's whatever was learnt, so a "rise of third answers" there is no news.
Most of the mass of long answers moves in sound runs too (.77 on the sandbox): how much moved says
little, where it went says more.

``displacement_alarm`` puts the evidence together (``_alarm`` has the rules and their sources):
none, harmless, harmful, cannot tell, with "looks" before it where no judge saw the answers.

CHES (where PairStates are there) says before training which pairs are prone to it; its rank
correlation with the fall that came stands beside that of the chosen answer's length.

Misleads: without samples a harmless fall cannot be told (the mass may be anywhere); without a judge
a turn to fluent answers of opposite meaning is invisible. Answers cut at the longest length stand
for their beginnings: ``mass_moved`` is then too low.

Source: Razin et al. 2410.08847 (displacement, CHES), Pal et al. 2402.13228.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _alarm, _answers, _pairs, _rows
from dpo_diag.analyzers._alarm import Alarm, Bounds
from dpo_diag.analyzers._base import (
    Analyzer,
    AnalyzerResult,
    Figure,
    Tables,
    finding,
    findings_frame,
)
from dpo_diag.analyzers._displaced import Measured, bounds_of
from dpo_diag.analyzers._rows import Statistic
from dpo_diag.stats.compare import paired_difference
from dpo_diag.tables import CASES, CURVES, empty

NAME = "displacement"
_SHARE = "share of pairs"
_FELL = "share of pairs whose chosen answer fell"
_MASS = "difference in probability, policy minus reference"
CELLS = ("chosen_held", "rejected_fell_more", "chosen_fell_more", "rejected_rose")
CELL_RATES = {cell: f"{cell}_rate" for cell in CELLS}
STATISTICS = (
    Statistic("mean_fall_of_chosen", "nats, reference minus policy", "lower", False),
    Statistic("mean_fall_of_rejected", "nats, reference minus policy", "neither", False),
    Statistic("fall_of_chosen_per_token", "nats per token, reference minus policy", "lower", False),
    Statistic(
        "fall_of_rejected_per_token", "nats per token, reference minus policy", "neither", False
    ),
    Statistic("chosen_held_rate", _SHARE, "higher"),
    Statistic("rejected_fell_more_rate", _SHARE, "neither"),
    Statistic("chosen_fell_more_rate", _SHARE, "lower"),
    Statistic("rejected_rose_rate", _SHARE, "lower"),
    Statistic("rejected_fell_more_of_falls", _FELL, "higher"),
    Statistic("chosen_mass_change", _MASS, "higher", False),
    Statistic("rejected_mass_change", _MASS, "neither", False),
    Statistic("other_mass_change", _MASS, "neither", False),
)
FIGURES = (
    Figure(
        name="displacement_cells",
        kind="flow",
        curve="displacement_cells",
        x_label="share of pairs",
        y_label="model",
        title="Pairs by what happened to the chosen answer's log-prob",
    ),
)


@dataclass(frozen=True)
class Parameters:
    """Options of the analysis.

    Attributes:
        baseline_id: not used; every model is set against its own reference.
        ci_level: nominal coverage, in (0, 1).
        slices: columns to slice by, as in ``reversals``.
        mass_floor: probability that chosen answers must lose, and others gain, for the exact
            masses to speak; a twentieth, ours.
        support_margin: nats per token by which the policy's answers may be less likely to the
            reference than the chosen ones; ours: on the sandbox a sound run is .04 above the chosen
            answers and one trained into gibberish 2.97 below.
        displaced_share: share of prompts, those of the largest fall, on which judges decide.
        tolerance: rise of a cost that counts as none, in standard deviations of the reference's
            costs; a tenth, half of what is called a small effect (Cohen 1988).
        n_cases: pairs or prompts listed per kind and model.
    """

    baseline_id: str = ""
    ci_level: float = 0.95
    slices: tuple[str, ...] = ("split", "stratum", "length")
    mass_floor: float = 0.05
    support_margin: float = 0.5
    displaced_share: float = 0.25
    tolerance: float = 0.1
    n_cases: int = 20


class Displacement(Analyzer):
    """Falls of log-prob, moved mass and the alarm; see the module."""

    question: ClassVar[str] = (
        "Is the fall of the chosen answers' log-prob harmless, and where did the mass go?"
    )
    reading: ClassVar[str] = (
        "The alarm is 0 none, 1 harmless, 2 cannot tell, 3 harmful; the notes say by what. "
        "Harmless means: where the chosen answer falls the rejected one falls more, and the "
        "answers that the policy gives itself are no worse than the reference's (or, unjudged, "
        "still in the language of preferred answers)."
    )
    misleads: ClassVar[str] = (
        "The size of the fall tells nothing by itself. Without sampled answers a harmless fall "
        "cannot be told; without a judge of them (--cost) a turn to fluent answers of opposite "
        "meaning is invisible; and what a judge calls worse may be what the chosen answers taught."
    )
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"ImplicitRewards": _pairs.PAIR_COLUMNS}
    Parameters: ClassVar[type] = Parameters
    headline: ClassVar[tuple[str, ...]] = (
        "displacement_alarm",
        "mean_fall_of_chosen",
        "mean_fall_of_rejected",
        "rejected_fell_more_of_falls",
        "rejected_rose_rate",
        "mass_moved",
        "mass_moved_to_third_answers",
        "support_gap",
    )

    def run(self, tables: Tables, params: Parameters, rng: np.random.Generator) -> AnalyzerResult:
        """Findings, cells, alarm and cases of every model in ImplicitRewards."""
        self.check(tables)
        seed = int(rng.integers(2**63))
        frame = _pairs.with_pair_columns(
            tables["ImplicitRewards"], tables.get("PreferencePairs"), params.slices
        )
        values, notes = _rows.slice_values(frame, params.slices)
        rows, curves, cases = [], [], []
        for model_id in sorted(frame["model_id"].unique()):
            model = _pairs.one_model(frame, model_id, NAME)
            columns = fall_columns(model)
            part = _rows.all_and_slices(
                model, params.slices, values=values, main=_rows.main_slice(model, ())
            )
            found = _rows.mean_findings(
                NAME,
                model_id,
                columns,
                part,
                statistics=STATISTICS,
                clusters=pd.factorize(model["prompt_id"])[0],
                params=params,
                reasons=_rows.Reasons(lambda part: "", _missing),
            )
            measured = Measured(model, columns, tables, params, seed)
            alarm = alarm_of(found, measured, params)
            rows += [*found, *measured.findings(), _alarm_row(alarm, found, model_id, params)]
            curves += _rows.cell_points(
                NAME, "displacement_cells", model_id, found, cells=CELL_RATES
            )
            cases += [*_pair_cases(model, measured.ches, params), *measured.prompt_cases()]
            if columns["mean_fall_of_chosen"].notna().any():
                notes += [_sentence(alarm, model_id), *measured.needs()]
        return AnalyzerResult(
            findings=findings_frame(rows),
            curves=pd.DataFrame(curves) if curves else empty(CURVES),
            cases=pd.DataFrame(cases) if cases else empty(CASES),
            figures=FIGURES,
            notes=tuple(dict.fromkeys(notes)),
        )


def fall_columns(model: pd.DataFrame) -> pd.DataFrame:
    """Every statistic of every pair of one model, one column each, NaN where no reference is."""
    chosen, rejected = (
        model[f"logratio_{side}"].to_numpy(float) for side in ("chosen", "rejected")
    )
    n_chosen, n_rejected = (model[f"n_tokens_{side}"].to_numpy() for side in ("chosen", "rejected"))
    known = ~np.isnan(chosen + rejected)
    fell = chosen < 0.0
    cells = {
        "chosen_held_rate": ~fell,
        "rejected_fell_more_rate": fell & (rejected < chosen),
        "chosen_fell_more_rate": fell & (rejected >= chosen) & (rejected <= 0.0),
        "rejected_rose_rate": fell & (rejected > 0.0),
        "mirror_rate": (chosen > 0.0) & (rejected < 0.0),
    }
    values = {
        "mean_fall_of_chosen": -chosen,
        "mean_fall_of_rejected": -rejected,
        "fall_of_chosen_per_token": -_pairs.per_token(chosen, n_chosen),
        "fall_of_rejected_per_token": -_pairs.per_token(rejected, n_rejected),
        **{name: np.where(known, cell, np.nan) for name, cell in cells.items()},
        "rejected_fell_more_of_falls": np.where(known & fell, rejected < chosen, np.nan),
        **_answers.pair_mass_columns(model),
    }
    return pd.DataFrame(values, index=model.index)


def alarm_of(found: list[dict[str, Any]], measured: Measured, params: Parameters) -> Alarm:
    """The alarm of one model from its findings and what was measured beside them."""
    by_name = {row["statistic"]: row for row in found if row["slice"] == "all"}

    def bounds(name: str) -> Bounds:
        row = by_name[name]
        return Bounds(row["estimate"], row["ci_low"], row["ci_high"])

    columns = measured.columns
    held = bounds("chosen_held_rate")
    falling = Bounds(1.0 - held.estimate, 1.0 - held.high, 1.0 - held.low)
    excess = paired_difference(
        columns["rejected_rose_rate"].to_numpy(float),
        columns["mirror_rate"].to_numpy(float),
        pd.factorize(measured.model["prompt_id"])[0],
        level=params.ci_level,
        rng=np.random.default_rng(measured.seed),
    )
    lines = [
        _alarm.fall_line(bounds("mean_fall_of_chosen"), falling),
        _alarm.share_line(bounds("rejected_fell_more_of_falls")),
        _alarm.rise_line(bounds_of(excess)),
        _alarm.mass_line(
            bounds("chosen_mass_change"), bounds("other_mass_change"), params.mass_floor
        ),
    ]
    if measured.gap.n:
        lines.append(_alarm.support_line(bounds_of(measured.gap), params.support_margin))
    lines += [
        _alarm.judge_line(
            judged.cost, bounds_of(judged.displaced), bounds_of(judged.overall), judged.tolerance
        )
        for judged in measured.judged_at_once
    ]
    return _alarm.level_of(lines)


def _alarm_row(
    alarm: Alarm, found: list[dict[str, Any]], model_id: str, params: Parameters
) -> dict[str, Any]:
    fall = next(row for row in found if row["statistic"] == "mean_fall_of_chosen")
    known = fall["n"] > 0
    return finding(
        NAME,
        "displacement_alarm",
        model_id,
        params=params,
        estimate=alarm.code if known else np.nan,
        method="rule on intervals (see the notes)" if known else "",
        verdict=alarm.level if known else "",
        n=fall["n"],
        n_clusters=fall["n_clusters"],
        unit="level: 0 none, 1 harmless, 2 cannot tell, 3 harmful",
        better="lower",
        flag=f"alarm: {alarm.level}" if known else fall["flag"],
    )


def _missing(name: str) -> str:
    return "no chosen answer fell" if name == "rejected_fell_more_of_falls" else "no reference"


def _sentence(alarm: Alarm, model_id: str) -> str:
    said = "; ".join(f"{line.words} ({line.says})" for line in alarm.lines)
    return f"{model_id}: displacement alarm: {alarm.level}. {said[:1].upper()}{said[1:]}."


def _pair_cases(
    model: pd.DataFrame, ches: pd.DataFrame, params: Parameters
) -> list[dict[str, Any]]:
    """Pairs whose chosen answer fell more than the rejected, and those that CHES warns of."""
    chosen, rejected = (
        model[f"logratio_{side}"].to_numpy(float) for side in ("chosen", "rejected")
    )
    score = ches["ches_per_token"].to_numpy(float)
    severities = {
        "chosen_fell_more": np.where((chosen < 0.0) & (rejected > chosen), rejected - chosen,
                                     np.nan),
        "high_ches": score,
    }  # fmt: skip
    cases = []
    for kind, severity in severities.items():
        for position in np.argsort(-severity, kind="stable")[: params.n_cases]:
            if np.isnan(severity[position]):
                break
            cases.append(
                {
                    "analyzer": NAME,
                    "kind": kind,
                    "model_id": model["model_id"].iloc[position],
                    "row_key": model["pair_id"].iloc[position],
                    "severity": float(severity[position]),
                    "note": (
                        f"chosen {chosen[position]:+.2f}, rejected {rejected[position]:+.2f} nats "
                        f"against the reference; CHES per token {score[position]:.4g}"
                    ),
                }
            )
    return cases


ANALYZER = Displacement
