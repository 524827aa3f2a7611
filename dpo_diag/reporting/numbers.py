"""Numbers as a reader wants them: digits from the interval, shares in per cent, honest zeros.

A missing number is ``n/a`` with its reason. Zero events are shown with their upper bound, never
as zero plus or minus zero.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

_SPELLED = {"ood": "OOD", "cvar": "CVaR", "auc": "AUC", "ece": "ECE", "kl": "KL", "iqr": "IQR"}
_DIFFERENCE = "difference in "


@dataclass(frozen=True)
class Number:
    """An estimate with all that a Findings row says about it.

    Attributes:
        value, low, high: estimate and interval in the row's unit, NaN where missing.
        level: nominal level, 0 to 1, NaN where missing.
        unit: unit in words.
        better: ``lower``, ``higher`` or ``neither``.
        n, n_clusters: rows and independent prompts.
        is_guarantee: finite-sample bound or approximation.
        method, flag, verdict: as in Findings.
        p_adjusted, detectable: NaN where missing.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    level: float = math.nan
    unit: str = ""
    better: str = "neither"
    n: int = 0
    n_clusters: int = 0
    is_guarantee: bool = False
    method: str = ""
    flag: str = ""
    verdict: str = ""
    p_adjusted: float = math.nan
    detectable: float = math.nan

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Number":
        """The number in a row of Findings."""
        names = ("unit", "better", "n", "n_clusters", "is_guarantee", "method", "flag", "verdict")
        return cls(
            value=float(row["estimate"]),
            low=float(row["ci_low"]),
            high=float(row["ci_high"]),
            level=float(row["ci_level"]),
            p_adjusted=float(row["p_adjusted"]),
            detectable=float(row["detectable"]),
            **{name: row[name] for name in names},
        )


def is_share(unit: str) -> bool:
    """Whether the unit is a share from 0 to 1, or a difference of two, shown times 100."""
    return unit.lower().removeprefix(_DIFFERENCE).startswith(("share", "probability"))


def is_points(unit: str) -> bool:
    """Whether the unit is a difference of two shares, shown in percentage points."""
    return is_share(unit) and unit.lower().startswith(_DIFFERENCE)


def scale(unit: str) -> float:
    """What a value is multiplied with before it is shown."""
    return 100.0 if is_share(unit) else 1.0


def suffix(unit: str, *, is_difference: bool = False) -> str:
    """What follows a shown value: per cent, percentage points, or nothing."""
    if not is_share(unit):
        return ""
    return " points" if is_difference or is_points(unit) else " %"


def decimals(numbers: Iterable[Number]) -> int:
    """Digits after the point so that the narrowest half-width has two significant ones.

    Between 0 and 3, or 4 where a value below 0.01 would lose its digits; for shares 1 or 2.
    Without an interval: 1 for shares, 0 for whole numbers such as steps, 3 else.
    """
    known = [x for x in numbers if math.isfinite(x.value)]
    shares = any(is_share(x.unit) for x in known)
    smallest = min((abs(x.value) for x in known if x.value), default=1.0)
    lowest, highest = (1, 2) if shares else (0, 4 if smallest < 0.01 else 3)
    widths = [half for x in known if (half := _half_width(x) * scale(x.unit)) > 0]
    if not widths:
        whole = bool(known) and all(float(x.value).is_integer() for x in known)
        return 1 if shares else 0 if whole else 3
    return int(np.clip(1 - math.floor(math.log10(min(widths))), lowest, highest))


def shown(value: float, digits: int, *, signed: bool = False) -> str:
    """A value with fixed digits; ``n/a`` where missing; never a rounded zero for a small number.

    A number that the digits would round to zero has two significant digits instead: ``1.3e-05``.
    """
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value and not round(value, digits):
        return f"{value:{'+' if signed else ''}.2g}"
    return _rounded(value, digits, signed=signed)


def estimate(number: Number, digits: int | None = None, *, is_difference: bool = False) -> str:
    """Estimate with its unit; ``n/a (why)``; a zero with nothing below it as ``0 (≤ bound)``."""
    if math.isnan(number.value):
        return f"n/a ({missing_reason(number)})"
    digits = decimals([number]) if digits is None else digits
    edge = "" if is_difference else _edge(number, digits)
    if edge:
        return edge
    value = shown(number.value * scale(number.unit), digits, signed=is_difference)
    return value + suffix(number.unit, is_difference=is_difference)


def interval(number: Number, digits: int | None = None, *, is_difference: bool = False) -> str:
    """``low to high``, ``≤ high`` or ``≥ low`` where one-sided, empty where there is none.

    Empty too where the estimate is missing or is an edge that ``estimate`` prints with its bound.
    """
    digits = decimals([number]) if digits is None else digits
    if math.isnan(number.value) or (not is_difference and _edge(number, digits)):
        return ""
    low, high = (
        _rounded(end * scale(number.unit), digits, signed=is_difference)
        for end in (number.low, number.high)
    )
    if not math.isfinite(number.low) and not math.isfinite(number.high):
        return ""
    if not math.isfinite(number.low):
        return f"≤ {high}"
    return f"{low} to {high}" if math.isfinite(number.high) else f"≥ {low}"


def detectable(number: Number, digits: int) -> str:
    """The smallest difference that the data detects, empty where unknown."""
    if math.isnan(number.detectable):
        return ""
    shares = " points" if is_share(number.unit) else ""
    return f"detects {shown(number.detectable * scale(number.unit), digits)}{shares}"


def p_value(number: Number) -> str:
    """The adjusted p-value as ``p = 0.021`` or ``p < 0.0001``, empty where unknown."""
    p = number.p_adjusted
    if math.isnan(p):
        return ""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.{max(2, 1 - math.floor(math.log10(p)))}f}"


def missing_reason(number: Number) -> str:
    """Why an estimate is missing, in words."""
    if number.flag:
        return number.flag
    return "no rows" if number.n == 0 else "not estimable"


def unit_words(unit: str, better: str) -> str:
    """Unit and direction for a column head: ``%, higher is better``."""
    words = ("points" if is_points(unit) else "%") if is_share(unit) else unit
    direction = f"{better} is better" if better in {"lower", "higher"} else ""
    return ", ".join(word for word in (words, direction) if word)


def title(name: str) -> str:
    """A statistic's or analyzer's name as words: ``cost_cvar`` as cost CVaR."""
    return " ".join(_SPELLED.get(word, word) for word in name.split("_"))


def _rounded(value: float, digits: int, *, signed: bool) -> str:
    """A value with fixed digits, zeros without a sign."""
    value = round(value, digits) + 0.0 if math.isfinite(value) else value
    return f"{value:{'+' if signed and value else ''},.{digits}f}"


def _edge(number: Number, digits: int) -> str:
    """Zero (or all) of a bounded quantity with the bound that n allows, else empty."""
    factor, end = scale(number.unit), suffix(number.unit)
    if number.value == 0 and not number.low < 0:
        if not number.high > 0:
            return "0 (no upper bound)"
        return f"0{end} (≤ {_bound(number.high * factor, digits, up=True)}{end})"
    if is_share(number.unit) and not is_points(number.unit) and number.value == 1:
        if not number.low < 1:
            return f"100{end} (no lower bound)"
        return f"100{end} (≥ {_bound(number.low * factor, digits, up=False)}{end})"
    return ""


def _bound(value: float, digits: int, *, up: bool) -> str:
    """A bound rounded to its safe side, at least one digit of it shown."""
    digits = max(digits, 1 - math.floor(math.log10(value))) if 0 < value < 0.1 else digits
    factor = 10.0**digits
    step = math.ceil if up else math.floor
    return f"{step(round(value * factor, 6)) / factor:.{digits}f}"


def _half_width(number: Number) -> float:
    ends = [end for end in (number.low, number.high) if math.isfinite(end)]
    return max((abs(number.value - end) for end in ends), default=0.0)
