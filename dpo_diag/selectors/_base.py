"""What a selector is: numbers of each pair in, a score of each pair out; high is kept.

A file holds one frozen dataclass derived from ``Selector`` and the module constant ``SELECTOR``
naming it. What a selector needs is made ready by ``pipeline.select`` and arrives as columns.
Contract: shape (n,), NaN only where an input is NaN (the pair is dropped and counted); the order
of the pairs does not matter. May import: errors, numpy, pandas.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Selector:
    """Base of every selector; parameters are fields of the subclass.

    Class attributes:
        needs: columns that must be there -> where they come from: ``pairs`` (a column of the
            data), ``margins`` (a model and its reference), ``states`` (hidden states of a model).
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
