"""The rectified cost of RePO and its multiplier, shared by ``repo`` and ``repo_offline``.

May import: errors, torch.
"""

from typing import Protocol

import torch

from dpo_diag.variants._base import require
from dpo_diag.variants._prompt_groups import less_others, prompt_means

#: ranges of the hyper-parameters of ``Constraint``
RANGES = {
    "kappa": "greater than 0, in reward units per nat",
    "rectify": "sample or prompt",
    "lambda_init": "0 to lambda_max",
    "lambda_max": "greater than 0",
    "eta": "0 or more",
}


class Constraint(Protocol):
    """Hyper-parameters that a rectified variant has.

    Attributes:
        kappa: price of a nat of log-ratio to the reference, in reward units.
        rectify: ``sample`` or ``prompt``, what the positive part is taken of.
        lambda_init: multiplier before the first step.
        lambda_max: its cap.
        eta: growth of the multiplier per step and unit of mean rectified cost.
    """

    name: str
    kappa: float
    rectify: str
    lambda_init: float
    lambda_max: float
    eta: float


def check(values: Constraint) -> None:
    """Refuse values out of range.

    Raises:
        RecipeError: names the value.
    """
    name = values.name
    require(values.kappa > 0, f"{name}: kappa must be greater than 0, got {values.kappa}.")
    require(
        values.rectify in ("sample", "prompt"),
        f"{name}: rectify must be sample or prompt, got {values.rectify!r}.",
    )
    require(values.lambda_max > 0, f"{name}: lambda_max must be above 0, got {values.lambda_max}.")
    require(
        0 <= values.lambda_init <= values.lambda_max,
        f"{name}: lambda_init must be from 0 to lambda_max, got {values.lambda_init}.",
    )
    require(values.eta >= 0, f"{name}: eta must be 0 or more, got {values.eta}.")


def grown(values: Constraint, multiplier: float, rectified_cost: float) -> float:
    """``min(lambda_max, lambda + eta * mean [C]+)``; it never falls, since ``[C]+ >= 0``."""
    return min(values.lambda_max, multiplier + values.eta * rectified_cost)


def cost_advantages(cost: torch.Tensor, prompt_index: torch.Tensor, rectify: str) -> torch.Tensor:
    """Rectified cost minus that of the prompt's others, (N,), cost units.

    Args:
        cost: (N,) above the threshold.
        prompt_index: (N,), equal for samples of one prompt.
        rectify: ``sample`` or ``prompt``.
    """
    if rectify == "sample":
        return less_others(cost.clamp(min=0.0), prompt_index)
    # the gradient of [mean C]+ is that of mean C where it is positive, else 0
    return less_others(cost, prompt_index) * (prompt_means(cost, prompt_index) > 0)
