"""Findings on the idealised ranking accuracy and the alignment gap; behind ``attainable``.

Not a plug-in. Start reading at ``idealised_findings``.
"""

from typing import Any

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _ideal, _pairs, _rows
from dpo_diag.analyzers._base import finding
from dpo_diag.analyzers._rows import Statistic
from dpo_diag.stats.compare import paired_difference

NAME = "attainable"
NO_VOTES = "no votes: the pairs need the column vote_share (share of annotators for chosen)"
VOTED = "share of pairs with votes"
FORMS = {"": "ranking_accuracy", "_per_token": "ranking_accuracy_per_token"}


def idealised_scores(model: pd.DataFrame, betas: tuple[float, ...], *, form: str) -> np.ndarray:
    """Orders of the perfect optimum at each beta, (betas, n): 1 right, 0 wrong, ties one half.

    Args:
        model: rows of ImplicitRewards with ``vote_share``; pairs without votes are NaN.
        betas: strengths.
        form: empty for summed log-probs, ``_per_token`` for means over tokens.
    """
    sides = [model[f"ref_logp_{side}"].to_numpy(float) for side in ("chosen", "rejected")]
    if form:
        sides = [
            _pairs.per_token(logp, model[f"n_tokens_{side}"].to_numpy())
            for logp, side in zip(sides, ("chosen", "rejected"), strict=True)
        ]
    share = pd.to_numeric(model["vote_share"]).to_numpy(float)
    gap = sides[1] - sides[0]
    return np.array([_pairs.order_score(_ideal.idealised_margin(gap, share, b)) for b in betas])


def idealised_findings(model: pd.DataFrame, params: Any, *, seed: int) -> list[dict[str, Any]]:
    """Idealised accuracy at each beta, its least, median and greatest, and the alignment gap."""
    rows = []
    clusters = pd.factorize(model["prompt_id"])[0]
    actual = _pairs.pair_columns(model)
    for form, own in FORMS.items():
        scores = idealised_scores(model, params.betas, form=form)
        means = np.array([np.nan if np.isnan(s).all() else np.nanmean(s) for s in scores])
        order = np.argsort(means, kind="stable")
        picks = {"min": order[0], "median": order[(len(order) - 1) // 2], "max": order[-1]}
        for name, position in picks.items():
            rows.append(
                _ideal_row(
                    model,
                    f"idealised_accuracy{form}_{name}",
                    scores[position],
                    clusters,
                    params=params,
                    flag=f"at beta {params.betas[position]:g}, picked of {len(means)}",
                )
            )
        for beta, score in zip(params.betas, scores, strict=True):
            row = _ideal_row(
                model, f"idealised_accuracy{form}", score, clusters, params=params, flag=""
            )
            rows.append({**row, "slice": f"beta={beta:g}"})
        score = scores[picks["median"]]
        rows.append(
            _gap_row(model, form, score, actual[own].to_numpy(float), params=params, seed=seed)
        )
    return rows


def _ideal_row(
    model: pd.DataFrame,
    name: str,
    score: np.ndarray,
    clusters: np.ndarray,
    *,
    params: Any,
    flag: str,
) -> dict[str, Any]:
    is_picked = bool(flag)  # of several betas, by these pairs
    statistic = Statistic(name, VOTED, "neither", is_joint=is_picked)
    interval = _rows.interval_of(statistic, score, clusters, params.ci_level)
    reason = flag if interval.n else _no_ideal(model)
    return finding(
        NAME,
        name,
        str(model["model_id"].iloc[0]),
        params=params,
        unit=VOTED,
        flag=_rows.flags_of(interval, reason),
        **_rows.estimate_columns(interval, params.ci_level),
    )


def _no_ideal(model: pd.DataFrame) -> str:
    return "no reference" if model["ref_logp_chosen"].isna().all() else NO_VOTES


def _gap_row(
    model: pd.DataFrame,
    form: str,
    ideal: np.ndarray,
    actual: np.ndarray,
    *,
    params: Any,
    seed: int,
) -> dict[str, Any]:
    """Idealised minus actual accuracy on the pairs that have votes, paired."""
    clusters = pd.factorize(model["prompt_id"])[0]
    rng = np.random.default_rng(seed)
    difference = paired_difference(ideal, actual, clusters, level=params.ci_level, rng=rng)
    return finding(
        NAME,
        f"alignment_gap{form}",
        str(model["model_id"].iloc[0]),
        params=params,
        estimate=difference.estimate,
        ci_low=difference.low,
        ci_high=difference.high,
        ci_level=params.ci_level,
        method=difference.method,
        is_guarantee=difference.is_guarantee,
        n=difference.n,
        n_clusters=difference.n_clusters,
        unit="difference in share of pairs with votes, idealised minus actual",
        better="lower",
        flag=difference.flag if difference.n else _no_ideal(model),
    )
