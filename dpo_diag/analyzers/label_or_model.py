"""Of the training pairs that ended up reversed: is the label wrong, or the model?

A reversed pair (margin below 0) is either an error of its annotator that the model rightly did not
follow, or an error of the model. For every one of them the evidence is laid side by side: votes,
the same answers labelled the other way round, how many models (seeds, other runs with the same
reward and reference) and steps of the run agree, the annotators' reliabilities and the label's
posterior by RE-PO's expectation-maximisation, Hölder's weight and outliers. A plain rule
(``_label_evidence.judge``) gives one of three words, ``label``, ``model``, ``undecided``; it is no
probability. Nothing is combined into a score: on training pairs the margins have seen the labels,
so the posterior is far too sure of them (on the sandbox .92 where .57 are right).

Where ``gold_margin`` is known the verdicts and the evidence are themselves measured:
``label_verdict_precision``, ``model_verdict_precision``, and for each piece of evidence the AUC
with which it finds wrong labels among the reversed pairs (``auc_...``), beside two cheap
baselines, the pair's difference in length and the reference's own margin.

Misleads: every piece but votes and twins takes models for judges; models of one family share
their mistakes, so agreement of seeds alone is no verdict on a label. Pairs that are not training
pairs say nothing here and are left out; without a split ``train`` there is nothing to report.

Source: Cao et al. 2509.24159 (RE-PO), Fujisawa et al. 2505.17859 (Hölder-DPO).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _label_evidence, _pairs, _rows
from dpo_diag.analyzers._base import (
    Analyzer,
    AnalyzerResult,
    Tables,
    finding,
    findings_frame,
)
from dpo_diag.analyzers._label_evidence import LABEL, MODEL, Evidence
from dpo_diag.analyzers._rows import Statistic
from dpo_diag.stats.intervals import Interval
from dpo_diag.stats.ranks import auc
from dpo_diag.tables import CASES, LABEL_EVIDENCE, concat, empty, validate

NAME = "label_or_model"
COLUMNS = ("annotator", "vote_share", "n_votes")  # of pairs, beside those of every analyzer
NO_TRAINING = "no training pair was scored; give --split train (or all)"
_REVERSED = "share of reversed training pairs"
_GOLD = "with a gold order"
STATISTICS = (
    Statistic("reversed_training_pairs", "share of training pairs", "lower"),
    Statistic("label_verdict_share", _REVERSED, "neither", is_joint=True),
    Statistic("model_verdict_share", _REVERSED, "neither", is_joint=True),
    Statistic("undecided_share", _REVERSED, "neither", is_joint=True),
    Statistic("gold_wrong_of_reversed", f"{_REVERSED} {_GOLD}", "neither"),
    Statistic(
        "label_verdict_precision", f"share of pairs called label {_GOLD}", "higher", is_joint=True
    ),
    Statistic(
        "model_verdict_precision", f"share of pairs called model {_GOLD}", "higher", is_joint=True
    ),
)
# evidence -> sign that makes it larger where the label is more likely wrong
EVIDENCE = {
    "margin": -1.0,
    "mean_margin": -1.0,
    "models_reversing": 1.0,
    "steps_reversing": 1.0,
    "label_right": -1.0,
    "vote_share": -1.0,
    "twins": 1.0,
    "length_difference": -1.0,
    "reference_margin": -1.0,
}


@dataclass(frozen=True)
class Parameters:
    """Options of the analysis.

    Attributes:
        baseline_id: not used; nothing is compared between models here.
        ci_level: nominal coverage, in (0, 1).
        label_below: posterior of a label below which it counts as evidence against it; above one
            half because margins of training pairs have seen the label (chosen on the sandbox).
        min_votes: votes that it takes for votes to speak for a label.
        clear_votes: share of them for the label that it takes.
        min_models: models, or steps, that it takes for their agreement to speak.
        gold_gap: pairs with ``|gold_margin|`` at or below it have no gold order, gold reward.
        n_cases: pairs listed per verdict and model.
    """

    baseline_id: str = ""
    ci_level: float = 0.95
    label_below: float = 0.75
    min_votes: int = 3
    clear_votes: float = 2.0 / 3.0
    min_models: int = 3
    gold_gap: float = 0.0
    n_cases: int = 20


class LabelOrModel(Analyzer):
    """Evidence on reversed training pairs; see the module."""

    question: ClassVar[str] = "Of the reversed training pairs, is the label wrong or the model?"
    reading: ClassVar[str] = (
        "The verdict words are a plain rule on evidence, no probabilities: label (votes, a "
        "contradiction in the data or annotator and margin speak against it), model (votes, other "
        "seeds or earlier steps speak for the label), undecided. Every reversed training pair "
        "is in rows/LabelEvidence.parquet with all its evidence."
    )
    misleads: ClassVar[str] = (
        "All but votes and contradictions take the models for judges, and margins of training "
        "pairs have seen their labels. Where true orders are known, see what the verdicts are "
        "worth (precision) and whether length alone does as well (auc)."
    )
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"ImplicitRewards": _pairs.PAIR_COLUMNS}
    Parameters: ClassVar[type] = Parameters
    headline: ClassVar[tuple[str, ...]] = (
        "reversed_training_pairs",
        "label_verdict_share",
        "model_verdict_share",
        "undecided_share",
    )
    reads_steps: ClassVar[bool] = True

    def run(self, tables: Tables, params: Parameters, rng: np.random.Generator) -> AnalyzerResult:
        """Verdicts, evidence and cases of every final model in ImplicitRewards."""
        self.check(tables)
        texts = tables.get("PreferencePairs")
        frame = _pairs.with_pair_columns(tables["ImplicitRewards"], texts, COLUMNS)
        rows: list[dict[str, Any]] = []
        cases: list[dict[str, Any]] = []
        notes: list[str] = []
        final = frame[frame["step"] == -1]
        for model_id in sorted((final if len(final) else frame)["model_id"].unique()):
            whole = _pairs.one_model(frame, model_id, NAME)
            model = whole[whole["split"] == "train"].reset_index(drop=True)
            if not len(model):
                rows += _nothing(whole, params)
                notes.append(f"{model_id}: {NO_TRAINING}.")
                continue
            found = _label_evidence.evidence_of(model, frame[frame["split"] == "train"], texts)
            judged = _label_evidence.judge(
                found.table, params, n_models=found.n_models, n_steps=found.n_steps
            )
            columns = verdict_columns(model, judged["verdict"].to_numpy(), params.gold_gap)
            rows += _means(model, columns, params)
            rows += _estimates(model, found, params)
            rows += _areas(model, found, columns, params)
            cases += _cases(model, found, judged, params)
            notes += _notes(model_id, found)
        return AnalyzerResult(
            findings=findings_frame(rows),
            cases=pd.DataFrame(cases) if cases else empty(CASES),
            notes=tuple(dict.fromkeys(notes)),
        )


def evidence_table(
    rewards: pd.DataFrame, pairs: pd.DataFrame | None, params: Parameters | None = None
) -> pd.DataFrame:
    """LABEL_EVIDENCE: every reversed training pair of every final model, its evidence and verdict.

    Args:
        rewards: ImplicitRewards, steps included where there are any.
        pairs: PreferencePairs, for votes, annotators and contradictions.
        params: of the rule; None for the default.
    """
    params = params or Parameters()
    frame = _pairs.with_pair_columns(rewards, pairs, COLUMNS)
    trained = frame[frame["split"] == "train"]
    parts = []
    for model_id in sorted(trained.loc[trained["step"] == -1, "model_id"].unique()):
        model = _pairs.one_model(trained, model_id, NAME)
        found = _label_evidence.evidence_of(model, trained, pairs)
        judged = _label_evidence.judge(
            found.table, params, n_models=found.n_models, n_steps=found.n_steps
        )
        table = found.table.join(judged).reset_index(names="pair_id")
        table = table.assign(
            model_id=model_id,
            prompt_id=model["prompt_id"],
            n_models=found.n_models,
            n_steps=found.n_steps,
        )
        parts.append(table[table["margin"] < 0.0])
    rows = concat(parts, LABEL_EVIDENCE)
    return validate(rows[list(LABEL_EVIDENCE.column_names)], LABEL_EVIDENCE)


def verdict_columns(model: pd.DataFrame, verdict: np.ndarray, gold_gap: float) -> pd.DataFrame:
    """Every statistic of every training pair, one column each, NaN where it does not apply."""
    turned = model["margin"].to_numpy(float) < 0.0
    gold = np.full(len(model), np.nan)
    if "gold_margin" in model:
        gold = pd.to_numeric(model["gold_margin"]).to_numpy(float)
    wrong = np.where(np.abs(gold) > gold_gap, gold < 0.0, np.nan)
    return pd.DataFrame(
        {
            "reversed_training_pairs": turned.astype(float),
            "label_verdict_share": np.where(turned, verdict == LABEL, np.nan),
            "model_verdict_share": np.where(turned, verdict == MODEL, np.nan),
            "undecided_share": np.where(
                turned, (verdict != LABEL) & (verdict != MODEL), np.nan
            ),
            "gold_wrong_of_reversed": np.where(turned, wrong, np.nan),
            "label_verdict_precision": np.where(turned & (verdict == LABEL), wrong, np.nan),
            "model_verdict_precision": np.where(turned & (verdict == MODEL), 1.0 - wrong, np.nan),
        },
        index=model.index,
    )  # fmt: skip


def _means(model: pd.DataFrame, columns: pd.DataFrame, params: Parameters) -> list[dict[str, Any]]:
    return _rows.mean_findings(
        NAME,
        str(model["model_id"].iloc[0]),
        columns,
        [_rows.Slice("all", np.ones(len(model), bool))],
        statistics=STATISTICS,
        clusters=pd.factorize(model["prompt_id"])[0],
        params=params,
        reasons=_rows.Reasons(lambda part: "", _missing),
    )


def _missing(name: str) -> str:
    if "precision" in name or "gold" in name:
        return "no such pair with a gold order"
    return "no training pair is reversed"


def _nothing(whole: pd.DataFrame, params: Parameters) -> list[dict[str, Any]]:
    """The headline with nothing in it, and why."""
    return [
        finding(
            NAME,
            statistic.name,
            str(whole["model_id"].iloc[0]),
            params=params,
            unit=statistic.unit,
            better=statistic.better,
            flag=NO_TRAINING,
        )
        for statistic in STATISTICS[:4]
    ]


def _estimates(model: pd.DataFrame, found: Evidence, params: Parameters) -> list[dict[str, Any]]:
    """Hölder's share of wrong labels, RE-PO's reliability of each annotator; without intervals."""
    clusters = int(model["prompt_id"].nunique())
    shared = {"params": params, "flag": "takes the model for the judge; no interval"}
    values = [("holder_mislabelled_share", "all", found.mislabelled_share, "share of labels")]
    values += [
        ("annotator_reliability", f"annotator={name or 'unknown'}", value, "share of labels right")
        for name, value in found.reliability.items()
    ]
    return [
        finding(
            NAME,
            name,
            str(model["model_id"].iloc[0]),
            slice=part,
            estimate=value,
            method="margins at their fitted scale" if value == value else "",
            n=len(model) if value == value else 0,
            n_clusters=clusters if value == value else 0,
            unit=unit,
            **shared,
        )
        for name, part, value, unit in values
    ]


def _areas(
    model: pd.DataFrame, found: Evidence, columns: pd.DataFrame, params: Parameters
) -> list[dict[str, Any]]:
    """How well each piece of evidence finds wrong labels among reversed pairs; none without gold.

    Evidence that nobody has (no votes, one model) is left out.
    """
    wrong = columns["gold_wrong_of_reversed"].to_numpy(float)
    clusters = pd.factorize(model["prompt_id"])[0]
    table = found.table.assign(
        length_difference=(model["n_tokens_chosen"] - model["n_tokens_rejected"]).to_numpy(float),
        reference_margin=(model["ref_logp_chosen"] - model["ref_logp_rejected"]).to_numpy(float),
    )
    rows = []
    for name, sign in EVIDENCE.items():
        score = sign * table[name].to_numpy(float)
        kept = ~np.isnan(wrong) & ~np.isnan(score)
        if not kept.any() or len(np.unique(score[kept])) < 2:
            continue
        area = auc(score[kept], wrong[kept] == 1.0, clusters[kept], level=params.ci_level)
        if area.n:
            rows.append(_area_row(model, f"auc_{name}", area, params))
    return rows


def _area_row(model: pd.DataFrame, name: str, area: Interval, params: Parameters) -> dict[str, Any]:
    return finding(
        NAME,
        name,
        str(model["model_id"].iloc[0]),
        params=params,
        unit="AUC for wrong labels among reversed training pairs",
        better="higher",
        flag=_rows.flags_of(area),
        **_rows.estimate_columns(area, params.ci_level),
    )


def _cases(
    model: pd.DataFrame, found: Evidence, judged: pd.DataFrame, params: Parameters
) -> list[dict[str, Any]]:
    """The reversed training pairs with their evidence, by verdict, those turned farthest first."""
    cases = []
    turned = found.table[found.table["margin"] < 0.0].sort_values("margin", kind="stable")
    for verdict in _label_evidence.VERDICTS:
        rows = turned[(judged.loc[turned.index, "verdict"] == verdict).to_numpy()]
        for pair_id, row in rows.head(params.n_cases).iterrows():
            cases.append(
                {
                    "analyzer": NAME,
                    "kind": f"verdict_{verdict}",
                    "model_id": str(model["model_id"].iloc[0]),
                    "row_key": str(pair_id),
                    "severity": float(-row["margin"]),
                    "note": f"{judged.at[pair_id, 'because']}; {_in_words(row, found)}",
                }
            )
    return cases


def _in_words(row: pd.Series, found: Evidence) -> str:
    words = [f"margin {row['margin']:+.3g}"]
    if row["vote_share"] == row["vote_share"]:
        votes = f" of {row['n_votes']:.0f}" if row["n_votes"] == row["n_votes"] else ""
        words.append(f"votes for the label {100 * row['vote_share']:.0f} %{votes}")
    if row["twins"] > 0:
        words.append(f"{row['twins']:.0f} labelled the other way round")
    if found.n_models > 1:
        words.append(
            f"reversed by {100 * row['models_reversing']:.0f} % of {found.n_models} models"
        )
    if found.n_steps:
        words.append(f"by {100 * row['steps_reversing']:.0f} % of {found.n_steps} steps")
    words.append(f"posterior of the label {row['label_right']:.2f}")
    words.append(f"Hölder weight {row['holder_weight']:.3f}")
    return ", ".join([*words, *(["outlier"] if row["is_outlier"] else [])])


def _notes(model_id: str, found: Evidence) -> list[str]:
    notes = []
    if found.table["vote_share"].isna().all():
        notes.append(
            "No votes: the columns vote_share and n_votes would speak for or against labels."
        )
    if found.n_models < 2:
        notes.append(
            f"{model_id}: one model; naming further seeds of the run tells chance from agreement."
        )
    return notes


ANALYZER = LabelOrModel
