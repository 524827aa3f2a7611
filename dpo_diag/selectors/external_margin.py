"""The external margin alone: how much a scorer beside the policy prefers the chosen answer.

The ablation of ``bees`` without its implicit witness. A pair that the scorer orders against its
label has a negative margin and comes last. What this code cannot check: whether the scorer is any
good on these prompts.

Source: an ablation of Deng et al. 2025, arXiv 2502.14560 (abstract read). Needs: an external
margin.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from dpo_diag.selectors._base import Selector, numbers


@dataclass(frozen=True)
class ExternalMargin(Selector):
    """``r(chosen) - r(rejected)``: scores 0.7 and 0.4 give 0.3."""

    needs: ClassVar[Mapping[str, str]] = {"external_margin": "external"}
    source: ClassVar[str] = "ablation of Deng et al. 2025, arXiv 2502.14560"

    def scores(self, table: pd.DataFrame) -> np.ndarray:
        """The external margin, shape (n,), in the scorer's unit."""
        return numbers(table, "external_margin")


SELECTOR = ExternalMargin
