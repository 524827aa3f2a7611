"""What was lost since a step that was chosen by the same numbers: honest about the choice.

The best of many steps looks better than it is (winner's curse). ``cross_fitted`` chooses on one
half of the prompts and measures on the other; ``simultaneous_band`` holds for all steps at once, so
for whichever is chosen. Start reading there.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

from dpo_diag.stats.compare import Difference, paired_difference
from dpo_diag.stats.intervals import cluster_codes, cluster_sums

N_DRAWS = 20_000
# Each half chooses for the other, so their errors are correlated: by at most 1 / pi, reached by two
# steps that are equally good (E[max(Z, 0)]^2 over Var[Z] / 2); less with more steps.
WIDER = float(np.sqrt(1.0 + 1.0 / np.pi))


class CrossFit(NamedTuple):
    """Which column each half of the prompts chose, and each row's chosen column by the other half.

    ``chosen`` is (2,); ``of_row`` is (n,): the choice made without the row's own prompt.
    """

    chosen: tuple[int, int]
    of_row: np.ndarray


def cross_fit(scores: np.ndarray, clusters: np.ndarray, *, rng: np.random.Generator) -> CrossFit:
    """The best column by each half of the prompts, for the rows of the other half.

    Args:
        scores: (n, S) with S at least 1, higher better; NaN entries are left out of the means.
        clusters: (n,) integer prompt codes, in an order that does not depend on the rows' order.
        rng: splits the prompts.

    Returns:
        The choices; of equal columns the last.

    Raises:
        ValueError: fewer than two prompts, so that there are no halves.
    """
    codes = np.unique(clusters, return_inverse=True)[1]
    n_prompts = int(codes.max()) + 1 if len(codes) else 0
    if n_prompts < 2:
        raise ValueError(f"{n_prompts} prompts cannot be split into halves.")
    half = np.zeros(n_prompts, int)
    half[rng.permutation(n_prompts)[: n_prompts // 2]] = 1
    chosen = tuple(best_column(scores[half[codes] == side]) for side in (0, 1))
    return CrossFit(chosen, np.array(chosen)[1 - half[codes]])


def best_column(scores: np.ndarray) -> int:
    """The column of the largest mean, the last of equal ones; NaN entries are left out."""
    known = ~np.isnan(scores)
    sums = np.where(known, scores, 0.0).sum(axis=0)
    means = sums / np.maximum(known.sum(axis=0), 1)
    means = np.where(known.any(axis=0), means, -np.inf)
    return int(np.flatnonzero(means >= means.max() - 1e-12)[-1])


def since_chosen(
    values: np.ndarray,
    choice: CrossFit,
    clusters: np.ndarray,
    *,
    level: float = 0.95,
    rng: np.random.Generator,
) -> Difference:
    """Last column minus the chosen one, each row by the choice that its prompt had no part in.

    Unbiased for the mean loss since the two halves' choices, so a step that was best by luck shows
    no loss. Interval and p-value allow for the halves' errors being correlated (``WIDER``), which
    makes them conservative where the choice is clear. Misleads with few prompts, where halves
    choose worse steps than the whole would.

    Args:
        values: (n, S) of any statistic; the last column is the end.
        choice: from ``cross_fit``, of the same rows.
        clusters: (n,) integer prompt codes.
        level: nominal coverage, in (0, 1).
        rng: of the permutation check.

    Source: the sample-splitting argument of Cox 1975, Biometrika 62, 441-444.
    """
    rows = np.arange(len(values))
    difference = paired_difference(
        values[:, -1], values[rows, choice.of_row], clusters, level=level, rng=rng
    )
    z = -special.ndtri(difference.p_value / 2.0) / WIDER
    return difference._replace(
        low=difference.estimate - WIDER * (difference.estimate - difference.low),
        high=difference.estimate + WIDER * (difference.high - difference.estimate),
        p_value=float(2.0 * special.ndtr(-z)),
        se=WIDER * difference.se,
        method=f"cross-fitted choice of the step; {difference.method}",
        is_guarantee=False,
    )


class Band(NamedTuple):
    """Means of columns with limits that hold for all at once, each (S,); NaN where none vary."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray


def simultaneous_band(
    values: np.ndarray, clusters: np.ndarray, *, level: float = 0.95, rng: np.random.Generator
) -> Band:
    """Means of columns with limits that cover all of them at once with the level's chance.

    ``mean +- c * se``, prompt-clustered errors, c the quantile of the largest of S correlated
    Student t variables (their correlation estimated, the quantile drawn): narrower than Bonferroni
    because neighbouring steps agree.

    Args:
        values: (n, S), no NaN.
        clusters: (n,) integer prompt codes.
        level: nominal coverage, in (0, 1).
        rng: draws the quantile.

    Source: Hothorn, Bretz and Westfall 2008, Biometrical Journal 50, 346-363 (max-t).
    """
    values = np.asarray(values, float)
    n, columns = values.shape
    nothing = np.full(columns, np.nan)
    if n == 0:
        return Band(nothing, nothing, nothing)
    codes, means = cluster_codes(clusters), values.mean(axis=0)
    totals = np.stack(
        [cluster_sums(values[:, s] - means[s], codes) for s in range(columns)], axis=1
    )
    groups = len(totals)
    se = np.sqrt(groups / max(groups - 1.0, 1.0) * np.sum(totals**2, axis=0)) / n
    varies = se > 1e-14
    if groups < 2 or not varies.any():
        return Band(means, nothing, nothing)
    scaled = totals[:, varies] / np.linalg.norm(totals[:, varies], axis=0)
    sizes, axes = np.linalg.eigh(scaled.T @ scaled)  # singular where two steps are one model
    root = np.sqrt(np.maximum(sizes, 0.0))[:, None] * axes.T
    draws = rng.standard_normal((N_DRAWS, len(sizes))) @ root
    spread = np.sqrt(rng.chisquare(groups - 1, N_DRAWS) / (groups - 1))
    half = np.quantile(np.abs(draws).max(axis=1) / spread, level) * np.where(varies, se, np.nan)
    return Band(means, means - half, means + half)
