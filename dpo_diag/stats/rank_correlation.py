"""Spearman's rank correlation with an interval that knows rows of one prompt belong together."""

import numpy as np
from scipy import stats

from dpo_diag.stats.intervals import Interval, cluster_codes, cluster_sums, t_quantile


def rank_correlation(
    first: np.ndarray, second: np.ndarray, clusters: np.ndarray, *, level: float = 0.95
) -> Interval:
    """Spearman's correlation, interval by Fisher's z from the clustered variance of its influence.

    A row's influence is its product of centred ranks plus what it does to the ranks of the others
    (the projection of the U-statistic), so that ranks are not taken for given. By hand: ranks
    1 2 3 4 against 2 1 4 3 are centred -1.5 -.5 .5 1.5 and -.5 -1.5 1.5 .5: 3 / 5 = .6.

    Args:
        first: (n,) any unit; rows with NaN in either are left out.
        second: (n,) likewise.
        clusters: (n,) prompt of each row.
        level: nominal coverage, in (0, 1).

    Returns:
        A number in [-1, 1]; NaN limits at -1 and 1, with fewer than four rows or two prompts; NaN
        and n = 0 where either does not vary.

    Source: Hoeffding 1948, section 9 (Spearman's rho as a U-statistic).
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    kept = ~(np.isnan(first) | np.isnan(second))
    x, y, codes = first[kept], second[kept], cluster_codes(clusters)[kept]
    n = len(x)
    a, b = (_centred(values) for values in (x, y))
    scale = float(np.sqrt(np.mean(a**2) * np.mean(b**2))) if n else 0.0
    if scale <= 0.0:
        return Interval(np.nan, np.nan, np.nan, np.nan, 0, 0, "nothing varies", False)
    estimate = float(np.clip(np.mean(a * b) / scale, -1.0, 1.0))
    influence = (a * b + _mean_above(x, b) + _mean_above(y, a)) / scale
    totals = cluster_sums(influence - influence.mean(), codes)
    groups = len(totals)
    row = Interval(estimate, np.nan, np.nan, np.nan, n, groups, "too few: no interval", False)
    if n < 4 or groups < 2 or abs(estimate) > 1.0 - 1e-12:
        return row
    se = float(np.sqrt(groups / (groups - 1.0) * np.sum(totals**2)) / n)
    if se == 0.0:
        return row._replace(method="no spread: no interval")
    half = t_quantile((1.0 + level) / 2.0, groups - 1) * se / (1.0 - estimate**2)
    low, high = np.tanh(np.arctanh(estimate) + np.array([-half, half]))
    return row._replace(
        low=float(low), high=float(high), se=se, method="Spearman, prompt-clustered Fisher z"
    )


def _centred(values: np.ndarray) -> np.ndarray:
    """Mean ranks as shares of n, centred on 0."""
    return (stats.rankdata(values) - 0.5) / max(len(values), 1) - 0.5


def _mean_above(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """For each row the mean over all rows of ``weight * (1 above, 1/2 equal, 0 below)``, (n,)."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    total = np.r_[0.0, np.cumsum(weights[order])]
    below = np.searchsorted(ordered, values, side="left")
    upto = np.searchsorted(ordered, values, side="right")
    above = total[-1] - total[upto]
    return (above + 0.5 * (total[upto] - total[below])) / len(values)
