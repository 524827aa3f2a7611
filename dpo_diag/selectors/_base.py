"""What a selector is: numbers of each pair in, a score of each pair out; high is kept.

A file holds one frozen dataclass derived from ``Selector`` and the module constant ``SELECTOR``
naming it. What a selector needs is made ready by ``pipeline.select`` and arrives as columns.
Contract: shape (n,), NaN only where an input is NaN (the pair is dropped and counted); the order
of the pairs does not matter. May import: errors, content, numpy, pandas.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from dpo_diag.errors import DataError

ORIGINS = {
    "pairs": "a column of the data, as it is there",
    "external": "a scorer beside the policy: two columns of the data, or a cost",
    "implicit": "a trained checkpoint and its own reference",
    "states": "the hidden states of a model on both answers",
}
"""Where a column may come from, as ``Selector.needs`` names it."""


@dataclass(frozen=True)
class Selector:
    """Base of every selector; parameters are fields of the subclass.

    Class attributes:
        needs: columns that must be there -> where they come from, one of ``ORIGINS``:
            ``external_margin`` from ``external``; ``implicit_margin`` from ``implicit``;
            ``state_product``, ``state_square``, ``n_tokens_chosen`` and ``n_tokens_rejected`` from
            ``states``; any column from ``pairs``.
        source: paper and equation.
        ranges: parameter -> range in words.
    """

    needs: ClassVar[Mapping[str, str]] = {}
    source: ClassVar[str] = ""
    ranges: ClassVar[Mapping[str, str]] = {}

    def scores(self, table: pd.DataFrame) -> np.ndarray:
        """Score of each pair, shape (n,) float64, higher is kept first."""
        raise TypeError(f"{type(self).__name__} does not implement scores().")

    def parts(self, table: pd.DataFrame) -> Mapping[str, np.ndarray]:
        """What the score was made of, each (n,), written beside it; empty where it is plain."""
        return {}

    @property
    def name(self) -> str:
        """The selector's name: its file's name."""
        return type(self).__module__.rsplit(".", 1)[-1]

    @property
    def selector_def(self) -> str:
        """Name and parameters as one string."""
        values = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self))
        return f"{self.name}({values})"


def require(condition: bool, message: str) -> None:
    """Raise ``DataError`` with the message unless the condition holds."""
    if not condition:
        raise DataError(message)


def numbers(table: pd.DataFrame, column: str) -> np.ndarray:
    """A column as finite numbers or NaN, shape (n,) float64.

    Raises:
        DataError: the column is not there, holds no numbers, or infinite ones.
    """
    require(column in table.columns, f"the column {column} is not there to select by.")
    try:
        values = table[column].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise DataError(f"selection needs numbers in the column {column}: {error}.") from error
    infinite = np.flatnonzero(np.isinf(values))
    require(
        not len(infinite),
        f"selection needs finite numbers in {column}; {len(infinite)} are infinite, first in row "
        f"{infinite[0] if len(infinite) else 0}.",
    )
    return values
