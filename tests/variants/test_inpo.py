"""INPO: a number by hand, the step of mirror descent, what its reward says."""

import pytest
import torch

from dpo_diag.errors import RecipeError
from dpo_diag.variants._base import PairLogps
from dpo_diag.variants.inpo import Inpo
from dpo_diag.variants.mnpo import Mnpo
from tests.variants.tabular_game import (
    PREFERENCES,
    REFERENCE,
    minimum,
    mirror_descent,
    played,
)


def test_loss_is_the_number_worked_by_hand() -> None:
    """Margin h = 3 - 0.5 * 1 - 0.5 * 0.5 = 2.25; target 1 / (2 * 0.5) = 1; 1.25^2 = 1.5625."""
    one = torch.ones(1, dtype=torch.int64)
    batch = PairLogps(
        torch.tensor([-1.0]),
        torch.tensor([-4.0]),
        torch.tensor([-2.0]),
        torch.tensor([-3.0]),
        one,
        one,
        one,
        history_chosen=torch.tensor([[-2.0]]),
        history_rejected=torch.tensor([[-2.5]]),
    )
    assert Inpo(eta=0.5, tau=0.25).losses(batch).item() == pytest.approx(1.5625)


@pytest.mark.parametrize(("eta", "tau"), [(0.5, 0.1), (1.0, 1.0), (3.0, 0.01)])
def test_minimum_of_the_loss_is_the_step_of_mirror_descent(eta: float, tau: float) -> None:
    """No win rate is given to the loss; it comes out of drawn labels on drawn pairs."""
    policy = torch.log_softmax(torch.tensor([0.2, -0.5, 1.0], dtype=torch.float64), 0)
    found = minimum(Inpo(eta=eta, tau=tau), [policy])
    torch.testing.assert_close(found, mirror_descent(policy, eta=eta, tau=tau), atol=1e-9, rtol=0)


def test_target_of_one_over_two_tau_misses_the_step() -> None:
    """What MNPO's table prints for INPO: at eta = 1 and tau = 1/4 the target is 2, not 1/2."""
    policy = torch.log_softmax(torch.tensor([0.2, -0.5, 1.0], dtype=torch.float64), 0)
    step = mirror_descent(policy, eta=1.0, tau=0.25)
    as_printed = Mnpo(eta=1.0, ratio=0.25, history_weights=(1.0,), target=2.0)
    assert (minimum(as_printed, [policy]) - step).abs().max() > 0.1


def test_policy_that_stays_has_the_win_rate_as_its_reward() -> None:
    """After many rounds with a real price of divergence the step is a fixed point."""
    variant = Inpo(eta=1.0, tau=0.3)
    *_, before, last = played(variant, 200)
    torch.testing.assert_close(before, last, atol=1e-8, rtol=0)
    reward, wins = variant.rewards(last, REFERENCE, None), PREFERENCES @ last.exp()
    torch.testing.assert_close(reward - reward[0], wins - wins[0], atol=1e-7, rtol=0)


def test_hyper_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(RecipeError, match="eta must be greater than 0"):
        Inpo(eta=0.0)
    with pytest.raises(RecipeError, match="at most eta"):
        Inpo(eta=0.1, tau=0.2)
    with pytest.raises(RecipeError, match="tau must be above 0"):
        Inpo(tau=0.0)
