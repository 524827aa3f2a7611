"""The implicit margin alone: how much a seed run prefers the chosen answer, against its reference.

The ablation of ``bees`` without its external witness. The seed run should be trained on a random
part of the pairs (``select random``): it is surest of the pairs it has seen, mislabelled ones
among them. On the sandbox a run on 30 % of the pairs made 52 % of what its margin kept. What this
code cannot check: which of the pairs the seed run has seen.

Source: an ablation of Deng et al. 2025, arXiv 2502.14560 (abstract read). Needs: a seed run and
the reference it was trained against.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from dpo_diag.selectors._base import Selector, numbers


@dataclass(frozen=True)
class ImplicitMargin(Selector):
    """The margin of the seed run's own reward; DPO with beta 0.1 and log-ratios 3 and 1: 0.2."""

    needs: ClassVar[Mapping[str, str]] = {"implicit_margin": "implicit"}
    source: ClassVar[str] = "ablation of Deng et al. 2025, arXiv 2502.14560"

    def scores(self, table: pd.DataFrame) -> np.ndarray:
        """The implicit margin, shape (n,), in the unit of the seed run's reward."""
        return numbers(table, "implicit_margin")


SELECTOR = ImplicitMargin
