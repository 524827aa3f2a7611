"""Whether sigmoid(margin) is the probability it claims to be.

The Bradley-Terry model behind DPO reads ``sigmoid(margin)`` as the probability that an annotator
prefers ``chosen``. The label of every pair is "chosen", so calibration is judged on the preferred
side: confidence ``sigmoid(|margin|)`` that the answer with the higher reward is the chosen one.
Sets of unlike size are compared by ``squared_calibration_error``, which the noise does not raise.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

from dpo_diag.stats.intervals import (
    Interval,
    cluster_codes,
    clustered_mean,
    clustered_proportion,
    t_quantile,
)

N_BINS = 10


class ReliabilityBin(NamedTuple):
    """One bin: mean confidence, share right (ties one half) with its interval, pairs in it."""

    confidence: float
    accuracy: float
    low: float
    high: float
    n: int


def brier(margins: np.ndarray) -> np.ndarray:
    """Squared error of each pair's probability, ``(1 - sigmoid(margin))^2``, (n,), lower better.

    A quarter is what a coin scores; the same whichever answer is named first.
    """
    return special.expit(-np.asarray(margins, float)) ** 2


def reliability(
    margins: np.ndarray, clusters: np.ndarray | None = None, *, level: float = 0.95
) -> list[ReliabilityBin]:
    """Confidence and share right in ten equal bins from 1/2 to 1; empty ones are left out.

    Args:
        margins: (n,) reward units; NaN rows are left out.
        clusters: (n,) prompt of each row; None: every row is its own.
        level: nominal coverage of each bin's interval, in (0, 1).
    """
    margins = np.asarray(margins, float)
    codes = np.arange(len(margins)) if clusters is None else cluster_codes(clusters)
    kept = ~np.isnan(margins)
    codes = codes[kept]
    confidence, right, bins = _parts(margins[kept])
    found = []
    for b in range(N_BINS):
        member = bins == b
        if member.any():
            own = clustered_proportion(right[member], codes[member], level=level)
            mean = float(confidence[member].mean())
            found.append(ReliabilityBin(mean, own.estimate, own.low, own.high, own.n))
    return found


def calibration_error(
    margins: np.ndarray, clusters: np.ndarray, *, level: float = 0.95
) -> Interval:
    """Expected calibration error: mean over pairs of the |share right - confidence| of their bin.

    Misleads: it is biased up (noise in a bin counts as an error), most with few pairs; compare it
    only at equal n. The interval holds the signs of the bins' gaps fixed.

    Args:
        margins: (n,) reward units; NaN rows are left out.
        clusters: (n,) prompt of each row.
        level: nominal coverage, in (0, 1).

    Returns:
        The error in [0, 1/2], lower better; all NaN and n = 0 for no pairs.

    Source: Naeini et al. 2015 (ECE).
    """
    margins = np.asarray(margins, float)
    kept = ~np.isnan(margins)
    confidence, right, bins = _parts(margins[kept])
    gaps = np.bincount(bins, weights=right - confidence, minlength=N_BINS)
    signed = np.sign(gaps)[bins] * (right - confidence)
    interval = clustered_mean(signed, np.asarray(clusters)[kept], level=level)
    low = interval.low if np.isnan(interval.low) else max(interval.low, 0.0)
    return interval._replace(low=low)


def squared_calibration_error(
    margins: np.ndarray, clusters: np.ndarray, *, level: float = 0.95
) -> Interval:
    """Mean over pairs of their bin's squared (share right - confidence), its noise taken off.

    From every bin's squared gap the gap's own variance (prompt-clustered) is subtracted, so that a
    calibrated reward has 0 on average at any number of pairs, which the plain error has not. It
    may come out below 0; its square root is on the scale of ``calibration_error``. A bin with one
    prompt has no noise to measure and is left out. Interval by leaving out one prompt at a time.

    Args:
        margins: (n,) reward units; NaN rows are left out.
        clusters: (n,) prompt of each row.
        level: nominal coverage, in (0, 1).

    Returns:
        The error, squared probability, lower better; all NaN and n = 0 for no bin with two prompts.

    Source: Kumar et al. 2019 (1909.10155), the debiased estimator, with a clustered variance.
    """
    margins = np.asarray(margins, float)
    kept = ~np.isnan(margins)
    confidence, right, bins = _parts(margins[kept])
    codes = np.unique(cluster_codes(clusters)[kept], return_inverse=True)[1]
    groups = int(codes.max()) + 1 if len(codes) else 0
    cell = codes * N_BINS + bins
    size = groups * N_BINS
    totals = np.bincount(cell, weights=right - confidence, minlength=size).reshape(-1, N_BINS)
    counts = np.bincount(cell, minlength=size).reshape(-1, N_BINS).astype(float)
    sums = _BinSums.of(totals, counts)
    error, n = (float(part) for part in _squared_error(sums))
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, np.nan, 0, 0, "nothing to estimate", False)
    used = int(np.any(counts[:, sums.groups >= 2] > 0, axis=1).sum())
    row = Interval(error, np.nan, np.nan, np.nan, int(n), used, "one prompt: no interval", False)
    left, left_n = _squared_error(sums.without(totals, counts))
    left = left[left_n > 0]
    if len(left) < 2:
        return row
    se = float(np.sqrt((len(left) - 1.0) / len(left) * np.sum((left - left.mean()) ** 2)))
    if not se > 0.0:
        return row._replace(method="all prompts equal: no interval")
    half = t_quantile((1.0 + level) / 2.0, groups - 1) * se
    return row._replace(low=error - half, high=error + half, se=se, method="prompt jackknife t")


class _BinSums(NamedTuple):
    """Sums over prompts in every bin, (B,), or (G, B) with one prompt left out in each row."""

    total: np.ndarray
    n: np.ndarray
    total_square: np.ndarray
    total_times_n: np.ndarray
    n_square: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, totals: np.ndarray, counts: np.ndarray) -> "_BinSums":
        """Of (G, B) sums of gaps and numbers of rows."""
        parts = _prompt_terms(totals, counts)
        return cls(*(part.sum(axis=0) for part in parts))

    def without(self, totals: np.ndarray, counts: np.ndarray) -> "_BinSums":
        """The sums with each prompt left out in turn."""
        parts = _prompt_terms(totals, counts)
        return _BinSums(*(whole - part for whole, part in zip(self, parts, strict=True)))


def _prompt_terms(totals: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, ...]:
    return totals, counts, totals**2, totals * counts, counts**2, (counts > 0).astype(float)


def _squared_error(sums: _BinSums) -> tuple[np.ndarray, np.ndarray]:
    """The debiased error and the rows behind it, over the last axis."""
    usable = sums.groups >= 2
    n = np.where(usable, sums.n, 1.0)
    gap = np.where(usable, sums.total, 0.0) / n
    # sum over prompts of (total - n * gap)^2, then the clustered variance of the bin's mean
    square = sums.total_square - 2.0 * gap * sums.total_times_n + gap**2 * sums.n_square
    factor = sums.groups / np.maximum(sums.groups - 1.0, 1.0)
    parts = np.where(usable, n * (gap**2 - factor * square / n**2), 0.0)
    rows = np.where(usable, sums.n, 0.0).sum(axis=-1)
    return parts.sum(axis=-1) / np.maximum(rows, 1.0), rows


def _parts(margins: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    confidence = special.expit(np.abs(margins))
    right = 0.5 + 0.5 * np.sign(margins)
    bins = np.minimum(((confidence - 0.5) * 2.0 * N_BINS).astype(int), N_BINS - 1)
    return confidence, right, bins
