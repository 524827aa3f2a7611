"""Weighted sums of means of sets of rows: a drop between two sets, a post-stratified drop.

Sets are independent, or may share prompts (``shared``): then equal codes are one prompt, and what a
prompt adds to one set and takes from another cancels. Start reading at ``Group``;
``weighted_share_sum`` is for shares, ``weighted_sum`` for any values, ``share_sum_against_zero``
has a test against 0 that its interval agrees with.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from dpo_diag.stats.compare import Difference, no_difference
from dpo_diag.stats.intervals import (
    Interval,
    cluster_codes,
    cluster_sums,
    clustered_proportion,
    effective_size,
    wilson,
)

_LEAST_P, _MOST_P = 1e-12, 0.9999  # where the inversion stops; above it a p-value is 1


class Group(NamedTuple):
    """One set of rows in a weighted sum of means: weight, (n,) values, (n,) prompts."""

    weight: float
    values: np.ndarray
    clusters: np.ndarray


class _Share(NamedTuple):
    """What the hybrid score interval needs of one group."""

    weight: float
    estimate: float
    se: float
    n: int
    n_clusters: int


def weighted_sum(groups: list[Group], *, level: float = 0.95, shared: bool = False) -> Difference:
    """Sum of weights times group means, each clustered by prompt.

    A difference of two sets is the weights +1 and -1; a post-stratified one has a group for every
    stratum and side. Degrees of freedom by Welch and Satterthwaite.

    Args:
        groups: the sets; a set without a finite value makes the sum NaN.
        level: nominal coverage, in (0, 1).
        shared: equal codes in two groups are one prompt; else the groups are independent.

    Returns:
        The sum; NaN limits when a group has fewer than two prompts or nothing varies.
    """
    total, variance, spread, n, n_groups = 0.0, 0.0, 0.0, 0, 0
    if not groups:
        return no_difference("nothing to add up")
    for weight, values, clusters in groups:
        values = np.asarray(values, float)
        kept = ~np.isnan(values)
        values, codes = values[kept], cluster_codes(clusters)[kept]
        if len(values) == 0:
            return no_difference("a side is empty")
        deviations = cluster_sums(values - values.mean(), codes)
        count = len(deviations)
        n, n_groups = n + len(values), n_groups + count
        total += weight * float(values.mean())
        part = (
            weight**2 * count / (count - 1.0) * np.sum(deviations**2) / len(values) ** 2
            if count > 1
            else np.nan
        )
        variance += part
        spread += part**2 / (count - 1.0) if count > 1 else np.nan
    row = no_difference("")._replace(estimate=total, n=n, n_clusters=n_groups)
    if not variance > 0.0:
        return row._replace(method="no spread: no interval")
    df = float(variance**2 / spread)
    se = float(np.sqrt(variance)) * (_joint_ratio(groups) if shared else 1.0)
    if not se > 0.0:
        return row._replace(method="no spread: no interval")
    half = float(stats.t.isf((1.0 - level) / 2.0, df)) * se
    return row._replace(
        low=total - half,
        high=total + half,
        p_value=float(2.0 * stats.t.sf(abs(total) / se, df)),
        se=se,
        df=df,
        method="prompt-clustered Welch t",
    )


def weighted_share_sum(
    groups: list[Group], *, level: float = 0.95, shared: bool = False
) -> Interval:
    """Sum of weights times shares, honest where a share is 0 or 1.

    Each group's Wilson limits at its effective number of rows are carried through the sum by the
    square-root rule (Newcombe's hybrid score interval for a plain difference): the lower limit is
    ``d - sqrt(sum of (w_i * (p_i - l_i))^2)``, with the upper limit of a group of negative weight.
    Where groups share prompts, both arms are scaled by what that does to the standard error.

    Args:
        groups: the sets, values in [0, 1]; a set without a finite value makes the sum NaN.
        level: nominal coverage, in (0, 1).
        shared: as in ``weighted_sum``.

    Returns:
        The sum; all NaN and n = 0 when a set is empty.

    Source: Newcombe 1998, method 10; Zou and Donner 2008 for several terms.
    """
    parts = [_share(*group, level=level) for group in groups]
    if not parts or any(part.n == 0 for part in parts):
        return Interval(np.nan, np.nan, np.nan, np.nan, 0, 0, "a side is empty", False)
    ratio = _joint_ratio(groups) if shared else 1.0
    down, up = _arms(parts, level)
    total = sum(part.weight * part.estimate for part in parts)
    return Interval(
        estimate=total,
        low=total - ratio * down,
        high=total + ratio * up,
        se=np.nan,
        n=sum(part.n for part in parts),
        n_clusters=sum(part.n_clusters for part in parts),
        method="hybrid score, prompt-clustered",
        is_guarantee=False,
    )


def share_sum_against_zero(
    groups: list[Group], *, level: float = 0.95, shared: bool = False
) -> Difference:
    """``weighted_share_sum`` with a two-sided p-value against 0 by inverting its interval.

    The p-value is 1 minus the level at which the interval just touches 0, so that the test at
    ``1 - level`` and the interval never disagree. Standard error and degrees of freedom, for the
    detectable difference, are those of ``weighted_sum``.

    Args:
        groups: the sets, values in [0, 1].
        level: nominal coverage, in (0, 1).
        shared: as in ``weighted_sum``.
    """
    interval = weighted_share_sum(groups, level=level, shared=shared)
    if interval.n == 0:
        return no_difference("a side is empty")
    smooth = weighted_sum(groups, level=level, shared=shared)
    parts = [_share(*group, level=level) for group in groups]
    ratio = _joint_ratio(groups) if shared else 1.0
    side = 0 if interval.estimate > 0.0 else 1

    def beyond(tail: float) -> float:
        return abs(interval.estimate) - ratio * _arms(parts, 1.0 - tail)[side]

    p_value = 1.0
    if beyond(_LEAST_P) > 0.0:
        p_value = _LEAST_P
    elif beyond(_MOST_P) > 0.0:
        p_value = float(optimize.brentq(beyond, _LEAST_P, _MOST_P, xtol=1e-9))
    return smooth._replace(
        estimate=interval.estimate,
        low=interval.low,
        high=interval.high,
        p_value=p_value,
        n=interval.n,
        n_clusters=interval.n_clusters,
        method="hybrid score, prompt-clustered; p by inversion",
    )


def _share(weight: float, values: np.ndarray, clusters: np.ndarray, *, level: float) -> _Share:
    own = clustered_proportion(values, clusters, level=level)
    return _Share(weight, own.estimate, own.se, own.n, own.n_clusters)


def _arms(parts: list[_Share], level: float) -> tuple[float, float]:
    """Distance of the lower and of the upper limit from the sum."""
    down, up = 0.0, 0.0
    for weight, share, se, n, groups in parts:
        size = effective_size(share, se, n=n, groups=groups, level=level)
        low, high = wilson(share * size, size, level=level)
        arms = weight * (share - low), weight * (high - share)
        lower, upper = arms if weight >= 0.0 else (-arms[1], -arms[0])
        down, up = down + lower**2, up + upper**2
    return float(np.sqrt(down)), float(np.sqrt(up))


def _joint_ratio(groups: list[Group]) -> float:
    """Standard error with shared prompts over the one as if independent; 1 where nothing varies."""
    apart, effects, clusters = 0.0, [], []
    for weight, values, codes in groups:
        values = np.asarray(values, float)
        kept = ~np.isnan(values)
        own, members = values[kept], np.asarray(codes)[kept]
        count = len(cluster_sums(own, members))
        if count < 2:
            continue
        scale = weight * np.sqrt(count / (count - 1.0)) / len(own)
        effects.append(scale * (own - own.mean()))
        clusters.append(members)
        apart += float(np.sum(cluster_sums(effects[-1], members) ** 2))
    if not apart > 0.0:
        return 1.0
    joint = cluster_sums(np.concatenate(effects), np.concatenate(clusters))
    return float(np.sqrt(np.sum(joint**2) / apart))
