"""Margins of one source as chances that the label is right; shared by selectors, not a plug-in."""

import numpy as np

from dpo_diag.selectors._base import require


def check_quantiles(name: str, low: float, high: float) -> None:
    """Refuse bounds that leave no range between them.

    Raises:
        DataError: not 0 <= low < high <= 1.
    """
    require(
        0 <= low < high <= 1,
        f"{name}: the quantiles must be 0 <= low < high <= 1, got low {low} and high {high}.",
    )


def chances(margins: np.ndarray, *, low: float, high: float) -> np.ndarray:
    """``(clip(m, L, U) - L) / (U - L)`` with L and U the source's own quantiles.

    Four margins 0, 1, 2, 4 with ``low=0``, ``high=1`` have L = 0 and U = 4 and so the chances
    0, 0.25, 0.5 and 1. A source whose quantiles coincide says nothing: every chance is 0.5, which
    leaves a product of odds as it is.

    Args:
        margins: (n,) chosen minus rejected, any unit; NaN where unknown.
        low: share of the margins below L, in [0, 1).
        high: share of the margins below U, in (low, 1].

    Returns:
        (n,) in [0, 1], NaN where the margin is.
    """
    known = margins[~np.isnan(margins)]
    if not len(known):
        return np.full(len(margins), np.nan)
    lower, upper = np.quantile(known, [low, high])
    if upper <= lower:
        return np.where(np.isnan(margins), np.nan, 0.5)
    return (np.clip(margins, lower, upper) - lower) / (upper - lower)
