"""How far several runs agree on the same yes-or-no items, beyond what chance would give.

Runs (training seeds) are raters, pairs are items. Start reading at ``kappa``.
"""

import numpy as np

from dpo_diag.stats.intervals import Interval, cluster_codes, cluster_sums, t_quantile
from dpo_diag.stats.ranks import logit_interval


def pairwise_agreement(answers: np.ndarray) -> np.ndarray:
    """Share of each item's pairs of raters that agree, (n,).

    Args:
        answers: (n, S) of 0 and 1, S at least 2.
    """
    answers = np.asarray(answers, float)
    raters = answers.shape[1]
    yes = answers.sum(axis=1)
    no = raters - yes
    return (yes * (yes - 1.0) + no * (no - 1.0)) / (raters * (raters - 1.0))


def kappa(answers: np.ndarray, clusters: np.ndarray, *, level: float = 0.95) -> Interval:
    """Fleiss' kappa: agreement of raters on yes or no beyond what their common rate would give.

    ``(P - E) / (1 - E)`` with P the mean pairwise agreement and ``E = p^2 + (1 - p)^2`` for the
    share p of yes. 1 is full agreement, 0 that of independent raters of one rate. The interval is
    Student's t on the clustered influences of the items. By hand: items 11, 11, 10, 00: P = 3/4,
    p = 5/8, E = 34/64, kappa = 7/15.

    Args:
        answers: (n, S) of 0 and 1, S at least 2, no NaN.
        clusters: (n,) prompt of each item.
        level: nominal coverage, in (0, 1).

    Returns:
        Kappa; NaN where every answer is the same (nothing to agree on beyond it).

    Source: Fleiss 1971, Psychological Bulletin 76, 378-382.
    """
    answers = np.asarray(answers, float)
    n = len(answers)
    row = Interval(np.nan, np.nan, np.nan, np.nan, n, 0, "nothing to estimate", False)
    if n == 0:
        return row
    own, rate = pairwise_agreement(answers), answers.mean(axis=1)
    agreed, p = float(own.mean()), float(rate.mean())
    expected = p**2 + (1.0 - p) ** 2
    groups = len(cluster_sums(own, cluster_codes(clusters)))
    row = row._replace(n_clusters=groups, method="every answer is the same: no kappa")
    if expected >= 1.0:
        return row
    estimate = (agreed - expected) / (1.0 - expected)
    row = row._replace(estimate=estimate, method="no spread: no interval")
    slope = (1.0 - agreed) / (1.0 - expected) ** 2 * (4.0 * p - 2.0)
    influence = (own - agreed) / (1.0 - expected) - slope * (rate - p)
    totals = cluster_sums(influence, cluster_codes(clusters))
    if groups < 2 or not np.any(np.abs(totals) > 1e-12):
        return row
    se = float(np.sqrt(groups / (groups - 1.0) * np.sum(totals**2)) / n)
    half = t_quantile((1.0 + level) / 2.0, groups - 1) * se
    low, high = max(estimate - half, -1.0), min(estimate + half, 1.0)
    return row._replace(low=low, high=high, se=se, method="Fleiss' kappa, prompt-clustered t")


def repeat_rate(answers: np.ndarray, clusters: np.ndarray, *, level: float = 0.95) -> Interval:
    """Chance that another rater says yes to an item that one rater says yes to.

    For yes-counts c of S raters: ``sum of c (c - 1) / (S - 1) over sum of c``. By hand: counts 2,
    2, 1, 0 of 2 give (2 + 2 + 0 + 0) / 5 = 4/5.

    Args:
        answers: (n, S) of 0 and 1, S at least 2, no NaN.
        clusters: (n,) prompt of each item.
        level: nominal coverage, in (0, 1).

    Returns:
        The share; ``n`` counts the items with any yes; NaN with n = 0 where there is none.
    """
    answers = np.asarray(answers, float)
    kept = answers.sum(axis=1) > 0.0
    yes, codes = answers[kept].sum(axis=1), cluster_codes(clusters)[kept]
    if not len(yes):
        return Interval(np.nan, np.nan, np.nan, np.nan, 0, 0, "nothing to estimate", False)
    both = yes * (yes - 1.0) / (answers.shape[1] - 1.0)
    estimate = float(both.sum() / yes.sum())
    influence = estimate + (both - estimate * yes) / yes.mean()
    return logit_interval(estimate, influence, codes, level)
