"""Which preferences did training turn around?

A pair says that ``chosen`` is better than ``rejected``. Three orders are set against that label,
side by side, and never called just "accuracy":

* the implicit reward's: ``reward_accuracy`` = share with ``margin > 0``, ties one half (what
  trainers log and RewardBench scores);
* the policy's own: ``ranking_accuracy`` = share with ``logp_chosen > logp_rejected``, ties half;
* the same per token: ``ranking_accuracy_per_token`` with ``logp / n_tokens``.

``reversal_rate`` is the share of pairs that the implicit reward puts the other way round than the
label, ``margin < 0`` strictly (a tie is not reversed): against the label, not against the
reference. ``strong_reversal_rate`` is its strong form, chosen made less and rejected more likely
than under the reference. What changed against the reference is the reversal matrix of the policy's
order, as shares of all pairs that sum to 1: ``kept_right``, ``fixed``, ``broken``, ``kept_wrong``
and ``tied``; ``broken_rate`` and ``fixed_rate`` are the raw order's, ``..._per_token`` the
normalised one's; ``broken_of_right`` and ``fixed_of_wrong`` divide by the pairs that the
reference had right or wrong. ``fixed - broken`` is ``ranking_accuracy_change``, tested by exact
McNemar. ``displacement_rate`` is the share of pairs whose chosen answer lost probability
(``logratio_chosen < 0``).

Misleads: a raw order is mostly a length order (see the slices by length); a label is not the truth
(with gold margins the ``gold_...`` rows use the true order); a method that reorders labels by
safety reverses helpfulness pairs by design (see the slices by safety).

Source: Chen et al. 2405.19534 (ranking accuracy), Gopalan et al. 2510.20413 (reversal), Razin et
al. 2410.08847 (displacement). The columns are made by ``_pairs.pair_columns``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _cases, _compare, _pairs, _rows
from dpo_diag.analyzers._base import Analyzer, AnalyzerResult, Figure, Tables, findings_frame
from dpo_diag.analyzers._rows import Statistic
from dpo_diag.stats.compare import paired_difference
from dpo_diag.tables import CASES, CURVES, empty

NAME = "reversals"
_SHARE = "share of pairs"
STATISTICS = (
    Statistic("reward_accuracy", _SHARE, "higher"),
    Statistic("ranking_accuracy", _SHARE, "higher"),
    Statistic("ranking_accuracy_per_token", _SHARE, "higher"),
    Statistic("ref_ranking_accuracy", _SHARE, "neither"),
    Statistic("ref_ranking_accuracy_per_token", _SHARE, "neither"),
    Statistic("reversal_rate", _SHARE, "lower"),
    Statistic("strong_reversal_rate", _SHARE, "lower"),
    Statistic("kept_right_rate", _SHARE, "higher"),
    Statistic("fixed_rate", _SHARE, "higher"),
    Statistic("broken_rate", _SHARE, "lower"),
    Statistic("kept_wrong_rate", _SHARE, "lower"),
    Statistic("tied_rate", _SHARE, "neither"),
    Statistic("kept_right_rate_per_token", _SHARE, "higher"),
    Statistic("fixed_rate_per_token", _SHARE, "higher"),
    Statistic("broken_rate_per_token", _SHARE, "lower"),
    Statistic("kept_wrong_rate_per_token", _SHARE, "lower"),
    Statistic("tied_rate_per_token", _SHARE, "neither"),
    Statistic("broken_of_right", "share of pairs the reference ranks right", "lower"),
    Statistic("fixed_of_wrong", "share of pairs the reference ranks wrong", "higher"),
    Statistic("displacement_rate", _SHARE, "lower"),
    Statistic("rejected_rises_rate", _SHARE, "lower"),
    Statistic("chosen_shift", "nats, policy minus reference", "higher", is_share=False),
    Statistic("rejected_shift", "nats, policy minus reference", "neither", is_share=False),
    Statistic("mean_margin", "reward", "higher", is_share=False),
    Statistic("tie_share", "share of pairs with margin 0", "neither"),
    Statistic("undecided_share", "share of pairs inside the engines' noise", "lower"),
    Statistic("truncated_share", "share of pairs with a cut answer", "lower"),
    Statistic("gold_label_agreement", "share of pairs with a gold order", "neither"),
    Statistic("gold_reward_accuracy", "share of pairs with a gold order", "higher"),
    Statistic("gold_ranking_accuracy", "share of pairs with a gold order", "higher"),
    Statistic("gold_ranking_accuracy_per_token", "share of pairs with a gold order", "higher"),
    Statistic("gold_reversal_rate", "share of pairs with a gold order", "lower"),
    Statistic("gold_broken_rate", "share of pairs with a gold order", "lower"),
    Statistic("gold_fixed_rate", "share of pairs with a gold order", "higher"),
)
BY_NAME = {statistic.name: statistic for statistic in STATISTICS}
REWARD_STATISTICS = ("reward_accuracy", "reversal_rate", "displacement_rate")
CHANGES = (  # statistic, policy's score, reference's score
    ("ranking_accuracy_change", "ranking_accuracy", "ref_ranking_accuracy"),
    (
        "ranking_accuracy_per_token_change",
        "ranking_accuracy_per_token",
        "ref_ranking_accuracy_per_token",
    ),
)


@dataclass(frozen=True)
class Parameters:
    """Options of the reversal analysis.

    Attributes:
        baseline_id: model the others are compared with, empty for none.
        ci_level: nominal coverage, in (0, 1).
        slices: columns to slice by, of ImplicitRewards or PreferencePairs, plus ``length`` (which
            answer is longer by a quarter) and ``safety`` (which answers are labelled safe).
        domains: domains that make up the slice ``all`` and every slice but those by domain; empty
            for all of them.
        gold_gap: pairs with ``|gold_margin|`` at or below it have no gold order, gold reward.
        n_cases: worst pairs listed per kind and model.
    """

    baseline_id: str = ""
    ci_level: float = 0.95
    slices: tuple[str, ...] = (
        "domain",
        "split",
        "annotator",
        "stratum",
        "subset",
        "safety",
        "length",
    )
    domains: tuple[str, ...] = ()
    gold_gap: float = 0.0
    n_cases: int = 20


FIGURES = tuple(
    Figure(
        name=f"reversal_flow{suffix}",
        kind="flow",
        curve=f"reversal_flow{suffix}",
        x_label="share of pairs",
        y_label="model",
        title=f"Pair orders by {words}: kept, fixed and broken against the reference",
    )
    for suffix, words in (("", "log-prob"), ("_per_token", "log-prob per token"))
)


class Reversals(Analyzer):
    """Orders of pairs against their labels and against the reference; see the module."""

    question: ClassVar[str] = "Which preferences did training turn around?"
    reading: ClassVar[str] = (
        "Reward accuracy is what trainers log; ranking accuracy is what the policy itself prefers. "
        "A broken pair is one that the reference ranks right and the policy wrong."
    )
    misleads: ClassVar[str] = (
        "The raw order is mostly a length order (see the slices by length), and a label is not the "
        "truth (see the gold rows)."
    )
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"ImplicitRewards": _pairs.PAIR_COLUMNS}
    Parameters: ClassVar[type] = Parameters
    headline: ClassVar[tuple[str, ...]] = (
        "reward_accuracy",
        "ranking_accuracy",
        "ranking_accuracy_per_token",
        "reversal_rate",
        "broken_rate",
        "fixed_rate",
        "displacement_rate",
    )

    def run(self, tables: Tables, params: Parameters, rng: np.random.Generator) -> AnalyzerResult:
        """Findings, the reversal flow and the worst pairs of every model in ImplicitRewards."""
        self.check(tables)
        seed = int(rng.integers(2**63))
        pairs = tables.get("PreferencePairs")
        frame = _pairs.with_pair_columns(tables["ImplicitRewards"], pairs, params.slices)
        models = sorted(frame["model_id"].unique())
        _rows.check_baseline(NAME, models, params.baseline_id)
        values, notes = _rows.slice_values(frame, params.slices)
        rows: list[dict[str, Any]] = []
        curves: list[dict[str, Any]] = []
        cases: list[dict[str, Any]] = []
        scored, changes = {}, []
        for model_id in models:
            model = _pairs.one_model(frame, model_id, NAME)
            columns = _pairs.pair_columns(model, gold_gap=params.gold_gap)
            main = _rows.main_slice(model, params.domains)
            found = _rows.mean_findings(
                NAME,
                model_id,
                columns,
                _rows.all_and_slices(model, params.slices, values=values, main=main),
                statistics=STATISTICS,
                clusters=pd.factorize(model["prompt_id"])[0],
                params=params,
                reasons=_rows.Reasons(_against, _missing),
            )
            rows += found
            curves += _flow(found, model_id)
            cases += _cases.worst_pairs(NAME, model[main.mask], pairs, n_cases=params.n_cases)
            kept = columns.assign(prompt_id=model["prompt_id"], step=model["step"])
            scored[model_id] = kept.set_index(pd.Index(model["pair_id"]))[main.mask]
            changes += _changes(scored[model_id], model, params=params, seed=seed)
        rows += _compare.judge(changes, params.ci_level)
        family = self._against_baseline(scored, params, seed)
        rows += _compare.judge(family, params.ci_level)
        if family and not any(c.row["statistic"] in REWARD_STATISTICS for c in family):
            notes.append("The baseline is its own reference: no implicit reward to compare with.")
        return AnalyzerResult(
            findings=findings_frame(rows),
            curves=pd.DataFrame(curves) if curves else empty(CURVES),
            cases=pd.DataFrame(cases) if cases else empty(CASES),
            figures=FIGURES,
            notes=tuple(notes),
        )

    def _against_baseline(
        self, scored: Mapping[str, pd.DataFrame], params: Parameters, seed: int
    ) -> list[_compare.Comparison]:
        """The headline family; steps of a run are no part of it, and a reward of 0 is no reward."""
        final = {
            model_id: rows
            for model_id, rows in scored.items()
            if model_id == params.baseline_id or (rows["step"] == -1).all()
        }
        names = list(self.headline)
        if params.baseline_id in scored and scored[params.baseline_id]["tie_share"].eq(1.0).all():
            names = [name for name in names if name not in REWARD_STATISTICS]
        statistics = [BY_NAME[name] for name in names]
        return _compare.paired_family(NAME, statistics, final, params=params, seed=seed)


def _against(part: pd.DataFrame) -> str:
    flags = []
    ties = float(part["tie_share"].mean())
    if ties == 1.0:
        flags.append("policy equals reference: every margin is 0")
    elif ties > 0.2:
        flags.append("ties>20%")
    if part["undecided_share"].mean() > 0.05:
        flags.append("undecided>5%")
    if part["truncated_share"].any():
        flags.append("truncated rows")
    return "; ".join(flags)


def _missing(name: str) -> str:
    if name.startswith("gold_"):
        return "no gold order"
    return "noise not measured" if name == "undecided_share" else "no reference"


def _changes(
    scored: pd.DataFrame, model: pd.DataFrame, *, params: Parameters, seed: int
) -> list[_compare.Comparison]:
    """The policy's order against the reference's on the same pairs: fixed minus broken."""
    family = []
    if scored["ref_ranking_accuracy"].isna().all():
        return family
    clusters = pd.factorize(scored["prompt_id"])[0]
    for name, policy, reference in CHANGES:
        difference = paired_difference(
            scored[policy].to_numpy(),
            scored[reference].to_numpy(),
            clusters,
            level=params.ci_level,
            rng=np.random.default_rng(seed),
        )
        family.append(
            _compare.comparison(
                NAME,
                Statistic(name, "share of pairs, fixed minus broken", "higher"),
                str(model["model_id"].iloc[0]),
                str(model["reference_id"].iloc[0]),
                difference=difference,
                params=params,
            )
        )
    return family


def _flow(findings: list[dict[str, Any]], model_id: str) -> list[dict[str, Any]]:
    """The reversal matrix of the slice ``all`` as points, one curve for each of the two orders."""
    points = []
    for suffix in ("", "_per_token"):
        cells = {cell: f"{cell}_rate{suffix}" for cell in _pairs.CELLS}
        points += _rows.cell_points(NAME, f"reversal_flow{suffix}", model_id, findings, cells=cells)
    return points


ANALYZER = Reversals
