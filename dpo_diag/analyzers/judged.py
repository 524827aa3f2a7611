"""How often does the implicit reward order answers right, where only a judge labelled them?

Pairs that a judge labelled (``judge`` in PreferencePairs). ``reward_judge_agreement`` is the share
of pairs that the reward orders as the judge did: agreement, not accuracy, and with no validated
pairs that is all there is. Where some pairs have a true label too (``gold_label``: ``chosen`` if
the judge was right, ``rejected`` if not): ``reward_accuracy_corrected`` (prediction-powered, needs
only that the validated pairs are a random part), ``reward_accuracy_rogan_gladen`` (solves for the
accuracy from the judge's error rates; right where judge and reward err independently),
``reward_accuracy_validated`` (those pairs alone) and ``judge_accuracy``. Both corrections carry the
judge's own uncertainty in their intervals. From JudgedPairs: ``judge_undecided_rate`` (abstained,
or another verdict in the other order, or a tie) and ``judge_order_agreement``.

Misleads: pairs that the judge did not decide are not in any accuracy, and they are the hard ones;
answers sampled from the policy are closer calls than other sets' pairs. The gap between the two
corrections is a sign that judge and reward err together.

Source: Rogan and Gladen 1978; Angelopoulos et al. 2301.09633. Start reading at ``Judged.run``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _compare, _pairs, _rows
from dpo_diag.analyzers._base import (
    Analyzer,
    AnalyzerResult,
    Figure,
    Tables,
    finding,
    findings_frame,
)
from dpo_diag.analyzers._rows import Statistic
from dpo_diag.stats.intervals import Interval, clustered_proportion
from dpo_diag.stats.judge_error import judge_rates, prediction_powered, rogan_gladen

NAME = "judged"
AGREEMENT = Statistic("reward_judge_agreement", "share of pairs the judge decided", "higher")
_SHARE = "share of pairs the judge decided"
_CANDIDATES = "share of pairs of different answers"
UNDECIDED = ("abstained", "wavered", "tied")
COLUMNS = ("judge", "is_first_chosen", "gold_label")


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
        name="judged_accuracy",
        kind="intervals",
        curve="reward_judge_agreement|reward_accuracy_corrected|reward_accuracy_rogan_gladen",
        x_label="share of pairs ordered as the judge, or right after correction",
        y_label="estimate",
        title="Agreement with the judge and accuracy after its error",
    ),
)


class Judged(Analyzer):
    """Reward accuracy on pairs that a judge labelled; see the module."""

    question: ClassVar[str] = (
        "How often is the reward right, where only a judge labelled the pairs?"
    )
    reading: ClassVar[str] = (
        "Agreement with the judge is not accuracy; the corrected accuracy is, and its interval "
        "holds the judge's own error."
    )
    misleads: ClassVar[str] = (
        "What the judge did not decide is in no accuracy; without validated pairs nothing is known "
        "of its error."
    )
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"ImplicitRewards": _pairs.PAIR_COLUMNS}
    Parameters: ClassVar[type] = Parameters
    reads_shifts: ClassVar[bool] = True
    headline: ClassVar[tuple[str, ...]] = ("reward_judge_agreement", "reward_accuracy_corrected")

    def run(self, tables: Tables, params: Parameters, rng: np.random.Generator) -> AnalyzerResult:
        """Agreement, corrected accuracy and the judge's own numbers for every model."""
        self.check(tables)
        seed = int(rng.integers(2**63))
        frame = _with_judge(tables["ImplicitRewards"], tables.get("PreferencePairs"))
        models = sorted(frame["model_id"].unique())
        _rows.check_baseline(NAME, models, params.baseline_id)
        rows: list[dict[str, Any]] = []
        scored = {}
        for model_id in models:
            model = _pairs.one_model(frame, model_id, NAME)
            model = model[model["judge"] != ""].reset_index(drop=True)
            agrees = _pairs.order_score(model["margin"].to_numpy(float))
            scored[model_id] = model.assign(reward_judge_agreement=agrees).set_index("pair_id")
            for part in _parts(model):
                rows += _model_findings(
                    model_id, model[part.mask], agrees[part.mask], params=params, label=part.label
                )
            rows += _judge_findings(model_id, tables.get("JudgedPairs"), params)
        family = _compare.paired_family(NAME, (AGREEMENT,), scored, params=params, seed=seed)
        rows += _compare.judge(family, params.ci_level)
        return AnalyzerResult(
            findings=findings_frame(rows), figures=FIGURES, notes=tuple(_notes(frame))
        )


def _with_judge(rewards: pd.DataFrame, pairs: pd.DataFrame | None) -> pd.DataFrame:
    """Implicit rewards with the judge's columns, empty where the pairs do not have them."""
    frame = _rows.with_columns(rewards, pairs, key="pair_id", columns=COLUMNS)
    for name in COLUMNS:
        frame[name] = _rows.as_text(frame[name]) if name in frame.columns else ""
    return frame


def _parts(model: pd.DataFrame) -> list[_rows.Slice]:
    """All pairs, and those of each domain where there are several."""
    domain = model["domain"].to_numpy()
    names = sorted(set(domain)) if len(set(domain)) > 1 else []
    whole = _rows.Slice("all", np.ones(len(model), bool))
    return [whole, *(_rows.Slice(f"domain={name}", domain == name) for name in names)]


def _model_findings(
    model_id: str, model: pd.DataFrame, agrees: np.ndarray, *, params: Parameters, label: str
) -> list[dict[str, Any]]:
    """The five numbers of a model; NaN with the reason where there is nothing to go by."""
    clusters = pd.factorize(model["prompt_id"])[0]
    level, is_first = params.ci_level, (model["is_first_chosen"] == "true").to_numpy()
    gold = model["gold_label"].map({"chosen": 1.0, "rejected": 0.0}).to_numpy(float)
    right = np.where(gold == 1.0, agrees, np.where(gold == 0.0, 1.0 - agrees, np.nan))
    gold_first = np.where(is_first, gold, 1.0 - gold)
    rates = judge_rates(is_first, gold_first)
    found = {
        "reward_judge_agreement": clustered_proportion(agrees, clusters, level=level),
        "reward_accuracy_corrected": prediction_powered(agrees, right, clusters, level=level),
        "reward_accuracy_rogan_gladen": rogan_gladen(
            agrees, is_first, clusters, rates=rates, level=level
        ),
        "reward_accuracy_validated": clustered_proportion(right, clusters, level=level),
        "judge_accuracy": clustered_proportion(gold, clusters, level=level),
    }
    n_gold = int((~np.isnan(gold)).sum())
    rows = []
    for name, interval in found.items():
        reason = "" if len(model) else "no pair names a judge"
        if len(model) and name != AGREEMENT.name and not n_gold:
            reason = "no validated pairs: agreement with the judge is all that is known"
        elif len(model) and name == AGREEMENT.name:
            reason = "agreement with the judge, not accuracy"
        elif interval.n == 0:
            reason = reason or interval.method
        elif n_gold < 30:
            reason = f"{n_gold} validated pairs"
        unit = _SHARE if "validated" not in name and name != "judge_accuracy" else (
            "share of validated pairs"
        )  # fmt: skip
        rows.append(_row(model_id, name, unit, interval, params=params, reason=reason, label=label))
    return rows


def _judge_findings(
    model_id: str, judged: pd.DataFrame | None, params: Parameters
) -> list[dict[str, Any]]:
    """What the judge left open, of all pairs of different answers."""
    if judged is None:
        return []
    asked = judged[~judged["state"].isin(["identical", "empty"])]
    clusters = pd.factorize(asked["prompt_id"])[0]
    values = {
        "judge_undecided_rate": asked["state"].isin(UNDECIDED).to_numpy(float),
        "judge_order_agreement": asked["order_agreement"].to_numpy(float),
    }
    rows = []
    for name, column in values.items():
        interval = clustered_proportion(column, clusters, level=params.ci_level)
        direction = "lower" if name == "judge_undecided_rate" else "higher"
        no_order = name == "judge_order_agreement" and len(asked) and not interval.n
        reason = "no judge was asked in both orders" if no_order else ""
        rows.append(
            _row(
                *(model_id, name, _CANDIDATES, interval),
                params=params,
                reason=reason,
                better=direction,
            )
        )
    return rows


def _row(
    model_id: str,
    name: str,
    unit: str,
    interval: Interval,
    *,
    params: Parameters,
    reason: str = "",
    better: str = "higher",
    label: str = "all",
) -> dict[str, Any]:
    return finding(
        NAME,
        name,
        model_id,
        params=params,
        slice=label,
        unit=unit,
        better=better,
        flag=_rows.flags_of(interval, reason),
        **_rows.estimate_columns(interval, params.ci_level),
    )


def _notes(frame: pd.DataFrame) -> list[str]:
    judges = sorted(set(frame["judge"]) - {""})
    if not judges:
        return ["The pairs name no judge."]
    notes = [f"The labels are those of {', '.join(judges)}."]
    if not frame["gold_label"].isin(["chosen", "rejected"]).any():
        notes.append(
            "No pair is validated, so these numbers are agreement with the judge, not accuracy: "
            "label a random part of the pairs and give it as --validated."
        )
    return notes


ANALYZER = Judged
