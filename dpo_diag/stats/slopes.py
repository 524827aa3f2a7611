"""How a quantity changes with another: least squares, standard errors by prompt.

For an outcome that is 0 or 1 this is the linear probability model: the slope is the mean change of
the share per unit, whatever the shape of the curve. Start reading at ``clustered_slope``.
"""

import numpy as np

from dpo_diag.stats.intervals import Interval, cluster_codes, cluster_sums, t_quantile

_NO_SPREAD = 1e-9  # share of the variance that must be left once the controls are taken out


def clustered_slope(
    x: np.ndarray,
    y: np.ndarray,
    clusters: np.ndarray,
    *,
    controls: np.ndarray | None = None,
    level: float = 0.95,
) -> Interval:
    """Least-squares slope of y on x, with an intercept and controls, errors clustered by prompt.

    x and y are freed of the controls first (Frisch, Waugh and Lovell), so that controls may be
    redundant among themselves. Misleads where x and a control carry the same information: then the
    interval is wide, not the effect small.

    Args:
        x: (n,) what it is traced back to.
        y: (n,) outcome.
        clusters: (n,) prompt of each row.
        controls: (n, k) columns held fixed, without an intercept; None for none.
        level: nominal coverage, in (0, 1).

    Returns:
        The slope, units of y per unit of x, over the rows without a NaN; all NaN and n = 0 where x
        does not vary beyond the controls; NaN limits with one prompt or a perfect fit.

    Source: Liang and Zeger 1986; the small-sample factor G / (G - 1) * (n - 1) / (n - k - 2).
    Degrees of freedom: the effective number of prompts by their share of the spread of x, at most
    G - 1, after Bell and McCaffrey 2002 (from memory).
    """
    held = np.zeros((len(x), 0)) if controls is None else np.asarray(controls, float)
    table = np.column_stack([np.asarray(x, float), np.asarray(y, float), held])
    kept = ~np.isnan(table).any(axis=1)
    table, codes = table[kept], cluster_codes(clusters)[kept]
    n = len(table)
    nothing = Interval(np.nan, np.nan, np.nan, np.nan, 0, 0, "nothing varies", False)
    if n < 3:
        return nothing
    design = np.column_stack([np.ones(n), _scaled(table[:, 2:])])
    free, rank = _residuals(design, table[:, :2])
    own, outcome = free[:, 0], free[:, 1]
    spread = float(own @ own)
    whole = table[:, 0] - table[:, 0].mean()
    is_constant = np.ptp(table[:, 0]) <= 1e-12 * np.abs(table[:, 0]).max()
    if is_constant or spread <= _NO_SPREAD * float(whole @ whole):
        return nothing
    slope = float(own @ outcome) / spread
    totals = cluster_sums(own * (outcome - slope * own), codes)
    groups, left = len(totals), n - rank - 1
    row = Interval(slope, np.nan, np.nan, np.nan, n, groups, "perfect fit: no interval", False)
    if groups < 2 or left < 1:
        return row._replace(method="too few prompts: no interval")
    factor = groups / (groups - 1.0) * (n - 1.0) / left
    se = float(np.sqrt(factor * np.sum(totals**2))) / spread
    if se <= 1e-12 * max(abs(slope), 1e-300):
        return row
    weights = cluster_sums(own**2, codes) / spread  # a few far prompts decide alone
    df = float(np.clip(1.0 / np.sum(weights**2), 1.0, groups - 1.0))
    half = t_quantile((1.0 + level) / 2.0, df) * se
    return row._replace(
        low=slope - half, high=slope + half, se=se, method="least squares, prompt-clustered t"
    )


def _scaled(columns: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and spread 1, those without spread as 0; the residuals are the same."""
    centred = columns - columns.mean(axis=0)
    spread = centred.std(axis=0)
    return centred / np.where(spread > 0.0, spread, 1.0)


def _residuals(design: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, int]:
    """What of the values the design does not explain, and the design's rank."""
    weights, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    return values - design @ weights, int(rank)
