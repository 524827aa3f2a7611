"""How does the implicit reward decay off-distribution, by kind of shift and by training step?

For every model and domain (``in_domain`` and one name per shift): ``reward_accuracy``; its AUC
(``reward_auc``: whether larger margins are the right ones, over all ways to name the two answers);
calibration of ``sigmoid(margin)`` (``brier``, ``calibration_error``); ``mean_margin``; beside them
the policy's and the reference's own ranking and, where PreferencePairs has the columns
``explicit_reward_chosen`` and ``explicit_reward_rejected``, an explicit reward's accuracy. With
``group_id`` (one chosen against several rejected) ``best_of_n_accuracy``: the chosen answer beats
all of its group.

``ood_accuracy_drop`` is in-distribution minus shifted, positive where the reward got worse; its
slice ``all`` is the plain mean over the kinds of shift. ``ood_accuracy_drop_matched`` compares at
the same mix of strata: both sides weighted by the shifted set's mix of the strata they share
(strata missing on a side are named in the flag). Read it first: an apparent decay is often only
another mix of intents. The same drops of the reference's ranking and of the explicit reward tell
whether the pairs are harder rather than the reward worse.

In-distribution pairs that were trained on are left out as long as others exist. Misleads: shifts of
prompts and of answers differ in kind, and published evidence points in different directions (an
implicit reward beats an explicit one under domain shift, loses under paraphrase); sets whose pairs
are closer calls look decayed.

Source: Lin et al. 2409.03650; Razin et al. 2507.07981. Start reading at ``Ood.run``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _compare, _pairs, _rows, _shift_scores, _steps, _strata
from dpo_diag.analyzers._base import (
    Analyzer,
    AnalyzerResult,
    Figure,
    Tables,
    finding,
    findings_frame,
)
from dpo_diag.analyzers._rows import Statistic
from dpo_diag.stats import calibration
from dpo_diag.stats.contrast import weighted_share_sum, weighted_sum
from dpo_diag.stats.ranks import symmetric_auc
from dpo_diag.tables import CURVES, empty

NAME = "ood"
_SHARE = "share of pairs"
STATISTICS = (
    Statistic("reward_accuracy", _SHARE, "higher"),
    Statistic("ranking_accuracy", _SHARE, "higher"),
    Statistic("ranking_accuracy_per_token", _SHARE, "higher"),
    Statistic("ref_ranking_accuracy", _SHARE, "neither"),
    Statistic("ref_ranking_accuracy_per_token", _SHARE, "neither"),
    Statistic("explicit_reward_accuracy", _SHARE, "higher"),
    Statistic("gold_reward_accuracy", "share of pairs with a gold order", "higher"),
    Statistic("best_of_n_accuracy", "share of groups", "higher"),
    Statistic("brier", "squared probability", "lower", is_share=False),
    Statistic("mean_margin", "reward", "higher", is_share=False),
    Statistic("tie_share", "share of pairs with margin 0", "neither"),
    Statistic("undecided_share", "share of pairs inside the engines' noise", "lower"),
)
AUC = Statistic("reward_auc", "probability", "higher")
ECE = Statistic("calibration_error", "probability", "lower")
DROPS = (  # statistic, the per-pair score that it is the drop of
    ("ood_accuracy_drop", "reward_accuracy"),
    ("ref_ranking_drop", "ref_ranking_accuracy_per_token"),
    ("explicit_accuracy_drop", "explicit_reward_accuracy"),
)
HEADLINE_DROPS = ("ood_accuracy_drop", "ood_accuracy_drop_matched")
DROP_UNIT = "share of pairs, in-distribution minus shifted"
OPTIONAL_COLUMNS = (
    "stratum",
    "group_id",
    "explicit_reward_chosen",
    "explicit_reward_rejected",
)


@dataclass(frozen=True)
class Parameters:
    """Options of the off-distribution analysis.

    Attributes:
        baseline_id: model the others are compared with, empty for none.
        ci_level: nominal coverage, in (0, 1).
        in_domain: value of ``domain`` that is the in-distribution set.
        stratum: column that the matched drop matches on.
        gold_gap: pairs with ``|gold_margin|`` at or below it have no gold order, gold reward.
    """

    baseline_id: str = ""
    ci_level: float = 0.95
    in_domain: str = "in_domain"
    stratum: str = "stratum"
    gold_gap: float = 0.0


class Scored(NamedTuple):
    """One model's rows with their per-pair scores, and the contrasts of its domains."""

    rows: pd.DataFrame  # ImplicitRewards columns, a column per statistic, indexed by pair_id
    contrasts: dict[tuple[str, bool], list[_strata.Contrast]]  # (domain or all, matched)
    flag: str


FIGURES = (
    Figure(
        name="ood_by_domain",
        kind="intervals",
        curve="reward_accuracy@*",
        x_label="implicit-reward accuracy (share of pairs)",
        y_label="set of pairs",
        title="Implicit-reward accuracy on and off distribution",
    ),
    Figure(
        name="ood_drop",
        kind="intervals",
        curve="ood_accuracy_drop@*|ood_accuracy_drop_matched@*",
        x_label="in-distribution minus shifted (share of pairs)",
        y_label="kind of shift",
        title="Drop of the implicit reward's accuracy, raw and at matched strata",
    ),
    Figure(
        name="ood_by_step",
        kind="lines",
        curve="reward_accuracy_by_step",
        x_label="training step",
        y_label="implicit-reward accuracy (share of pairs)",
        title="Implicit-reward accuracy along training, by set of pairs",
    ),
    Figure(
        name="calibration",
        kind="reliability",
        curve="reliability",
        x_label="confidence sigmoid(|margin|)",
        y_label="share of pairs ordered right",
        title="Calibration of the implicit reward's probability",
    ),
)


class Ood(Analyzer):
    """The implicit reward on and off distribution; see the module."""

    question: ClassVar[str] = "How does the implicit reward decay off-distribution?"
    reading: ClassVar[str] = (
        "A drop is in-distribution accuracy minus shifted accuracy; the matched one compares at "
        "the same mix of strata and is the one to believe."
    )
    misleads: ClassVar[str] = (
        "Shifts of prompts and of answers are different things, and a set of closer calls looks "
        "decayed: see the reference's own drop beside it."
    )
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"ImplicitRewards": _pairs.PAIR_COLUMNS}
    Parameters: ClassVar[type] = Parameters
    headline: ClassVar[tuple[str, ...]] = HEADLINE_DROPS
    reads_steps: ClassVar[bool] = True
    reads_shifts: ClassVar[bool] = True

    def run(self, tables: Tables, params: Parameters, rng: np.random.Generator) -> AnalyzerResult:
        """Numbers by domain, drops, and curves of every model in ImplicitRewards."""
        self.check(tables)
        columns = (*OPTIONAL_COLUMNS, params.stratum)
        frame = _pairs.with_pair_columns(
            tables["ImplicitRewards"], tables.get("PreferencePairs"), columns
        )
        models = sorted(frame["model_id"].unique())
        _rows.check_baseline(NAME, models, params.baseline_id)
        domains = sorted(set(frame["domain"]) - {params.in_domain})
        rows: list[dict[str, Any]] = []
        curves: list[dict[str, Any]] = []
        scored = {}
        for model_id in models:
            model = _score(_pairs.one_model(frame, model_id, NAME), domains, params)
            scored[model_id] = model
            rows += _domain_findings(model_id, model, domains, params)
            rows += _drop_findings(model_id, model, domains, params)
            curves += _shift_scores.reliability_points(NAME, model_id, model.rows)
        curves += _steps.step_curve(
            NAME,
            "reward_accuracy_by_step",
            rows,
            frame,
            statistic="reward_accuracy",
            run_steps=tables.get("RunSteps"),
        )
        family, notes = _against_baseline(scored, params)
        rows += _compare.judge(family, params.ci_level)
        return AnalyzerResult(
            findings=findings_frame(rows),
            curves=pd.DataFrame(curves) if curves else empty(CURVES),
            figures=FIGURES,
            notes=(*notes, *_set_notes(frame, domains, params)),
        )


def _score(model: pd.DataFrame, domains: list[str], params: Parameters) -> Scored:
    columns = _shift_scores.ood_columns(model, gold_gap=params.gold_gap)
    kept = [c for c in model.columns if c not in columns.columns]
    rows = pd.concat([model[kept], columns], axis=1)
    domain = rows["domain"].to_numpy()
    inside, flag = domain == params.in_domain, ""
    trained = inside & (rows["split"] == "train").to_numpy()
    if trained.any():
        if (inside & ~trained).any():
            inside = inside & ~trained
        else:
            flag = "in-distribution pairs were trained on"
    rows = rows[inside | (domain != params.in_domain)].reset_index(drop=True)
    inside = (rows["domain"] == params.in_domain).to_numpy()
    strata = np.full(len(rows), "", dtype=object)
    if params.stratum in rows.columns:
        strata = _rows.as_text(rows[params.stratum])
    contrasts = _strata.contrasts_of(rows["domain"].to_numpy(), inside, strata, domains=domains)
    return Scored(rows, contrasts, flag)


def _domain_findings(
    model_id: str, model: Scored, domains: list[str], params: Parameters
) -> list[dict[str, Any]]:
    rows = model.rows
    clusters = pd.factorize(rows["prompt_id"])[0]
    parts = [
        _rows.Slice(f"domain={name}", (rows["domain"] == name).to_numpy())
        for name in (params.in_domain, *domains)
    ]
    found = []
    for part in parts:
        flag = model.flag if part.label == f"domain={params.in_domain}" else ""
        found += _rows.mean_findings(
            NAME,
            model_id,
            rows,
            [part],
            statistics=STATISTICS,
            clusters=clusters,
            params=params,
            reasons=_rows.Reasons(
                lambda values, flag=flag: "; ".join(filter(None, (flag, _flag(values)))),
                lambda name: "not given" if name != "undecided_share" else "noise not measured",
            ),
        )
        margins, codes = rows["margin"].to_numpy(float)[part.mask], clusters[part.mask]
        for statistic, interval in (
            (AUC, symmetric_auc(margins, codes, level=params.ci_level)),
            (ECE, calibration.calibration_error(margins, codes, level=params.ci_level)),
        ):
            small = statistic is ECE and interval.n < 1000
            reasons = (flag, _flag(rows[part.mask]), "biased up at small n" if small else "")
            found.append(_row(statistic, model_id, part.label, interval, params, reasons))
    return found


def _drop_findings(
    model_id: str, model: Scored, domains: list[str], params: Parameters
) -> list[dict[str, Any]]:
    clusters = pd.factorize(model.rows["prompt_id"])[0]
    found = []
    for (name, is_matched), contrasts in model.contrasts.items():
        groups = _strata.merged(contrasts)
        label = name if name == "all" else f"domain={name}"
        for statistic, score in DROPS:
            values = model.rows[score].to_numpy(float)
            if statistic != "ood_accuracy_drop" and np.isnan(values).all():
                continue
            own = Statistic(statistic + ("_matched" if is_matched else ""), DROP_UNIT, "lower")
            interval = weighted_share_sum(
                _strata.as_groups(groups, values, clusters), level=params.ci_level
            )
            interval = interval._replace(n_clusters=_strata.n_prompts(groups, values, clusters))
            reasons = (model.flag, *dict.fromkeys(c.flag for c in contrasts), _flag(model.rows))
            if not domains:
                reasons = ("no shifted set",)
            found.append(_row(own, model_id, label, interval, params, reasons))
    return found


def _row(
    statistic: Statistic,
    model_id: str,
    label: str,
    interval: Any,
    params: Parameters,
    reasons: tuple[str, ...],
) -> dict[str, Any]:
    return finding(
        NAME,
        statistic.name,
        model_id,
        params=params,
        slice=label,
        unit=statistic.unit,
        better=statistic.better,
        flag=_rows.flags_of(interval, *reasons),
        **_rows.estimate_columns(interval, params.ci_level),
    )


def _flag(rows: pd.DataFrame) -> str:
    if not len(rows):
        return ""
    if rows["tie_share"].eq(1.0).all():
        return "policy equals reference: every margin is 0"
    return "ties>20%" if rows["tie_share"].mean() > 0.2 else ""


def _against_baseline(
    scored: Mapping[str, Scored], params: Parameters
) -> tuple[list[_compare.Comparison], list[str]]:
    """Difference of drops between a model and the baseline on the same pairs."""
    if params.baseline_id not in scored:
        return [], []
    baseline = scored[params.baseline_id]
    if baseline.rows["tie_share"].eq(1.0).all():
        return [], ["The baseline is its own reference: it has no implicit reward to compare with."]
    other = baseline.rows.set_index("pair_id")["reward_accuracy"]
    family = []
    for model_id, model in scored.items():
        if model_id == params.baseline_id or (model.rows["step"] != -1).any():
            continue
        clusters = pd.factorize(model.rows["prompt_id"])[0]
        gap = model.rows["reward_accuracy"] - other.reindex(model.rows["pair_id"]).to_numpy()
        n_alone = int(gap.isna().sum()) + int((~other.index.isin(model.rows["pair_id"])).sum())
        for name in HEADLINE_DROPS:
            contrasts = model.contrasts["all", name.endswith("_matched")]
            groups, values = _strata.merged(contrasts), gap.to_numpy(float)
            difference = weighted_sum(
                _strata.as_groups(groups, values, clusters), level=params.ci_level
            )
            difference = difference._replace(n_clusters=_strata.n_prompts(groups, values, clusters))
            family.append(
                _compare.comparison(
                    NAME,
                    Statistic(name, DROP_UNIT, "lower"),
                    model_id,
                    params.baseline_id,
                    difference=difference,
                    params=params,
                    flag=f"{n_alone} rows in one model only" if n_alone else "",
                )
            )
    return family, []


def _set_notes(frame: pd.DataFrame, domains: list[str], params: Parameters) -> list[str]:
    notes = []
    if len(frame) and not domains:
        notes.append("No shifted pairs were given, so there is no drop to measure.")
    inside = set(frame.loc[frame["domain"] == params.in_domain, "prompt_id"])
    shared = inside & set(frame.loc[frame["domain"] != params.in_domain, "prompt_id"])
    if shared:
        notes.append(
            f"{len(shared)} prompts are in the in-distribution set and in a shifted one; the "
            "intervals of drops treat the sets as independent."
        )
    if domains and params.stratum not in frame.columns:
        notes.append(f"The pairs have no column {params.stratum}: drops cannot be matched.")
    return notes


ANALYZER = Ood
