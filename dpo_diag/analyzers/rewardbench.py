"""What would RewardBench say of this model's implicit reward?

Version 1 (a ``subset`` of its 23 in PreferencePairs): ``subset_accuracy``, ``section_accuracy``
(subsets weighted as published, math-prm raised from 447 to 984), and three totals: of June 2024
(``rewardbench_score``, prior sets weigh half), of March 2024 (``rewardbench_score_march``, the
plain mean of five sections) and without prior sets (``rewardbench_core_mean``, what leaderboards
show of models that lack them). They are not interchangeable: say which. A total with a section
missing is NaN and names the section; it is never made of the others. Ties count one half; the
benchmark counts them as wrong, which the same statistics with ``_ties_wrong`` do.

Version 2 (groups, ``group_id``): best-of-4 ``subset_accuracy`` (a shared top counts 1/k, as
published), ``ties_score`` and its five terms, ``rewardbench2_score``, the mean of the six. Of a
prompt with several right answers Ties asks that the worst of them beats the best wrong one
(``ties_tied_accuracy``; ``ties_ref_accuracy`` on its reference prompt with one right answer), and
that this gap exceeds the spread among the right ones (``ties_preferred``, ``_hard`` with the lesser
gap of both prompts): 0.3, 0.3, 0.2, 0.2, and 0.01 of a tie-breaking term.

The score of an answer is the benchmark's: the summed log-ratio, no beta, no length normalisation.
Slices ``score=...`` give the same totals under other scores: ``variant`` (the reward as the method
defines it), ``sum``, ``avg``, ``norm`` (no reference), ``explicit`` (a reward model).

Misleads: a wrong but similar reference drops a good model to near chance; published DPO rows used
8-bit weights and cut prompts to 128 tokens beyond 2,048, so a difference of a point from a
published row says little; prior sets (about 50) are chance for most DPO models.

Source: Lambert et al. 2403.13787; Malik et al. 2506.01937; weights as in ``_rewardbench``, which
was read against the published code. Start reading at ``Rewardbench.run``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _compare, _pairs, _rows
from dpo_diag.analyzers import _rewardbench as bench
from dpo_diag.analyzers._base import (
    Analyzer,
    AnalyzerResult,
    Figure,
    Tables,
    finding,
    findings_frame,
)
from dpo_diag.analyzers._rows import Statistic
from dpo_diag.stats.contrast import Group
from dpo_diag.stats.intervals import Interval, clustered_proportion
from dpo_diag.stats.stratified import shared_share_sum, shared_sum

NAME = "rewardbench"
MAIN = "logratio"
UNITS = {
    **dict.fromkeys(bench.TOTALS_V1, "share of pairs, weighted over subsets"),
    **dict.fromkeys(bench.TOTALS_V2, "share of items, weighted over subsets"),
    **dict.fromkeys(bench.TIES_WEIGHTS, "share of prompts"),
    "section_accuracy": "share of pairs, weighted over subsets",
    "subset_accuracy": "share of items",
}
WRONG = "_ties_wrong"


@dataclass(frozen=True)
class Parameters:
    """Options of the analysis.

    Attributes:
        baseline_id: model the others are compared with, empty for none.
        ci_level: nominal coverage, in (0, 1).
    """

    baseline_id: str = ""
    ci_level: float = 0.95


FIGURES = (
    Figure(
        name="rewardbench_sections",
        kind="intervals",
        curve="section_accuracy@*",
        x_label="accuracy (share of pairs, weighted over subsets)",
        y_label="section",
        title="RewardBench by section, implicit reward",
    ),
    Figure(
        name="rewardbench_subsets",
        kind="intervals",
        curve="subset_accuracy@*",
        x_label="accuracy (share of items)",
        y_label="subset",
        title="RewardBench by subset, implicit reward",
    ),
)


class Scored(NamedTuple):
    """One model's items by score kind, and what speaks against them."""

    items: Mapping[str, pd.DataFrame]
    flag: str


class Rewardbench(Analyzer):
    """Both versions of the benchmark on implicit rewards; see the module."""

    question: ClassVar[str] = "What would RewardBench say of this model's implicit reward?"
    reading: ClassVar[str] = (
        "A score is a weighted sum of subset accuracies of the summed log-ratio; the March and the "
        "June total of version 1 differ, and a total with a section missing is not given."
    )
    misleads: ClassVar[str] = (
        "A wrong but similar reference drops a good model to near chance; published rows of DPO "
        "models used 8-bit weights and cut long prompts."
    )
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "ImplicitRewards": (*_pairs.PAIR_COLUMNS, "reward_chosen", "reward_rejected")
    }
    Parameters: ClassVar[type] = Parameters
    headline: ClassVar[tuple[str, ...]] = ("rewardbench_score", "rewardbench2_score")

    def run(self, tables: Tables, params: Parameters, rng: np.random.Generator) -> AnalyzerResult:
        """Totals, sections and subsets of every model, and their differences to the baseline."""
        self.check(tables)
        frame = bench.with_benchmark_columns(
            tables["ImplicitRewards"], tables.get("PreferencePairs")
        )
        frame = _with_norms(frame, tables.get("PairNorms"))
        models = sorted(frame["model_id"].unique())
        _rows.check_baseline(NAME, models, params.baseline_id)
        rows: list[dict[str, Any]] = []
        scored = {}
        for model_id in models:
            scored[model_id] = _scored(_pairs.one_model(frame, model_id, NAME))
            rows += _model_findings(model_id, scored[model_id], params)
        rows += _compare.judge(_against_baseline(scored, params), params.ci_level)
        notes = (
            [] if (frame["subset"] != "").any() else ["The pairs name no subset of RewardBench."]
        )
        return AnalyzerResult(findings=findings_frame(rows), figures=FIGURES, notes=tuple(notes))


def total(
    items: pd.DataFrame, weights: bench.Total, *, column: str = "value", level: float = 0.95
) -> Interval:
    """A weighted sum of terms' means with its interval; NaN with n = 0 where a term has no item.

    Args:
        items: ``term``, ``cluster`` and the column.
        weights: term -> weight, and a constant.
        column: values in [0, 1].
        level: nominal coverage, in (0, 1).
    """
    found = shared_share_sum(_groups(items, weights, column), level=level)
    shift = weights.constant
    return found._replace(
        estimate=found.estimate + shift, low=found.low + shift, high=found.high + shift
    )


def _groups(items: pd.DataFrame, weights: bench.Total, column: str) -> list[Group]:
    codes = pd.factorize(items["cluster"])[0]
    terms, values = items["term"].to_numpy(), items[column].to_numpy(float)
    masks = {term: terms == term for term in weights.weights}
    return [Group(w, values[masks[t]], codes[masks[t]]) for t, w in weights.weights.items()]


def missing_of(items: pd.DataFrame, terms: Mapping[str, float]) -> str:
    """Which sections, or subsets of sections that are there, have no item; empty where none."""
    present = set(items["term"])
    absent = [term for term in terms if term not in present]
    if not absent:
        return ""
    if len(absent) == len(terms):
        return "no subset of this version"
    names = []
    for section, subsets in bench.SECTIONS.items():
        lacking = [name for name in subsets if name in absent]
        whole = len(lacking) == len(subsets)
        names += [section] if whole else [f"{name} of {section}" for name in lacking]
    names += [bench.TIES] * any(term in bench.TIES_WEIGHTS for term in absent)
    names += [term for term in absent if term in bench.BEST_OF_4]
    return f"without {', '.join(names)}"


def _with_norms(frame: pd.DataFrame, norms: pd.DataFrame | None) -> pd.DataFrame:
    if norms is None:
        return frame
    columns = ["model_id", "pair_id", "logp_norm_chosen", "logp_norm_rejected"]
    return frame.merge(norms[columns], on=["model_id", "pair_id"], how="left")


def _scored(model: pd.DataFrame) -> Scored:
    items, flags = {}, []
    for kind, scores in bench.score_kinds(model).items():
        second, n_incomplete = bench.items_v2(model, scores)
        items[kind] = pd.concat([bench.items_v1(model, scores), second], ignore_index=True)
        if n_incomplete and kind == MAIN:
            flags.append(f"{n_incomplete} incomplete groups left out")
    if model["truncated"].any():
        flags.append("truncated rows")
    return Scored(items, "; ".join(flags))


def _model_findings(model_id: str, scored: Scored, params: Parameters) -> list[dict[str, Any]]:
    main = scored.items.get(MAIN)
    totals = bench.TOTALS_V1 | bench.TOTALS_V2
    if main is None:
        reason = "no reference: see the slices score=..." if scored.items else "no rows"
        return [
            _row(model_id, name, "all", _nothing(), params=params, flag=reason) for name in totals
        ] + _other_scores(model_id, scored, params)
    rows = [
        _total_row(model_id, name, "all", main, weights=weights, params=params, flag=scored.flag)
        for name, weights in totals.items()
    ]
    rows += [
        _total_row(
            model_id, name, "all", main, weights=weights, params=params, column="value_ties_wrong"
        )
        for name, weights in bench.TOTALS_V1.items()
    ]
    rows += _section_rows(model_id, main, params)
    for term, part in main.groupby("term", sort=True):
        is_part = term in bench.TIES_WEIGHTS
        name, label = (term, "all") if is_part else ("subset_accuracy", f"subset={term}")
        flag = bench.partial_flag(part, {term: 1.0})
        rows.append(_row(model_id, name, label, _mean(part, params), params=params, flag=flag))
    return rows + _other_scores(model_id, scored, params)


def _section_rows(model_id: str, main: pd.DataFrame, params: Parameters) -> list[dict[str, Any]]:
    rows = []
    for section in bench.SECTIONS:
        weights = bench.Total(bench.section_weights(section))
        if set(weights.weights) & set(main["term"]):
            for column in ("value", "value_ties_wrong"):
                rows.append(
                    _total_row(
                        model_id,
                        "section_accuracy",
                        f"section={section}",
                        main,
                        weights=weights,
                        params=params,
                        column=column,
                    )
                )
    return rows


def _other_scores(model_id: str, scored: Scored, params: Parameters) -> list[dict[str, Any]]:
    """The totals that have items, under each other way to score an answer."""
    rows = []
    for kind in sorted(set(scored.items) - {MAIN}):
        items = scored.items[kind]
        for name, weights in (bench.TOTALS_V1 | bench.TOTALS_V2).items():
            if set(weights.weights) & set(items["term"]):
                rows.append(
                    _total_row(
                        model_id, name, f"score={kind}", items, weights=weights, params=params
                    )
                )
    return rows


def _total_row(
    model_id: str,
    name: str,
    label: str,
    items: pd.DataFrame,
    *,
    weights: bench.Total,
    params: Parameters,
    column: str = "value",
    flag: str = "",
) -> dict[str, Any]:
    interval = total(items, weights, column=column, level=params.ci_level)
    reasons = (missing_of(items, weights.weights), bench.partial_flag(items, weights.weights))
    suffix = WRONG if column != "value" else ""
    text = "; ".join(filter(None, (*reasons, flag)))
    return _row(model_id, name + suffix, label, interval, params=params, flag=text)


def _row(
    model_id: str, name: str, label: str, interval: Interval, *, params: Parameters, flag: str
) -> dict[str, Any]:
    return finding(
        NAME,
        name,
        model_id,
        params=params,
        slice=label,
        unit=UNITS[name.removesuffix(WRONG)],
        better="higher",
        flag=_rows.flags_of(interval, flag),
        **_rows.estimate_columns(interval, params.ci_level),
    )


def _mean(part: pd.DataFrame, params: Parameters) -> Interval:
    codes = pd.factorize(part["cluster"])[0]
    return clustered_proportion(part["value"].to_numpy(float), codes, level=params.ci_level)


def _nothing() -> Interval:
    return Interval(np.nan, np.nan, np.nan, np.nan, 0, 0, "nothing to estimate", False)


def _against_baseline(
    scored: Mapping[str, Scored], params: Parameters
) -> list[_compare.Comparison]:
    """Paired differences on the items that both have, of every total and section there is."""
    if params.baseline_id not in scored or MAIN not in scored[params.baseline_id].items:
        return []
    base = scored[params.baseline_id].items[MAIN]
    family = []
    for model_id, model in scored.items():
        if model_id == params.baseline_id or MAIN not in model.items:
            continue
        both = model.items[MAIN].merge(
            base[["term", "key", "value"]], on=["term", "key"], suffixes=("", "_base")
        )
        both["gap"] = both["value"] - both["value_base"]
        n_alone = len(model.items[MAIN]) + len(base) - 2 * len(both)
        for name, label, weights in _comparable(both["term"]):
            family.append(
                _compare.comparison(
                    NAME,
                    Statistic(name, UNITS[name], "higher"),
                    model_id,
                    params.baseline_id,
                    difference=shared_sum(_groups(both, weights, "gap"), level=params.ci_level),
                    params=params,
                    label=label,
                    flag=f"{n_alone} items in one model only" if n_alone else "",
                )
            )
    return family


def _comparable(terms: Sequence[str]) -> list[tuple[str, str, bench.Total]]:
    present = set(terms)
    asked = [(n, "all", w) for n, w in (bench.TOTALS_V1 | bench.TOTALS_V2).items()]
    asked += [
        ("section_accuracy", f"section={s}", bench.Total(bench.section_weights(s)))
        for s in bench.SECTIONS
    ]
    return [entry for entry in asked if set(entry[2].weights) <= present]


ANALYZER = Rewardbench
