"""What a similarity is: an answer and a good answer in, how alike they are out.

A file holds one frozen dataclass derived from ``Similarity`` and the module constant
``SIMILARITY`` naming it. The measure itself comes from a library. Contract: shape (N,), finite, in
the stated range; an answer is at least as similar to itself as to anything else; an empty answer
has the lowest value; batch and order do not matter. May import: errors, numpy, the library.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np


@dataclass(frozen=True)
class Similarity:
    """Base of every similarity; parameters are fields of the subclass.

    Class attributes:
        low, high: the stated range.
        blindness: what it is known not to see, in words.
    """

    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0
    blindness: ClassVar[str] = ""

    def similarity(self, responses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Similarity of each answer to its reference answer, shape (N,) float64."""
        raise TypeError(f"{type(self).__name__} does not implement similarity().")

    @property
    def name(self) -> str:
        """The similarity's name: its file's name."""
        return type(self).__module__.rsplit(".", 1)[-1]

    @property
    def similarity_def(self) -> str:
        """Name and parameters as one string."""
        values = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self))
        return f"{self.name}({values})"
