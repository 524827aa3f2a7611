"""What an oracle of preferences is: two answers in, the chance that the first is preferred.

An oracle need not come from a score: its preferences may be cyclic. A file holds one frozen
dataclass derived from ``Oracle`` and the module constant ``ORACLE`` naming it, and at least three
``EXAMPLES`` of (prompt, preferred answer, other answer); an oracle whose parameters lack defaults
has ``example_parameters(folder)``. Contract: shape (N,), in [0, 1] or NaN where it abstains;
``prefer(a, b) + prefer(b, a) = 1``; ``prefer(a, a) = 1/2``; batch and order do not matter;
``matrix`` is ``prefer`` of all pairs of one prompt's answers.
May import: errors, registry, tables, sandbox, numpy.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from dpo_diag.errors import DataError

DECIDED, ABSTAINED, WAVERED = "decided", "abstained", "wavered"


class Verdicts(NamedTuple):
    """What an oracle said of N pairs.

    Attributes:
        wins: (N,) P(first is preferred), NaN where it abstains.
        states: (N,) ``decided``, ``abstained`` (declined, or not to be read), or ``wavered``
            (another answer in the other order).
    """

    wins: np.ndarray
    states: np.ndarray


@dataclass(frozen=True)
class Oracle:
    """Base of every oracle; parameters are fields of the subclass.

    Class attributes:
        is_transitive: whether its preferences come from a score, so that a best answer exists; a
            property where it hangs on the parameters.
        blindness: what it is known not to see, in words.
    """

    is_transitive: ClassVar[bool] = True
    blindness: ClassVar[str] = ""

    @property
    def judge_model(self) -> str:
        """Language model that must be asked for it, a folder or hub id; empty where none is.

        Such an oracle has a field ``ask``, which the caller fills: questions in, replies out.
        """
        return ""

    def verdicts(
        self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
    ) -> "Verdicts":
        """``prefer`` with what became of each pair; for a judge that can decline or waver."""
        wins = self.prefer(prompts, first, second)
        states = np.where(np.isnan(wins), ABSTAINED, DECIDED).astype(object)
        return Verdicts(wins, states)

    def prefer(
        self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
    ) -> np.ndarray:
        """P(first is preferred to second) of each pair, shape (N,) float64."""
        raise TypeError(f"{type(self).__name__} does not implement prefer().")

    def matrix(self, prompt: str, responses: Sequence[str]) -> np.ndarray:
        """P(row's answer is preferred to the column's), shape (U, U) float64.

        The default asks ``prefer`` once, for every pair on and above the diagonal; an oracle that
        can do better overrides it.
        """
        rows, columns = np.triu_indices(len(responses))
        wins = self.prefer(
            [prompt] * len(rows), [responses[i] for i in rows], [responses[j] for j in columns]
        )
        table = np.full((len(responses), len(responses)), np.nan)
        table[columns, rows] = 1.0 - wins
        table[rows, columns] = wins
        return table

    @property
    def name(self) -> str:
        """The oracle's name: its file's name, with the parameter that tells two apart."""
        return type(self).__module__.rsplit(".", 1)[-1]

    @property
    def oracle_def(self) -> str:
        """Name and parameters as one string, the identity of the oracle."""
        values = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self))
        return f"{type(self).__module__.rsplit('.', 1)[-1]}({values})"


def check_lengths(prompts: Sequence[str], first: Sequence[str], second: Sequence[str]) -> None:
    """Nothing, where there is one prompt for each first and each second answer.

    Raises:
        DataError: the numbers differ.
    """
    if not len(prompts) == len(first) == len(second):
        raise DataError(
            f"an oracle takes one prompt per pair of answers, got {len(prompts)} prompts, "
            f"{len(first)} first and {len(second)} second answers."
        )
