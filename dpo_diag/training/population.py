"""A variant's optimum on the bandit's whole population: its own loss, minimised exactly.

No second copy of any loss: the six labelled pairs of the bandit go through ``Variant.losses`` with
their weights. Start reading at ``population_optimum``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dpo_diag.errors import TrainingError
from dpo_diag.sandbox import bandit
from dpo_diag.sandbox.bandit import Comparisons, Counts
from dpo_diag.variants._base import PairLogps, TrainingFacts, Variant

_NEWTON_STEPS, _SETTLED = 50, 1e-13


@dataclass(frozen=True)
class Optimum:
    """Where the population loss of a variant is least.

    Attributes:
        theta: the policy's parameter.
        offsets: (3,) learned reward offset of each response, the last one 0; zeros for a variant
            that learns none.
    """

    theta: float
    offsets: np.ndarray


def population_optimum(variant: Variant, counts: Counts) -> Optimum:
    """The minimum over the policy's parameter and any learned state.

    Args:
        variant: with a loss of its own for each pair; one with learned state takes it from
            ``TrainingFacts.null_space``, a basis of offsets per pair and side.
        counts: how often each pair is compared.

    Raises:
        TrainingError: the search did not settle, the learned state is not such offsets, or the loss
            is not a mean over pairs.
    """
    population = bandit.comparisons(counts)
    basis = bandit.null_space()
    sides = np.stack([basis[population.chosen], basis[population.rejected]], axis=1)  # (6, 2, k)
    facts = TrainingFacts(n_pairs=len(population.weight), null_space=torch.from_numpy(sides))
    state = variant.init_state(facts)
    if variant.needs.pair_state:
        return _joint_minimum(variant, population, state)
    if variant.needs.couples_batch:
        raise TrainingError(
            f"bandit: {variant.name} couples the pairs of a batch, so it has no loss of a "
            "population; take a variant whose loss is a mean over pairs."
        )
    theta = bandit.least(lambda thetas: _mean_losses(variant, population, thetas, state))
    return Optimum(theta, np.zeros(3))


def _mean_losses(
    variant: Variant, population: Comparisons, thetas: np.ndarray, state: Any
) -> np.ndarray:
    """Population loss at each of n thetas, (n,)."""
    logp = torch.from_numpy(bandit.log_policy(thetas))  # (n, 3)
    losses = variant.losses(_pairs(logp, population), state).reshape(len(thetas), -1)
    return (losses @ torch.from_numpy(population.weight)).detach().numpy()


def _pairs(logp: torch.Tensor, population: Comparisons) -> PairLogps:
    """The population's six pairs under n policies, in the order of policies, (n * 6,)."""
    chosen = logp[:, torch.from_numpy(population.chosen)].flatten()
    rejected = logp[:, torch.from_numpy(population.rejected)].flatten()
    reference = torch.full_like(chosen, float(np.log(bandit.REFERENCE[0])))
    one = torch.ones(len(chosen), dtype=torch.int64)
    index = torch.arange(len(population.weight)).repeat(len(logp))
    return PairLogps(chosen, rejected, reference, reference, one, one, index)


def _joint_minimum(variant: Variant, population: Comparisons, state: Any) -> Optimum:
    """Minimise over theta and the learned coordinates of the offsets at once, by Newton's method.

    A direction that changes nothing, such as one and the same offset for all responses, is left
    where it starts, at 0, by the pseudo-inverse.
    """
    (name,) = (k for k, v in state.items() if isinstance(v, torch.Tensor) and v.requires_grad)
    if state[name].shape != (bandit.null_space().shape[1],):
        raise TrainingError(
            f"bandit: {variant.name} must learn its offsets in a null-space basis; auxdpo does "
            "with null_space exact."
        )
    weight, features = torch.from_numpy(population.weight), torch.from_numpy(bandit.FEATURES)

    def loss(point: torch.Tensor) -> torch.Tensor:
        logp = torch.log_softmax(point[:1, None] * features, dim=1)
        return variant.losses(_pairs(logp, population), {**state, name: point[1:]}) @ weight

    point = torch.zeros(1 + len(state[name]), dtype=torch.float64)
    for _ in range(_NEWTON_STEPS):
        slope = torch.func.grad(loss)(point)
        if slope.abs().max() < _SETTLED:
            offsets = bandit.null_space() @ point[1:].numpy()
            return Optimum(float(point[0]), offsets - offsets[-1])
        curvature = torch.func.hessian(loss)(point)
        point = point - torch.linalg.pinv(curvature, hermitian=True, rtol=1e-10) @ slope
    raise TrainingError(
        f"bandit: {variant.name} has no minimum that can be found; a slope of "
        f"{float(slope.abs().max()):.1e} is left after {_NEWTON_STEPS} steps."
    )
