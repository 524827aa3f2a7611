"""What an oracle of preferences is: two answers in, the chance that the first is preferred.

An oracle need not come from a score: its preferences may be cyclic. A file holds one frozen
dataclass derived from ``Oracle`` and the module constant ``ORACLE`` naming it, and at least three
``EXAMPLES`` of (prompt, preferred answer, other answer); an oracle whose parameters lack defaults
has ``example_parameters(folder)``. Contract: shape (N,), in [0, 1] or NaN where it abstains;
``prefer(a, b) + prefer(b, a) = 1``; ``prefer(a, a) = 1/2``; batch and order do not matter.
May import: errors, registry, tables, sandbox, numpy.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np


@dataclass(frozen=True)
class Oracle:
    """Base of every oracle; parameters are fields of the subclass.

    Class attributes:
        is_transitive: whether its preferences come from a score, so that a best answer exists.
        blindness: what it is known not to see, in words.
    """

    is_transitive: ClassVar[bool] = True
    blindness: ClassVar[str] = ""

    def prefer(
        self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
    ) -> np.ndarray:
        """P(first is preferred to second) of each pair, shape (N,) float64."""
        raise TypeError(f"{type(self).__name__} does not implement prefer().")

    @property
    def name(self) -> str:
        """The oracle's name: its file's name."""
        return type(self).__module__.rsplit(".", 1)[-1]

    @property
    def oracle_def(self) -> str:
        """Name and parameters as one string, the identity of the oracle."""
        values = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self))
        return f"{self.name}({values})"
