"""Weighted sums of means of sets that share prompts: a benchmark's total over its subsets.

As ``contrast`` has it, but one prompt may stand in several sets, as AlpacaEval's do in three
subsets of RewardBench: then the sets' errors go together, and intervals that take them for
independent are too narrow. Start reading at ``shared_share_sum``.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from dpo_diag.stats.compare import Difference, no_difference
from dpo_diag.stats.contrast import Group, weighted_share_sum
from dpo_diag.stats.intervals import Interval, cluster_codes, cluster_sums, n_clusters


def shared_share_sum(groups: Sequence[Group], *, level: float = 0.95) -> Interval:
    """Sum of weights times shares, honest at 0 and 1, of sets that may share prompts.

    The limits of ``weighted_share_sum``, whose arms are widened by the square root of the design
    effect: the sum's variance with each prompt's rows of all sets taken together, over its
    variance with the sets apart; never below 1.

    Args:
        groups: the sets, values in [0, 1], clusters comparable across sets; NaN rows are left
            out, a set without a value makes the sum NaN.
        level: nominal coverage, in (0, 1).

    Returns:
        The sum with limits inside what is possible; all NaN and n = 0 where a set is empty.

    Source: Zou and Donner 2008 for the sum; Kish 1965 for the design effect.
    """
    kept = [_known(group) for group in groups]
    plain = weighted_share_sum(kept, level=level)
    if plain.n == 0:
        return plain
    factor = float(np.sqrt(max(1.0, _design_effect(kept))))
    weights = np.array([group.weight for group in kept])
    least, most = weights[weights < 0].sum(), weights[weights > 0].sum()
    return plain._replace(
        low=max(plain.estimate - factor * (plain.estimate - plain.low), float(least)),
        high=min(plain.estimate + factor * (plain.high - plain.estimate), float(most)),
        n_clusters=n_clusters(_all_codes(kept)),
        method="hybrid score, stratified, prompt-clustered across sets",
    )


def shared_sum(groups: Sequence[Group], *, level: float = 0.95) -> Difference:
    """Sum of weights times means of any values, of sets that may share prompts.

    Student's t; its degrees of freedom are the effective number of prompts by their weights, less
    one.

    Args:
        groups: the sets; as in ``shared_share_sum``.
        level: nominal coverage, in (0, 1).

    Returns:
        The sum; NaN limits with fewer than two prompts or where nothing varies.
    """
    kept = [_known(group) for group in groups]
    if not kept or any(len(group.values) == 0 for group in kept):
        return no_difference("a side is empty")
    total = float(sum(group.weight * group.values.mean() for group in kept))
    codes = _all_codes(kept)
    row = no_difference("")._replace(
        estimate=total, n=len(codes), n_clusters=n_clusters(codes), method="no spread: no interval"
    )
    variance, df = _together(kept, codes)
    if not variance > 1e-28 * max(total**2, 1e-300) or not df > 0.0:
        return row
    se = float(np.sqrt(variance))
    half = float(stats.t.isf((1.0 - level) / 2.0, df)) * se
    return row._replace(
        low=total - half,
        high=total + half,
        p_value=float(2.0 * stats.t.sf(abs(total) / se, df)),
        se=se,
        df=df,
        method="stratified t, prompt-clustered across sets",
    )


def _known(group: Group) -> Group:
    values = np.asarray(group.values, float)
    kept = ~np.isnan(values)
    return Group(group.weight, values[kept], np.asarray(group.clusters)[kept])


def _all_codes(groups: Sequence[Group]) -> np.ndarray:
    return cluster_codes(np.concatenate([np.asarray(group.clusters) for group in groups]))


def _together(groups: Sequence[Group], codes: np.ndarray) -> tuple[float, float]:
    """Variance of the sum with a prompt's rows taken together, and its degrees of freedom."""
    parts = [g.weight * (g.values - g.values.mean()) / len(g.values) for g in groups]
    totals = cluster_sums(np.concatenate(parts), codes)
    count = len(totals)
    if count < 2:
        return np.nan, 0.0
    shares = np.concatenate([np.full(len(g.values), g.weight / len(g.values)) for g in groups])
    sizes = cluster_sums(shares**2, codes)
    df = float(sizes.sum() ** 2 / np.sum(sizes**2)) - 1.0
    return float(count / (count - 1.0) * np.sum(totals**2)), df


def _design_effect(groups: Sequence[Group]) -> float:
    together, _ = _together(groups, _all_codes(groups))
    apart = 0.0
    for weight, values, clusters in groups:
        sums = cluster_sums(values - values.mean(), cluster_codes(clusters))
        if len(sums) > 1:
            apart += weight**2 * len(sums) / (len(sums) - 1.0) * np.sum(sums**2) / len(values) ** 2
    return together / apart if apart > 0.0 and np.isfinite(together) else 1.0
