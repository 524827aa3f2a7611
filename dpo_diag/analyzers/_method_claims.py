"""Claims about methods, decided over prompts and seeds; not a plug-in.

``treatment`` is ``direction`` than ``control`` plus ``margin``: it *holds* when the interval of the
difference lies wholly on its side, *does not hold* when it lies wholly on the other, and is *not
distinguishable* here else. The interval holds the chance of prompts and of training seeds.
"""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dpo_diag.analyzers._base import finding
from dpo_diag.analyzers._claims import FAILS, HOLDS, UNDECIDED
from dpo_diag.analyzers._method_values import (
    MAIN,
    STATISTICS,
    bound_of,
    difference_of,
    table_of,
)
from dpo_diag.errors import TableError
from dpo_diag.stats.compare import Difference


@dataclass(frozen=True)
class MethodClaim:
    """One claim of the survey.

    Attributes:
        text: the claim in words.
        statistic: what it is about.
        treatment: method it is about.
        direction: ``higher`` or ``lower``.
        control: method compared with; empty compares with ``margin`` itself.
        margin: added to the control's number, in the statistic's unit.
        arm: ``main``, or the share of flipped labels, as ``0.2``.
        source: whose claim it is.
        reason: what we think is behind the verdict, written after it was seen.
    """

    text: str
    statistic: str
    treatment: str
    direction: str
    control: str = ""
    margin: float = 0.0
    arm: str = MAIN
    source: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if self.direction not in ("higher", "lower"):
            raise TableError(
                f"claim {self.text!r}: direction is {self.direction!r}, not higher or lower."
            )
        if self.statistic not in STATISTICS:
            raise TableError(
                f"claim {self.text!r}: no statistic {self.statistic!r}; there are "
                f"{', '.join(STATISTICS)}."
            )

    @property
    def against(self) -> str:
        """What the treatment is compared with."""
        if not self.control:
            return f"the value {self.margin:g}"
        return f"({self.control} {self.margin:+g})" if self.margin else self.control

    @property
    def slice(self) -> str:
        """Part of the data, as Findings has it."""
        return "all" if self.arm == MAIN else f"flipped labels={self.arm}"


def claim_row(
    analyzer: str, claim: MethodClaim, values: pd.DataFrame, *, level: float
) -> tuple[dict[str, Any], str]:
    """The Findings row that decides a claim, and each seed's own difference in words.

    Args:
        analyzer: its name.
        claim: what to decide.
        values: MethodValues.
        level: of the claim's interval; already corrected for the number of claims.
    """
    kind = STATISTICS[claim.statistic]
    place = {
        "baseline_id": f"claim: {claim.direction} than {claim.against}",
        "slice": claim.slice,
        "unit": kind.unit,
        "ci_level": level,
    }
    part = values[values["arm"] == claim.arm]
    first = table_of(part, claim.statistic, claim.treatment)
    second = table_of(part, claim.statistic, claim.control) if claim.control else pd.DataFrame()
    if not len(first) or (claim.control and not len(second)):
        missing = claim.control if len(first) else claim.treatment
        flag = f"no values of the method {missing}"
        row = finding(analyzer, claim.statistic, claim.treatment, **place, flag=flag)
        return {**row, "verdict": UNDECIDED}, ""
    difference, seeds = difference_of(
        first, second, level=level, margin=claim.margin, bound=bound_of(claim.statistic)
    )
    row = finding(
        analyzer,
        claim.statistic,
        claim.treatment,
        **place,
        estimate=difference.estimate,
        ci_low=difference.low,
        ci_high=difference.high,
        method=difference.method,
        is_guarantee=difference.is_guarantee,
        p_value=difference.p_value,
        n=difference.n,
        n_clusters=difference.n_clusters,
        better="neither",
        verdict=_verdict(difference, claim.direction),
        flag=difference.flag,
    )
    spread = ", ".join(f"{value:.3g}" for value in seeds)
    return row, f"{claim.text}: {row['verdict']}; each seed's own difference: {spread}."


def _verdict(difference: Difference, direction: str) -> str:
    if math.isnan(difference.low) or math.isnan(difference.high):
        return UNDECIDED
    is_above, is_below = difference.low > 0.0, difference.high < 0.0
    if not (is_above or is_below):
        return UNDECIDED
    return HOLDS if is_above == (direction == "higher") else FAILS
