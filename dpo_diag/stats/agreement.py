"""Agreement of several annotators, chance taken out, with an interval by prompt.

Knows arrays only. Start reading at ``krippendorff_alpha``.
"""

import numpy as np

from dpo_diag.stats.intervals import Interval, cluster_codes, t_quantile


def krippendorff_alpha(votes: np.ndarray, clusters: np.ndarray, *, level: float = 0.95) -> Interval:
    """Krippendorff's alpha for categories, any number of votes per unit.

    ``1 - observed / expected`` disagreement: 1 for perfect agreement, 0 for what chance gives
    votes of these overall shares, below 0 for less. With votes (2, 0), (0, 2), (1, 1): observed
    disagreement is 2 / 6, expected 2 * 3 * 3 / (6 * 5), and alpha 1 - (1 / 3) / (3 / 5) = 4 / 9.

    Args:
        votes: (U, C) votes of each unit for each category; units with fewer than two are left out.
        clusters: (U,) prompt of each unit.
        level: nominal coverage, in (0, 1).

    Returns:
        Alpha with a delete-one-prompt jackknife interval (t); n units; NaN without disagreement to
        expect.

    Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability".
    """
    votes = np.asarray(votes, float)
    kept = votes.sum(axis=1) >= 2
    votes, codes = votes[kept], cluster_codes(np.asarray(clusters)[kept])
    n_units = len(votes)
    groups = np.unique(codes, return_inverse=True)[1] if n_units else codes
    n_groups = int(groups.max()) + 1 if n_units else 0
    sizes = votes.sum(axis=1)
    observed = (sizes**2 - (votes**2).sum(axis=1)) / np.maximum(sizes - 1, 1)
    parts = np.zeros((n_groups, 1 + votes.shape[1]))
    np.add.at(parts, groups, np.column_stack([observed, votes]))
    whole = parts.sum(axis=0)
    alpha = float(_alpha(whole[None])[0]) if n_units else np.nan
    none = "nothing to estimate" if np.isnan(alpha) else "one prompt: no interval"
    if n_groups < 2 or np.isnan(alpha):
        return Interval(alpha, np.nan, np.nan, np.nan, n_units, n_groups, none, False)
    left_out = _alpha(whole - parts)
    se = float(np.sqrt((n_groups - 1) / n_groups * np.sum((left_out - left_out.mean()) ** 2)))
    half = t_quantile((1 + level) / 2, n_groups - 1) * se
    low, high = alpha - half, min(alpha + half, 1.0)
    return Interval(alpha, low, high, se, n_units, n_groups, "jackknife by prompt", False)


def _alpha(totals: np.ndarray) -> np.ndarray:
    """Alpha of (R, 1 + C) sums of observed disagreement and of votes by category."""
    observed, votes = totals[:, 0], totals[:, 1:]
    n = votes.sum(axis=1)
    unlike = n**2 - (votes**2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = 1.0 - observed * (n - 1) / unlike
    return np.where(unlike > 0, found, np.nan)
