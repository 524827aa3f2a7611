"""A judge's own error carried into the accuracy of what it judged.

A model's order of two answers was compared with a judge's; of some pairs the true order is known
too. Two corrections: Rogan and Gladen's, which solves for the accuracy from the judge's error rates
(it holds where the judge errs independently of the model, given the truth), and prediction-powered
inference, which only needs the validated pairs to be drawn at random from all. Both carry both
uncertainties: that of the agreement and that of the judge's error. Start reading at
``prediction_powered`` and ``rogan_gladen``.
"""

from typing import NamedTuple

import numpy as np

from dpo_diag.stats.contrast import Group
from dpo_diag.stats.intervals import (
    Interval,
    clustered_mean,
    clustered_proportion,
    n_clusters,
    t_quantile,
)
from dpo_diag.stats.stratified import shared_sum

FEW_VALIDATED = 10  # of either order: below it one error rate serves both; of either outcome


class JudgeRates(NamedTuple):
    """How often a judge is right, from validated pairs.

    Attributes:
        right_first, n_first: pairs whose first answer is truly better, and those of them that the
            judge got right (its sensitivity).
        right_second, n_second: likewise for the second answer (its specificity).
    """

    right_first: float
    n_first: float
    right_second: float
    n_second: float

    @property
    def is_symmetric(self) -> bool:
        """Whether one error rate is taken for both orders, for want of validated pairs."""
        return min(self.n_first, self.n_second) < FEW_VALIDATED

    def rates(self) -> tuple[float, float]:
        """Sensitivity and specificity, shares in [0, 1]; NaN without validated pairs."""
        if self.is_symmetric:
            n = self.n_first + self.n_second
            both = (self.right_first + self.right_second) / n if n else np.nan
            return both, both
        return self.right_first / self.n_first, self.right_second / self.n_second


def judge_rates(judged_first: np.ndarray, gold_first: np.ndarray) -> JudgeRates:
    """Counts of a judge's right verdicts by which answer is truly better.

    Args:
        judged_first: (n,) bool, the judge takes the first answer.
        gold_first: (n,) 1 where the first answer is truly better, 0 where the second is, NaN
            where it is not known.
    """
    judged = np.asarray(judged_first, bool)
    gold = np.asarray(gold_first, float)
    first, second = gold == 1.0, gold == 0.0
    return JudgeRates(
        float((judged & first).sum()),
        float(first.sum()),
        float((~judged & second).sum()),
        float(second.sum()),
    )


def rogan_gladen(
    agrees: np.ndarray,
    judged_first: np.ndarray,
    clusters: np.ndarray,
    *,
    rates: JudgeRates,
    level: float = 0.95,
) -> Interval:
    """Accuracy against the truth from agreement with a judge of known error.

    With sensitivity ``s``, specificity ``t`` and the agreement ``g`` of a pair: the mean of
    ``(g t - (1 - g)(1 - s)) / (s + t - 1)`` where the judge takes the first answer, of
    ``(g s - (1 - g)(1 - t)) / (s + t - 1)`` where it takes the second. With one error rate ``e``
    that is ``(a - e) / (1 - 2 e)`` of the agreement ``a``. The interval is the delta method's, the
    error rates' variance from counts with one success and one failure added, so that a judge that
    was always right on few pairs is not held for certain.

    Misleads where judge and model err together (both like the longer answer): then it is too high.

    Args:
        agrees: (n,) 1 where the model orders a pair as the judge, 0 where not, ties one half.
        judged_first: (n,) bool, the judge takes the first answer.
        clusters: (n,) prompt of each pair.
        rates: of the judge, from validated pairs.
        level: nominal coverage, in (0, 1).

    Returns:
        The accuracy, cut to [0, 1]; NaN with n = 0 where the judge is not better than chance on
        the validated pairs or there are none.

    Source: Rogan and Gladen 1978 for one rate; the two-way form solves the 2x2 mixing by hand.
    """
    g, j = np.asarray(agrees, float), np.asarray(judged_first, bool)
    kept = ~np.isnan(g)
    g, j, codes = g[kept], j[kept], np.asarray(clusters)[kept]
    s, t = rates.rates()
    determinant = s + t - 1.0
    if not len(g) or not determinant > 0.0:
        return _nothing("the judge is not better than chance" if len(g) else "nothing to estimate")
    numerator = np.where(j, g * t - (1.0 - g) * (1.0 - s), g * s - (1.0 - g) * (1.0 - t))
    own = clustered_mean(numerator / determinant, codes, level=level)
    by_s = (np.where(j, 1.0 - g, g) - numerator / determinant).mean() / determinant
    by_t = (np.where(j, g, 1.0 - g) - numerator / determinant).mean() / determinant
    variance = (0.0 if np.isnan(own.se) else own.se**2) + _rates_variance(rates, by_s, by_t)
    df = max(min(own.n_clusters, rates.n_first + rates.n_second) - 1.0, 1.0)
    se = float(np.sqrt(variance))
    half = t_quantile((1.0 + level) / 2.0, df) * se
    how = "one error rate" if rates.is_symmetric else "sensitivity and specificity"
    return Interval(
        float(np.clip(own.estimate, 0.0, 1.0)),
        float(np.clip(own.estimate - half, 0.0, 1.0)),
        float(np.clip(own.estimate + half, 0.0, 1.0)),
        se,
        own.n,
        own.n_clusters,
        f"Rogan-Gladen, {how}, delta method, prompt-clustered",
        False,
    )


def prediction_powered(
    agrees: np.ndarray, validated: np.ndarray, clusters: np.ndarray, *, level: float = 0.95
) -> Interval:
    """Accuracy against the truth from all pairs' agreement with a judge and some pairs' truth.

    ``mean(z) + k (mean(g of the others) - mean(g))``, the first and last mean over the validated
    pairs: ``z`` is agreement with the truth, ``g`` with the judge, and ``k`` in [0, 1] the weight
    that makes the variance least (0 where the judge says nothing about the truth). No assumption
    on how the judge errs; the validated pairs must be a random part of all. Where fewer than
    ``FEW_VALIDATED`` of these are right, or wrong, the normal limits are too narrow, or none: the
    interval then reaches as far as the exact one of the validated pairs alone does.

    Args:
        agrees: (n,) agreement with the judge: 1, 0, or one half.
        validated: (n,) agreement with the truth where it is known, NaN elsewhere.
        clusters: (n,) prompt of each pair.
        level: nominal coverage, in (0, 1).

    Returns:
        The accuracy, cut to [0, 1]; ``n`` counts all pairs used; NaN with n = 0 where no pair is
        validated.

    Source: Angelopoulos et al. 2301.09633, the weight from 2311.01453 (PPI++).
    """
    g, z = np.asarray(agrees, float), np.asarray(validated, float)
    clusters = np.asarray(clusters)
    known, other = ~np.isnan(z) & ~np.isnan(g), np.isnan(z) & ~np.isnan(g)
    if not known.any():
        return _nothing("no validated pair")
    weight = _weight(z[known], g[known], g[other])
    groups = [Group(1.0, z[known] - weight * g[known], clusters[known])]
    if weight > 0.0:
        groups.append(Group(weight, g[other], clusters[other]))
    found = shared_sum(groups, level=level)
    low, high, few = found.low, found.high, ""
    right = float(np.sum(z[known]))
    if min(right, known.sum() - right) < FEW_VALIDATED:
        alone = clustered_proportion(z[known], clusters[known], level=level)
        low, high = float(np.fmin(low, alone.low)), float(np.fmax(high, alone.high))
        few = ", limits at least those of the validated pairs alone"
    used = known | (other & (weight > 0.0))
    return Interval(
        float(np.clip(found.estimate, 0.0, 1.0)),
        float(np.clip(low, 0.0, 1.0)),
        float(np.clip(high, 0.0, 1.0)),
        found.se,
        int(used.sum()),
        n_clusters(clusters[used]),
        f"prediction-powered (weight {weight:.2f}), prompt-clustered{few}",
        False,
    )


def _weight(z: np.ndarray, g: np.ndarray, others: np.ndarray) -> float:
    """The weight of the judge that makes the variance least."""
    if len(z) < 2 or len(others) < 2:
        return 0.0
    spread = np.concatenate([g, others]).var()
    if not spread > 0.0:
        return 0.0
    covariance = float(np.mean((z - z.mean()) * (g - g.mean())))
    return float(np.clip(covariance / ((1.0 + len(z) / len(others)) * spread), 0.0, 1.0))


def _rates_variance(rates: JudgeRates, by_s: float, by_t: float) -> float:
    """What the error rates add to the variance."""
    if rates.is_symmetric:
        n = rates.n_first + rates.n_second
        return (by_s + by_t) ** 2 * _binomial(rates.right_first + rates.right_second, n)
    first = by_s**2 * _binomial(rates.right_first, rates.n_first)
    return first + by_t**2 * _binomial(rates.right_second, rates.n_second)


def _binomial(k: float, n: float) -> float:
    p = (k + 1.0) / (n + 2.0)
    return p * (1.0 - p) / n


def _nothing(method: str) -> Interval:
    return Interval(np.nan, np.nan, np.nan, np.nan, 0, 0, method, False)
