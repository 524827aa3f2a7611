"""Rates of several groups on the same prompts: the worst one, the gap, where they are divided.

Knows arrays only. Start reading at ``worst_group``.
"""

import numpy as np

from dpo_diag.stats.intervals import Interval, clustered_mean


def worst_group(rates: np.ndarray, *, level: float = 0.95) -> Interval:
    """Least of the groups' mean win rates with limits that hold for all groups at once.

    The limits are the least lower and the least upper limit of the groups, each at level
    ``1 - (1 - level) / G`` (Bonferroni), so they cover the least true rate; the estimate itself is
    biased down, because it is the least of several noisy numbers.

    Args:
        rates: (P, G) win rate at each prompt for each group, NaN where it is not known.
        level: nominal coverage of the limits, in (0, 1).

    Returns:
        Shares in [0, 1], n and clusters prompts; NaN limits where a group's rate does not vary,
        all NaN and n = 0 without groups or without any known rate of a group.
    """
    parts = _simultaneous(rates, level)
    if not parts:
        return clustered_mean(np.zeros(0), np.zeros(0, int), level=level)
    return _combined(
        parts,
        min(part.estimate for part in parts),
        float(np.min([part.low for part in parts])),
        float(np.min([part.high for part in parts])),
        "least of the groups; Bonferroni over groups",
    )


def group_gap(rates: np.ndarray, *, level: float = 0.95) -> Interval:
    """Largest less least of the groups' mean win rates, with limits as in ``worst_group``.

    The estimate is biased up; the lower limit is 0 unless two groups are told apart.

    Args:
        rates: (P, G) win rate at each prompt for each group, NaN where it is not known.
        level: nominal coverage of the limits, in (0, 1).
    """
    parts = _simultaneous(rates, level)
    if len(parts) < 2:
        return clustered_mean(np.zeros(0), np.zeros(0, int), level=level)
    estimates = [part.estimate for part in parts]
    lows, highs = np.array([p.low for p in parts]), np.array([p.high for p in parts])
    low, high = np.max(lows) - np.min(highs), np.max(highs) - np.min(lows)
    return _combined(
        parts,
        max(estimates) - min(estimates),
        float(np.maximum(low, 0.0)),
        float(np.minimum(high, 1.0)),
        "largest less least of the groups; Bonferroni over groups",
    )


def is_divided(rates: np.ndarray) -> np.ndarray:
    """Where one group prefers the model and another the opponent: 1, else 0, shape (P,).

    Args:
        rates: (P, G) win rates; exactly 1/2 prefers neither. NaN in any group gives NaN.
    """
    known = ~np.isnan(rates).any(axis=1) & (rates.shape[1] > 1)
    divided = (rates > 0.5).any(axis=1) & (rates < 0.5).any(axis=1)
    return np.where(known, divided.astype(float), np.nan)


def _simultaneous(rates: np.ndarray, level: float) -> list[Interval]:
    n_groups = rates.shape[1]
    strict = 1.0 - (1.0 - level) / max(n_groups, 1)
    prompts = np.arange(len(rates))
    parts = [clustered_mean(rates[:, g], prompts, level=strict) for g in range(n_groups)]
    return parts if all(part.n for part in parts) else []


def _combined(
    parts: list[Interval], estimate: float, low: float, high: float, method: str
) -> Interval:
    n = min(part.n for part in parts)
    if not np.isfinite([low, high]).all():
        low = high = np.nan
        method = f"{method}; a group's rate does not vary: no interval"
    return Interval(float(estimate), low, high, np.nan, n, n, method, False)
