"""The additive mixture of an external and an implicit margin, each on its source's own scale.

The ablation of ``bees`` without its Bayesian fusion. Unlike in ``bees`` no source can veto a pair:
a margin at the lower bound of one is made up for by the other. How the paper scales the margins
before it mixes them was not found; here both are clipped to quantiles of their source and scaled
to 0 to 1 as in ``bees``, or their units would decide.

Source: an ablation of Deng et al. 2025, arXiv 2502.14560 (named second-hand; the scaling is ours).
Needs: an external margin and that of a seed run against its own reference.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from dpo_diag.selectors._base import Selector, numbers
from dpo_diag.selectors._margins import chances, check_quantiles


@dataclass(frozen=True)
class MarginSum(Selector):
    """``p_ex + p_im``: chances 0.25 and 0.5 give 0.25 + 0.5 = 0.75.

    Attributes:
        low: quantile of a source below which its margins are one.
        high: quantile above which they are.
    """

    low: float = 0.02
    high: float = 0.98

    needs: ClassVar[Mapping[str, str]] = {
        "external_margin": "external",
        "implicit_margin": "implicit",
    }
    source: ClassVar[str] = "ablation of Deng et al. 2025, arXiv 2502.14560; the scaling is ours"
    ranges: ClassVar[Mapping[str, str]] = {"low": "0 to below high", "high": "above low to 1"}

    def __post_init__(self) -> None:
        check_quantiles("margin_sum", self.low, self.high)

    def scores(self, table: pd.DataFrame) -> np.ndarray:
        """The mixture, shape (n,), 0 to 2."""
        parts = self.parts(table)
        return parts["p_external"] + parts["p_implicit"]

    def parts(self, table: pd.DataFrame) -> Mapping[str, np.ndarray]:
        """The chance of each source alone."""
        return {
            f"p_{source}": chances(numbers(table, f"{source}_margin"), low=self.low, high=self.high)
            for source in ("external", "implicit")
        }


SELECTOR = MarginSum
