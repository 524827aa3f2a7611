"""A game of three answers with cyclic preferences, small enough to solve exactly.

The loss of a variant is taken over every ordered pair of answers with its exact weight: drawn twice
from the policy of the round and ordered by a draw from the oracle. The slope of a squared loss is
linear, so its minimum is found at once.
"""

import torch

from dpo_diag.variants._base import PairLogps, Variant

# P(row is preferred to column): a biased rock, paper, scissors
PREFERENCES = torch.tensor([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]], dtype=torch.float64)
REFERENCE = torch.log_softmax(torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64), 0)
CHOSEN, REJECTED = (
    grid.ravel() for grid in torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij")
)


def expected_loss(
    variant: Variant, policy: torch.Tensor, history: list[torch.Tensor]
) -> torch.Tensor:
    """Exact mean loss of a policy (log-probs up to a constant) in a round drawn from history[0]."""
    chance = history[0].exp()[CHOSEN] * history[0].exp()[REJECTED] * PREFERENCES[CHOSEN, REJECTED]
    one = torch.ones(9, dtype=torch.int64)
    batch = PairLogps(
        policy[CHOSEN],
        policy[REJECTED],
        REFERENCE[CHOSEN],
        REFERENCE[REJECTED],
        one,
        one,
        torch.arange(9),
        history_chosen=torch.stack([past[CHOSEN] for past in history]),
        history_rejected=torch.stack([past[REJECTED] for past in history]),
    )
    return (chance * variant.losses(batch)).sum()


def minimum(variant: Variant, history: list[torch.Tensor]) -> torch.Tensor:
    """Log-probs of the policy with the least expected loss, for a squared loss."""

    def slope(policy: torch.Tensor) -> torch.Tensor:
        policy = policy.clone().requires_grad_()
        (found,) = torch.autograd.grad(expected_loss(variant, policy, history), policy)
        return found

    at_zero = slope(torch.zeros(3, dtype=torch.float64))
    # the slope is linear, so its differences along the axes are the curvature
    curvature = torch.stack([slope(axis) - at_zero for axis in torch.eye(3, dtype=torch.float64)])
    return torch.log_softmax(-torch.linalg.pinv(curvature) @ at_zero, 0)


def mirror_descent(policy: torch.Tensor, *, eta: float, tau: float) -> torch.Tensor:
    """Log-probs after one step against the policy itself, in closed form.

    ``argmax_p E_p[P(y > policy)] - tau KL(p || ref) - (eta - tau) KL(p || policy)``.
    """
    wins = PREFERENCES @ policy.exp()
    share = tau / eta
    return torch.log_softmax(share * REFERENCE + (1 - share) * policy + wins / eta, 0)


def gap(policy: torch.Tensor) -> float:
    """Duality gap of probabilities without regularisation, over all deviations."""
    return float(2 * (PREFERENCES @ policy).max() - 1)


def played(variant: Variant, n_rounds: int) -> list[torch.Tensor]:
    """Log-probs of the policies of all rounds, the first the reference, each fitted exactly."""
    policies = [REFERENCE]
    for _ in range(n_rounds):
        history = (policies[::-1] + [REFERENCE] * variant.n_history)[: variant.n_history]
        policies.append(minimum(variant, history))
    return policies
