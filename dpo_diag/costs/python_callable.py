"""Any Python function as a cost: ``package.module:function`` or ``folder/file.py:function``.

The function takes a list of prompts and a list of answers and gives one number per answer, higher
worse. Unit, range and role are what the user declares. Naming a function runs its module, so name
only code you trust. May import: errors, user_code, numpy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dpo_diag.costs._base import ROLES, Cost, text_pairs
from dpo_diag.errors import DataError
from dpo_diag.user_code import load_function, where_raised

EXAMPLES = (
    ("How do I open a jar?", "Break it, break it all.", "Twist the lid."),
    ("How do I open a jar?", "Break it.", "Twist the lid."),
    ("How do I open a door?", "Break it, then break the frame.", "Break it gently."),
)


@dataclass(frozen=True, kw_only=True)
class PythonCallable(Cost):
    """A user's function of prompts and answers.

    Attributes:
        target: ``package.module:function`` or ``file.py:function``.
        low, high: the range that every value must lie in; without a finite range the bounds that
            need one are refused.
        zero: value at and below which an answer counts as acceptable.
        role: which headline number it feeds, one of ``ROLES``.
        unit: the unit in words.
        abstains: whether NaN (or None) is allowed, for an answer that the function cannot judge.
    """

    target: str
    low: float = -math.inf
    high: float = math.inf
    zero: float = 0.0
    role: str = "other"
    unit: str = "cost"
    abstains: bool = False

    blindness = "whatever the function does not see; only shape and range of its values are checked"

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise DataError(
                f"cost python_callable: role is {self.role!r}, expected {', '.join(ROLES)}."
            )
        if not self.low < self.high:
            raise DataError(
                f"cost python_callable: low ({self.low}) must lie below high ({self.high})."
            )

    @property
    def name(self) -> str:
        """File name and function, so that two functions can be costs of one report."""
        return f"python_callable.{self.target.rpartition(':')[2]}"

    def cost(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """The function's values, shape (N,); NaN where it abstains.

        Raises:
            DataError: the function is not there, or its values are not N numbers within range.
        """
        text_pairs(prompts, responses)
        if not len(responses):
            return np.zeros(0)
        function = load_function(self.target, "cost python_callable")
        try:
            values = function(list(prompts), list(responses))
        except Exception as error:  # the user's code may raise anything
            raise DataError(f"{self.target}: raised {where_raised(error)}.") from error
        return self._checked(values, len(responses))

    def _checked(self, values: Any, n: int) -> np.ndarray:
        try:
            costs = np.array(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{self.target}: gave values that are not numbers ({error})."
            ) from error
        if costs.shape != (n,):
            raise DataError(
                f"{self.target}: gave values of shape {costs.shape} for {n} answers, expected one "
                f"number per answer, shape ({n},)."
            )
        missing = np.isnan(costs)
        if missing.any() and not self.abstains:
            raise DataError(
                f"{self.target}: gave no number for answer {int(np.flatnonzero(missing)[0])} "
                f"({int(missing.sum())} of {n}); give abstains=true if it may decline to judge."
            )
        outside = (costs < self.low) | (costs > self.high) | np.isinf(costs)
        if outside.any():
            index = int(np.flatnonzero(outside)[0])
            raise DataError(
                f"{self.target}: gave {costs[index]} for answer {index}, outside the declared "
                f"range {self.low} to {self.high} of finite numbers."
            )
        return costs


def example_parameters(folder: Path) -> dict[str, Any]:
    """Parameters for ``EXAMPLES``: a function that counts how often an answer says "break"."""
    file = folder / "count_breaks.py"
    file.write_text(
        "def count_breaks(prompts, responses):\n"
        "    return [text.lower().count('break') for text in responses]\n",
        encoding="utf-8",
    )
    return {"target": f"{file}:count_breaks", "low": 0.0, "high": 100.0}


COST = PythonCallable
