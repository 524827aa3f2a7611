"""BeeS: the chance that a label is right, from an external and an implicit margin together.

Claim: label noise shrinks what is learnt, pairs of large margin are hard to mislabel, and one
source of margins is unreliable off its distribution; so two are fused as independent witnesses and
the pairs both are sure of are kept. What this code cannot check: the independence. Sources that
share a bias (length, say) are counted twice, and either one at its lower bound all but vetoes a
pair. A mislabelled pair with a large negative margin is dropped, not turned round.

The bounds L and U of the clipping were not found in what could be read of the paper: quantiles of
each source (2 % and 98 %) are our choice. Without the clamp a pair at the lower bound of one source
and at the upper bound of the other has 0/0; with it such a pair has exactly 1/2.

Source: Deng et al., "Less is More: Improving LLM Alignment via Preference Data Selection",
NeurIPS 2025, arXiv 2502.14560 (abstract read; the formulas second-hand). Needs: an external margin
and that of a seed run against its own reference.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from dpo_diag.selectors._base import Selector, numbers, require
from dpo_diag.selectors._margins import chances, check_quantiles


@dataclass(frozen=True)
class Bees(Selector):
    """``p = p_ex p_im / (p_ex p_im + (1 - p_ex)(1 - p_im))``, a flat prior.

    For external margins 0, 1, 2, 4 and the same implicit ones, unclipped (low 0, high 1), the
    chances are 0, 1/4, 1/2, 1 and p of the second pair is (1/16) / (1/16 + 9/16) = 0.1.

    Attributes:
        low: quantile of a source below which its margins are one.
        high: quantile above which they are.
        eps: chances are kept in [eps, 1 - eps].
    """

    low: float = 0.02
    high: float = 0.98
    eps: float = 1e-6

    needs: ClassVar[Mapping[str, str]] = {
        "external_margin": "external",
        "implicit_margin": "implicit",
    }
    source: ClassVar[str] = "Deng et al. 2025, arXiv 2502.14560 (formulas second-hand)"
    ranges: ClassVar[Mapping[str, str]] = {
        "low": "0 to below high",
        "high": "above low to 1",
        "eps": "above 0, below 0.5",
    }

    def __post_init__(self) -> None:
        check_quantiles("bees", self.low, self.high)
        require(0 < self.eps < 0.5, f"bees: eps must be above 0 and below 0.5, got {self.eps}.")

    def scores(self, table: pd.DataFrame) -> np.ndarray:
        """The joint chance that the label is right, shape (n,), in (0, 1)."""
        parts = self.parts(table)
        first, second = parts["p_external"], parts["p_implicit"]
        right = first * second
        return right / (right + (1 - first) * (1 - second))

    def parts(self, table: pd.DataFrame) -> Mapping[str, np.ndarray]:
        """The chance of each source alone, clamped."""
        return {
            f"p_{source}": np.clip(
                chances(numbers(table, f"{source}_margin"), low=self.low, high=self.high),
                self.eps,
                1 - self.eps,
            )
            for source in ("external", "implicit")
        }


SELECTOR = Bees
