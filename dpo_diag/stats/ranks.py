"""Ranks: areas under the curve, clustered by prompt; correlation of ranks within groups."""

import numpy as np
from scipy import stats

from dpo_diag.stats.compare import Difference, no_difference
from dpo_diag.stats.intervals import (
    Interval,
    clopper_pearson,
    cluster_codes,
    cluster_sums,
    n_clusters,
)

_NO_SPREAD = "no spread: no interval"


def symmetric_auc(margins: np.ndarray, clusters: np.ndarray, *, level: float = 0.95) -> Interval:
    """AUC of a margin against the label when each pair's orientation is a fair coin.

    Labels of pairs are always "chosen above rejected", so there is nothing to separate until the
    answers are named at random; averaged over all namings the AUC is
    ``P(m_i + m_j > 0) + P(m_i + m_j = 0) / 2`` over two different pairs i, j. It needs no draw, is
    1/2 for margins symmetric about 0 and 1 when every margin is positive. Unlike the accuracy it
    asks whether *larger* margins are the right ones. Rewards of different prompts are never
    compared, only margins (a reward is defined up to a constant of its prompt).

    Args:
        margins: (n,) chosen minus rejected, any unit; NaN rows are left out.
        clusters: (n,) prompt of each row.
        level: nominal coverage, in (0, 1).

    Returns:
        The AUC; its interval is made on the logit scale from the clustered variance of the
        U-statistic's projection; at 0 and 1 it is Clopper and Pearson's for the disjoint couples
        of prompts, which are independent; NaN limits with fewer than two prompts.
    """
    margins = np.asarray(margins, float)
    kept = ~np.isnan(margins)
    margins, codes = margins[kept], cluster_codes(clusters)[kept]
    n = len(margins)
    if n < 2:
        return Interval(np.nan, np.nan, np.nan, np.nan, n, n, "fewer than two pairs", False)
    ordered = np.sort(margins)
    above = n - np.searchsorted(ordered, -margins, side="right")
    equal = np.searchsorted(ordered, -margins, side="right") - np.searchsorted(
        ordered, -margins, side="left"
    )
    itself = np.where(margins > 0.0, 1.0, np.where(margins == 0.0, 0.5, 0.0))
    projection = (above + 0.5 * equal - itself) / (n - 1.0)
    found = logit_interval(float(projection.mean()), 2.0 * projection, codes, level)
    couples = found.n_clusters // 2
    if 0.0 < found.estimate < 1.0 or not couples:
        return found
    low, high = clopper_pearson(found.estimate * couples, couples, level=level)
    method = "Clopper-Pearson on couples of prompts"
    return found._replace(low=float(low), high=float(high), method=method)


def auc(
    scores: np.ndarray, is_positive: np.ndarray, clusters: np.ndarray, *, level: float = 0.95
) -> Interval:
    """P(score of a positive > score of a negative), ties one half, variance clustered.

    Args:
        scores: (n,) any unit, no NaN.
        is_positive: (n,) bool.
        clusters: (n,) prompt of each row; a prompt may hold both kinds.
        level: nominal coverage, in (0, 1).

    Returns:
        The AUC with a logit-scale interval whose degrees of freedom are those of the rarer kind
        where that decides (``_area_error``); NaN limits where a kind has one prompt only, all NaN
        with n = 0 when one kind is missing.

    Source: DeLong et al. 1988; Obuchowski 1997 for clusters.
    """
    influence = auc_influence(scores, is_positive)
    if np.isnan(influence).all():
        return Interval(np.nan, np.nan, np.nan, np.nan, 0, 0, "one kind is missing", False)
    codes = cluster_codes(clusters)
    se, df = _area_error(influence, is_positive, codes)
    estimate, n = float(influence.mean()), len(influence)
    row = Interval(estimate, np.nan, np.nan, se, n, n_clusters(codes), _NO_SPREAD, False)
    return _logit_limits(row, df, level)


def auc_difference(
    first: np.ndarray,
    second: np.ndarray,
    is_positive: np.ndarray,
    clusters: np.ndarray,
    *,
    level: float = 0.95,
) -> Difference:
    """AUC of one score minus that of another on the same rows, variance clustered.

    Args:
        first: (n,) scores, no NaN.
        second: (n,) the other scores, no NaN.
        is_positive: (n,) bool.
        clusters: (n,) prompt of each row.
        level: nominal coverage, in (0, 1).

    Returns:
        The difference with Student's t over the prompts' influences; NaN limits where the two
        scores order all rows alike or a kind has one prompt only, all NaN with n = 0 when one kind
        is missing.

    Source: DeLong et al. 1988 for two correlated areas; Obuchowski 1997 for clusters.
    """
    influence = auc_influence(first, is_positive) - auc_influence(second, is_positive)
    if np.isnan(influence).all():
        return no_difference("one kind is missing")
    codes, estimate = cluster_codes(clusters), float(influence.mean())
    se, df = _area_error(influence, is_positive, codes)
    row = no_difference("")._replace(
        estimate=estimate, n=len(influence), n_clusters=n_clusters(codes), method=_NO_SPREAD
    )
    if not se > 1e-14 * max(abs(estimate), 1e-300):
        return row._replace(flag=_NO_SPREAD)
    half = float(stats.t.isf((1.0 - level) / 2.0, df)) * se
    return row._replace(
        low=max(estimate - half, -1.0),
        high=min(estimate + half, 1.0),
        p_value=float(2.0 * stats.t.sf(abs(estimate) / se, df)),
        se=se,
        df=df,
        method="paired areas, prompt-clustered t",
    )


def auc_influence(scores: np.ndarray, is_positive: np.ndarray) -> np.ndarray:
    """What each row adds to the AUC: (n,) values whose mean is the AUC and whose spread its error.

    Args:
        scores: (n,) any unit, no NaN; ties count one half.
        is_positive: (n,) bool.

    Returns:
        All NaN when one kind is missing.
    """
    scores, is_positive = np.asarray(scores, float), np.asarray(is_positive, bool)
    positive, negative = np.sort(scores[is_positive]), np.sort(scores[~is_positive])
    if not len(positive) or not len(negative):
        return np.full(len(scores), np.nan)
    other = np.where(is_positive, len(negative), len(positive))
    below, upto = np.empty(len(scores)), np.empty(len(scores))
    for kind, against in ((is_positive, negative), (~is_positive, positive)):
        below[kind] = np.searchsorted(against, scores[kind], side="left")
        upto[kind] = np.searchsorted(against, scores[kind], side="right")
    share = (below + 0.5 * (upto - below)) / other
    placement = np.where(is_positive, share, 1.0 - share)
    estimate = float(placement[is_positive].mean())
    size = np.where(is_positive, len(positive), len(negative))
    return len(scores) * (placement - estimate) / size + estimate  # its mean is the estimate


def within_group_rank_correlation(
    first: np.ndarray, second: np.ndarray, groups: np.ndarray
) -> float:
    """Spearman's correlation of two numbers within groups, pooled over the groups.

    Both are ranked within each group (ties share the mean rank), the ranks are centred there, and
    Pearson's correlation is taken of all of them; with one group it is Spearman's. Differences
    between groups do not enter. By hand: ranks 1 2 3 and 1 3 2 in one group, 2 1 and 1 2 in the
    other give products 1 and -1/2, squares 2 + 1/2 each: (1 - 1/2) / 2.5 = 0.2.

    Args:
        first: (n,) any unit, no NaN.
        second: (n,) likewise.
        groups: (n,) group of each row.

    Returns:
        In [-1, 1]; NaN where either does not vary within any group.
    """
    groups = np.asarray(groups)
    centred = np.zeros((2, len(groups)))
    for group in np.unique(groups):
        inside = groups == group
        for row, values in enumerate((first, second)):
            ranks = stats.rankdata(np.asarray(values, float)[inside])
            centred[row, inside] = ranks - ranks.mean()
    product = centred @ centred.T
    scale = np.sqrt(product[0, 0] * product[1, 1])
    return float(product[0, 1] / scale) if scale > 0.0 else float("nan")


def logit_interval(
    estimate: float, influence: np.ndarray, codes: np.ndarray, level: float
) -> Interval:
    """Interval of a share from per-row influences whose mean's clustered error is the share's.

    Args:
        estimate: in [0, 1].
        influence: (n,) first-order part of each row, whose mean has the estimate's error.
        codes: (n,) integer prompt codes.
        level: nominal coverage, in (0, 1).

    Returns:
        Limits made on the logit scale; NaN at 0 and 1, without spread or with one prompt.
    """
    n = len(influence)
    totals = cluster_sums(influence - influence.mean(), codes)
    groups = len(totals)
    row = Interval(estimate, np.nan, np.nan, np.nan, n, groups, _NO_SPREAD, False)
    if groups < 2:
        return row
    se = float(np.sqrt(groups / (groups - 1.0) * np.sum(totals**2)) / n)
    return _logit_limits(row._replace(se=se), groups - 1.0, level)


def _logit_limits(row: Interval, df: float, level: float) -> Interval:
    """Limits of a share on the logit scale from its standard error, none at 0 and 1."""
    inside = row.estimate * (1.0 - row.estimate)
    if not row.se > 0.0 or inside <= 0.0:
        return row
    half = float(stats.t.isf((1.0 - level) / 2.0, df)) * row.se / inside
    centre = np.log(row.estimate / (1.0 - row.estimate))
    low, high = 1.0 / (1.0 + np.exp(-(centre + np.array([-half, half]))))
    return row._replace(low=float(low), high=float(high), method="prompt-clustered logit t")


def _area_error(
    influence: np.ndarray, is_positive: np.ndarray, codes: np.ndarray
) -> tuple[float, float]:
    """Standard error of an area, and its degrees of freedom by Welch and Satterthwaite.

    Each kind has the small-sample factor of its own prompts, with one row per prompt DeLong's. A
    dozen positives among a thousand rows are a dozen observations: with the degrees of freedom of
    all prompts their interval would be too narrow.

    Returns:
        NaN for both where a kind has one prompt only.
    """
    is_positive = np.asarray(is_positive, bool)
    scaled, parts = influence - influence.mean(), []
    for kind in (is_positive, ~is_positive):
        sums = cluster_sums(scaled[kind], codes[kind])
        groups = len(sums)
        if groups < 2:
            return float("nan"), float("nan")
        scaled[kind] *= np.sqrt(groups / (groups - 1.0))
        parts.append((float(np.sum(sums**2)), groups - 1.0))
    se = float(np.sqrt(np.sum(cluster_sums(scaled, codes) ** 2)) / len(influence))
    spread = sum(square**2 / df for square, df in parts)
    return se, sum(square for square, _ in parts) ** 2 / spread if spread > 0.0 else 1.0
