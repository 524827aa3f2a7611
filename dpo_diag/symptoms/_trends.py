"""What a noisy log says about a change: means of its beginning and end, with their errors.

Rows of a log are means over few pairs, so single rows prove nothing. Start reading at ``ends``.
"""

from typing import NamedTuple

import numpy as np

from dpo_diag.run_formats._base import Series

LEAST_ROWS = 8
"""Fewer rows say nothing about a change."""
CLEAR = 3.0
"""A change of this many standard errors is one. Of 4,000 made-up flat logs each, normal noise, as
much was seen in 4.5 % at 8 rows, 1.9 % at 20 and 0.6 % at 40; every rule asks for size besides."""


class Ends(NamedTuple):
    """A quantity at the beginning and end of a log.

    Attributes:
        first: mean of the first quarter of the rows, 3 at least.
        last: mean of the last quarter.
        error: standard error of ``last - first``.
        n: rows in each quarter.
    """

    first: float
    last: float
    error: float
    n: int

    @property
    def change(self) -> float:
        """From the first quarter to the last."""
        return self.last - self.first

    @property
    def at_most(self) -> float:
        """The largest change that the noise allows for."""
        return self.change + CLEAR * self.error

    @property
    def rises(self) -> bool:
        """Whether the change is up and clear of the noise."""
        return self.change > CLEAR * self.error

    @property
    def falls(self) -> bool:
        """Whether the change is down and clear of the noise."""
        return -self.change > CLEAR * self.error


def ends(series: Series) -> Ends | None:
    """Beginning and end of a series; None for fewer than ``LEAST_ROWS`` rows.

    A drift within a quarter widens the error, which makes the comparison careful.
    """
    if len(series) < LEAST_ROWS:
        return None
    n = max(3, len(series) // 4)
    first, last = series.value[:n], series.value[-n:]
    error = float(np.sqrt(first.var(ddof=1) / n + last.var(ddof=1) / n))
    return Ends(float(first.mean()), float(last.mean()), error, n)


def too_few(series: Series, what: str) -> str:
    """Words for a log that has too few rows of a quantity; empty where it has enough."""
    if len(series) >= LEAST_ROWS:
        return ""
    if not len(series):
        return f"{what} not logged"
    return f"too few log rows with {what} ({len(series)}, at least {LEAST_ROWS} needed)"


def last_half(series: Series) -> np.ndarray:
    """The values of the second half of the rows."""
    return series.value[len(series) // 2 :]
