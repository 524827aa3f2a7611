"""Pairs at random: the honest baseline of every selector, and the seed set of ``bees``.

A selector that does not beat it on the same number of pairs selects nothing. The draw goes by the
pairs' ids, so that it does not hang on the order of the file. Of one seed a smaller choice lies
within a larger one: give the baseline another seed than the seed set, or it is made of pairs that
the seed run has seen.

Source: none. Needs: nothing but the pairs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from dpo_diag.selectors._base import Selector, require


@dataclass(frozen=True)
class Random(Selector):
    """A number in [0, 1) for each pair, all equally likely.

    Attributes:
        seed: of the draw.
    """

    seed: int = 0

    needs: ClassVar[Mapping[str, str]] = {"pair_id": "pairs"}
    source: ClassVar[str] = "none: the baseline"
    ranges: ClassVar[Mapping[str, str]] = {"seed": "a whole number, 0 or more"}

    def __post_init__(self) -> None:
        is_whole = isinstance(self.seed, int) and not isinstance(self.seed, bool)
        require(
            is_whole and self.seed >= 0,
            f"random: seed must be a whole number of 0 or more, got {self.seed!r}.",
        )

    def scores(self, table: pd.DataFrame) -> np.ndarray:
        """The draw, shape (n,), in [0, 1)."""
        require("pair_id" in table.columns, "the column pair_id is not there to draw by.")
        order = np.argsort(table["pair_id"].to_numpy(dtype=str), kind="stable")
        scores = np.empty(len(table))
        scores[order] = np.random.default_rng(self.seed).random(len(table))
        return scores


SELECTOR = Random
