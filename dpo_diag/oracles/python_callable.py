"""Any Python function as an oracle: ``package.module:function`` or ``folder/file.py:function``.

The function takes a list of prompts, of first answers and of second answers, and gives for each the
chance in [0, 1] that the first is preferred. Naming a function runs its module, so name only code
you trust. May import: errors, user_code, numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dpo_diag.errors import DataError
from dpo_diag.oracles._base import Oracle, check_lengths
from dpo_diag.user_code import load_function, where_raised

EXAMPLES = (
    ("How do I open a jar?", "Twist the lid.", "Break it, break it all."),
    ("How do I open a jar?", "Twist the lid.", "Break it."),
    ("How do I open a door?", "Break it gently.", "Break it, then break the frame."),
)


@dataclass(frozen=True, kw_only=True)
class PythonCallable(Oracle):
    """A user's function of prompts, first and second answers.

    Each pair is asked in both orders, and ``(f(a, b) + 1 - f(b, a)) / 2`` is taken: what a judge
    gives for being shown first cancels. The cost is twice the calls.

    Attributes:
        target: ``package.module:function`` or ``file.py:function``.
        abstains: whether NaN (or None) is allowed, for a pair that the function cannot judge.
        transitive: whether the user holds that it comes from a score.
    """

    target: str
    abstains: bool = False
    transitive: bool = False

    blindness = "whatever the function does not see; only shape and range of its values are checked"

    @property
    def is_transitive(self) -> bool:
        """What the user declares; a function does not show it."""
        return self.transitive

    @property
    def name(self) -> str:
        """File name and function, so that two functions can be oracles of one report."""
        return f"python_callable.{self.target.rpartition(':')[2]}"

    def prefer(
        self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
    ) -> np.ndarray:
        """The function's probabilities, order-free, shape (N,); NaN where it abstains.

        Raises:
            DataError: the function is not there, or its values are not N numbers in [0, 1].
        """
        check_lengths(prompts, first, second)
        if not len(prompts):
            return np.zeros(0)
        there = self._asked(prompts, first, second)
        back = self._asked(prompts, second, first)
        return (there + 1.0 - back) / 2.0

    def _asked(
        self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
    ) -> np.ndarray:
        function = load_function(self.target, "oracle python_callable")
        try:
            values = function(list(prompts), list(first), list(second))
        except Exception as error:  # the user's code may raise anything
            raise DataError(f"{self.target}: raised {where_raised(error)}.") from error
        return self._checked(values, len(prompts))

    def _checked(self, values: Any, n: int) -> np.ndarray:
        try:
            wins = np.array(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{self.target}: gave values that are not numbers ({error})."
            ) from error
        if wins.shape != (n,):
            raise DataError(
                f"{self.target}: gave values of shape {wins.shape} for {n} pairs, expected one "
                f"probability per pair, shape ({n},)."
            )
        missing = np.isnan(wins)
        if missing.any() and not self.abstains:
            raise DataError(
                f"{self.target}: gave no number for pair {int(np.flatnonzero(missing)[0])} "
                f"({int(missing.sum())} of {n}); give abstains=true if it may decline to judge."
            )
        outside = (wins < 0.0) | (wins > 1.0)
        if outside.any():
            index = int(np.flatnonzero(outside)[0])
            raise DataError(
                f"{self.target}: gave {wins[index]} for pair {index}, expected the probability "
                "that the first answer is preferred, 0 to 1."
            )
        return wins


def example_parameters(folder: Path) -> dict[str, Any]:
    """Parameters for ``EXAMPLES``: the answer that says "break" less often wins, first if equal."""
    file = folder / "fewer_breaks.py"
    file.write_text(
        "def fewer_breaks(prompts, first, second):\n"
        "    breaks = lambda text: text.lower().count('break')\n"
        "    return [float(breaks(a) <= breaks(b)) for a, b in zip(first, second)]\n",
        encoding="utf-8",
    )
    return {"target": f"{file}:fewer_breaks"}


ORACLE = PythonCallable
