"""Which training pairs pushed the reversed pairs round?

To first order a pair's margin after training is a sum of pushes, one from every training pair
(``stats/linearised_dpo``); the table PairConflicts lists the strongest of each pair. Over the pairs
that came out reversed (``margin < 0``):

* ``top_1_share``, ``top_10_share``, ``top_100_share``: part of the negative push on a pair that its
  hardest pushers carry; ``pushers_for_half``: how many make up one half. One pusher that carries
  most of it is a contradiction to look at; hundreds that carry a little each are what the whole
  data set teaches, and no single label is to blame.
* ``same_prompt_share``: part that comes from pairs of the same prompt.
* ``against_gold_share``, ``against_votes_share``: part that comes from training pairs whose label
  the gold order (the annotators) contradicts; ``..._excess``: the same less the rate of such labels
  among all training pairs. Near 0: the pushers are no worse labelled than others, so the reversal
  is a conflict between right preferences, not a matter of noise.
* ``overall_top_1_share`` and so on: part of the push on *all* reversed pairs that the training
  pairs that carry most of it carry; the curve gives it for every number of pairs.

``listed_share`` says how much of the negative push the lists hold; shares of named pairs are at
least what is shown.

Misleads: a push is a prediction of the linear theory at the reference, not a cause: leave pairs out
and train again to know (the analyzer ``removal``). A reversed pair was pushed up too, by less.
Shares are of the negative push alone; a pair may be reversed because nothing supports it. The most
blamed pairs are picked on the same data that their share is read from, so it is too high for other
pairs; it has no interval.

Source: arXiv 2510.20413 for the linear class; the shares are ours. Start reading at
``Conflicts.run``; what is computed for each pair is in ``_pushers``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _pairs, _pushers, _rows
from dpo_diag.analyzers._base import (
    Analyzer,
    AnalyzerResult,
    Figure,
    Tables,
    finding,
    findings_frame,
)
from dpo_diag.analyzers._rows import Slice, Statistic
from dpo_diag.tables import CASES, CURVES, empty

NAME = "conflicts"
BASE = (
    Statistic("training_against_gold", "share of training pairs", "lower"),
    Statistic("training_against_votes", "share of training pairs", "lower"),
)
COVERED = Statistic("covered_rate", "share of reversed pairs", "higher")
_OVERALL = "share of the negative push on all reversed pairs"
_PICKED = "picked on these pairs: no interval"
_CURVE_RANKS = 25  # points of the curve, evenly spaced in the log


@dataclass(frozen=True)
class Parameters:
    """Options of the conflict analysis.

    Attributes:
        baseline_id: model the others are compared with elsewhere; here it is one of the models.
        ci_level: nominal coverage, in (0, 1).
        gold_gap: pairs with ``gold_margin`` above it have a right label, gold reward.
        n_cases: pairs listed per kind and model.
    """

    baseline_id: str = ""
    ci_level: float = 0.95
    gold_gap: float = 0.0
    n_cases: int = 20


FIGURES = (
    Figure(
        name="push_concentration",
        kind="lines",
        curve="push_concentration",
        x_label="training pairs, those that carry most first",
        y_label="share of the push on reversed pairs",
        title="How few training pairs carry the push against the reversed pairs",
    ),
)


class Conflicts(Analyzer):
    """The pushes behind the reversed pairs; see the module."""

    question: ClassVar[str] = "Which training pairs pushed the reversed pairs round?"
    reading: ClassVar[str] = (
        "A push is what a training pair does to another pair's margin. If few pairs carry most of "
        "the push, look at them; if hundreds share it, the data as a whole teach the reversal."
    )
    misleads: ClassVar[str] = (
        "A push is predicted by the linear theory, not observed: leave the pairs out and train "
        "again to know. Pairs were pushed up as well, by less."
    )
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "ImplicitRewards": (
            *("model_id", "reference_id", "reward_def"),
            *("pair_id", "prompt_id", "margin", "split"),
        ),
        "PairConflicts": ("model_id", "pair_id", "train_pair_id", "push", "cosine", "share"),
        "PreferencePairs": ("pair_id", "prompt_id", "split"),
    }
    Parameters: ClassVar[type] = Parameters
    headline: ClassVar[tuple[str, ...]] = (
        "top_1_share",
        "top_10_share",
        "same_prompt_share",
        "against_gold_share",
        "against_gold_excess",
    )

    def run(self, tables: Tables, params: Parameters, rng: np.random.Generator) -> AnalyzerResult:
        """Findings, the curve of concentration and the cases of every model."""
        self.check(tables)
        rewards, pairs = tables["ImplicitRewards"], tables["PreferencePairs"]
        rewards = _rows.with_columns(rewards, pairs, key="pair_id", columns=["gold_margin"])
        models = sorted(rewards["model_id"].unique())
        _rows.check_baseline(NAME, models, params.baseline_id)
        facts = _pushers.label_facts(pairs)
        training = facts.loc[facts.index.isin(pairs.loc[pairs["split"] == "train", "pair_id"])]
        rows: list[dict[str, Any]] = []
        curves: list[dict[str, Any]] = []
        cases: list[dict[str, Any]] = []
        conflicts = tables["PairConflicts"]
        for model_id in models:
            model = _pairs.one_model(rewards, model_id, NAME)
            own = conflicts[conflicts["model_id"] == model_id]
            pushes = _pushers.negative_pushes(own, facts)
            turned = model[model["margin"] < 0.0].reset_index(drop=True)
            covered = turned["pair_id"].isin(own["pair_id"]).to_numpy()
            rows += _base_rates(model_id, training, params)
            rows += _pair_findings(
                model_id, turned, covered, pushes=pushes, training=training, params=params
            )
            blamed = _pushers.blame(pushes, list(turned["pair_id"]))
            rows += _overall(model_id, blamed, turned[covered], params)
            curves += _concentration(model_id, blamed, int(covered.sum()))
            cases += _pushers.pushed_cases(NAME, model, pushes, n_cases=params.n_cases)
            cases += _pushers.blamed_cases(NAME, model_id, blamed, facts, n_cases=params.n_cases)
        return AnalyzerResult(
            findings=findings_frame(rows),
            curves=pd.DataFrame(curves) if curves else empty(CURVES),
            cases=pd.DataFrame(cases) if cases else empty(CASES),
            figures=FIGURES,
        )


def _base_rates(model_id: str, training: pd.DataFrame, params: Parameters) -> list[dict[str, Any]]:
    columns = pd.DataFrame(
        {
            "training_against_gold": training["against_gold"].to_numpy(float),
            "training_against_votes": training["against_votes"].to_numpy(float),
        }
    )
    return _rows.mean_findings(
        NAME,
        model_id,
        columns,
        [Slice("all", np.ones(len(training), bool))],
        statistics=BASE,
        clusters=pd.factorize(training["prompt_id"])[0],
        params=params,
        reasons=_rows.Reasons(lambda part: "", _missing),
    )


def _pair_findings(
    model_id: str,
    turned: pd.DataFrame,
    covered: np.ndarray,
    *,
    pushes: pd.DataFrame,
    training: pd.DataFrame,
    params: Parameters,
) -> list[dict[str, Any]]:
    """Means over the reversed pairs that the table covers, by split and label."""
    base = {name: training[name].mean() for name in ("against_gold", "against_votes")}
    numbers = _pushers.pair_numbers(pushes, list(turned["pair_id"]), base).reset_index(drop=True)
    numbers[COVERED.name] = covered.astype(float)
    return _rows.mean_findings(
        NAME,
        model_id,
        numbers,
        _slices(turned, params.gold_gap),
        statistics=(COVERED, *_pushers.STATISTICS),
        clusters=pd.factorize(turned["prompt_id"])[0],
        params=params,
        reasons=_rows.Reasons(_against, _missing),
    )


def _slices(turned: pd.DataFrame, gold_gap: float) -> list[Slice]:
    is_training = (turned["split"] == "train").to_numpy()
    parts = [
        Slice("all", np.ones(len(turned), bool)),
        Slice("split=train", is_training),
        Slice("split=held-out", ~is_training),
    ]
    if "gold_margin" in turned:
        gold = pd.to_numeric(turned["gold_margin"]).to_numpy(float, na_value=np.nan)
        parts.append(Slice("label=right", gold > gold_gap))
    return parts


def _against(part: pd.DataFrame) -> str:
    flags = []
    if part[COVERED.name].mean() < 1.0:
        flags.append("reversed pairs without a list of pushes")
    if part["listed_share"].mean() < 0.99:
        flags.append(f"lists hold {100 * part['listed_share'].mean():.0f} % of the push")
    return "; ".join(flags)


def _missing(name: str) -> str:
    if "votes" in name:
        return "no votes"
    return "no gold order" if "gold" in name else "the lists are too short to tell"


def _overall(
    model_id: str, blamed: pd.DataFrame, covered: pd.DataFrame, params: Parameters
) -> list[dict[str, Any]]:
    """Share of the push on all reversed pairs that the most blamed training pairs carry."""
    rows = []
    known, held = len(blamed) > 0, float(blamed["share"].sum())
    against = "" if held > 0.99 else f"at least: lists hold {100 * held:.0f} % of the push"
    for k in _pushers.TOPS:
        rows.append(
            finding(
                NAME,
                f"overall_top_{k}_share",
                model_id,
                params=params,
                estimate=float(blamed["share"].head(k).sum()) if known else np.nan,
                method=_PICKED if known else "",
                n=len(covered) if known else 0,
                n_clusters=covered["prompt_id"].nunique() if known else 0,
                unit=_OVERALL,
                better="neither",
                flag=against if known else "no push on a reversed pair",
            )
        )
    return rows


def _concentration(model_id: str, blamed: pd.DataFrame, n: int) -> list[dict[str, Any]]:
    if not len(blamed):
        return []
    running = blamed["share"].cumsum().to_numpy(float)
    ranks = np.unique(np.geomspace(1, len(running), _CURVE_RANKS).round().astype(int))
    return [
        {
            "analyzer": NAME,
            "curve": "push_concentration",
            "model_id": model_id,
            "series": "all reversed pairs",
            "x": float(rank),
            "y": float(running[rank - 1]),
            "y_low": np.nan,
            "y_high": np.nan,
            "n": n,
        }
        for rank in ranks
    ]


ANALYZER = Conflicts
