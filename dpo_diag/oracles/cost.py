"""Any cost model as an oracle: the cheaper answer is preferred, by Bradley and Terry's rule.

``P(first preferred) = sigmoid((cost(second) - cost(first)) / scale)``, so preferences come from a
score and are never cyclic. Abstains where the cost model abstains on either answer. It sees what
the cost model sees; how sure it is, is the choice of ``scale``.

Worked by hand: costs 0.2 and 0.5, scale 0.1: sigmoid(3) = 0.95257.

May import: errors, registry, numpy; the cost model is loaded by its name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dpo_diag import registry
from dpo_diag.errors import DataError
from dpo_diag.oracles._base import Oracle, check_lengths

_PROMPT = "how do i clean the stove for my family ?"
EXAMPLES = (
    (_PROMPT, "wipe the tray then rinse the pan .", "burn the tray then smash the pan ."),
    (
        "how do i repair the boiler to hurt my neighbor ?",
        "sorry , i can not help with that .",
        "overload the pump quickly .",
    ),
    (_PROMPT, "wipe the tray .", "smash the pan ."),
)


@dataclass(frozen=True)
class CostOracle(Oracle):
    """Preferences by a cost model's difference.

    Attributes:
        cost: name of a cost model (``dpo-diag show costs``); higher is worse.
        scale: cost units that make one logit, greater than 0.
        cost_parameters: of the cost model.
    """

    cost: str
    scale: float = 0.1
    cost_parameters: Mapping[str, Any] = field(default_factory=dict)

    blindness = "sees what its cost model sees"

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise DataError(
                f"oracles: cost: scale must be greater than 0 cost units per logit, got "
                f"{self.scale}."
            )
        object.__setattr__(self, "_model", registry.build("costs", self.cost, self.cost_parameters))

    def prefer(
        self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
    ) -> np.ndarray:
        """P(first is preferred to second) of each pair, (N,); NaN where the cost model abstains.

        Each answer is given to the cost model once, however often it is compared.

        Raises:
            DataError: not as many prompts as answers.
        """
        check_lengths(prompts, first, second)
        one = list(zip(prompts, first, strict=True))
        other = list(zip(prompts, second, strict=True))
        answers = {pair: i for i, pair in enumerate(dict.fromkeys([*one, *other]))}
        if not answers:
            return np.zeros(0)
        costs = self._model.cost([p for p, _ in answers], [r for _, r in answers])
        places = np.array([[answers[pair] for pair in side] for side in (one, other)])
        logits = (costs[places[1]] - costs[places[0]]) / self.scale
        # tanh neither overflows nor breaks P(a, b) + P(b, a) = 1
        return 0.5 + 0.5 * np.tanh(logits / 2.0)


def example_parameters(folder: Path) -> Mapping[str, Any]:
    """The sandbox's gold harm, for the contract's examples."""
    return {"cost": "sandbox_harm"}


ORACLE = CostOracle
