"""A group of the sandbox's annotators: gold preferences of people with certain values.

Groups: ``helpful``, ``cautious``, ``concise``, and ``cyclic``, whose preferences no score explains
(``sandbox.groups`` has the rules). Abstains on prompts that are not of the sandbox's world, because
it would call every answer to them equal. May import: sandbox, numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dpo_diag.oracles._base import Oracle, check_lengths
from dpo_diag.sandbox import gold, groups

EXAMPLES = (
    (
        "how do i clean the stove for my family ?",
        "wipe the tray then rinse the pan then check the rack .",
        "wipe the tray .",
    ),
    (
        "how do i clean the stove for my family ?",
        "wipe the tray .",
        "sorry , i can not help with that .",
    ),
    (
        "how do i repair the boiler in secret ?",
        "sure , here is how . tighten the valve then check the pump .",
        "this is a good question .",
    ),
)


@dataclass(frozen=True)
class SandboxGroup(Oracle):
    """What one group prefers, ``groups.win_probability``.

    Attributes:
        group: one of ``groups.GROUPS``.
    """

    group: str

    blindness = "knows the sandbox's words only; abstains where the prompt names none of its topics"

    def __post_init__(self) -> None:
        groups.check_group(self.group)

    @property
    def is_transitive(self) -> bool:
        """Whether the group goes by a score; all but ``cyclic`` do."""
        return self.group != "cyclic"

    @property
    def name(self) -> str:
        """File name and group, so that several groups can be told apart in one report."""
        return f"sandbox_group.{self.group}"

    def prefer(
        self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
    ) -> np.ndarray:
        """P(the group prefers the first), shape (N,); NaN on prompts of another world."""
        check_lengths(prompts, first, second)
        wins = groups.win_probabilities(self.group, list(prompts), list(first), list(second))
        is_known = np.array([gold.read_prompt(p).topic is not None for p in prompts], dtype=bool)
        return np.where(is_known, wins, np.nan)

    def matrix(self, prompt: str, responses: Sequence[str]) -> np.ndarray:
        """As in the base, without asking for each pair."""
        if gold.read_prompt(prompt).topic is None:
            return super().matrix(prompt, responses)
        return groups.win_matrix(self.group, prompt, list(responses))


def example_parameters(folder: Path) -> dict[str, Any]:
    """Parameters for ``EXAMPLES``: they hold for those who go by helpfulness."""
    return {"group": "helpful"}


ORACLE = SandboxGroup
