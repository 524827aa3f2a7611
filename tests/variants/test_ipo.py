from collections.abc import Callable

import pytest

from dpo_diag.errors import RecipeError
from dpo_diag.variants._base import PairLogps
from dpo_diag.variants.ipo import Ipo

Maker = Callable[..., PairLogps]


def test_loss_of_one_pair_by_hand(with_logratios: Maker) -> None:
    """Log-ratios 2 and -3, margin 5: asked for 5 at tau .1 and for 10 at tau .05, (5 - 10)^2."""
    batch = with_logratios([2.0], [-3.0])
    assert Ipo(tau=0.1).losses(batch).item() == pytest.approx(0.0)
    assert Ipo(tau=0.05).losses(batch).item() == pytest.approx(25.0)


def test_averaged_loss_by_hand(with_logratios: Maker) -> None:
    """Over 4 and 3 tokens: 2/4 - (-3)/3 = 1.5; (1.5 - 5)^2 = 12.25."""
    batch = with_logratios([2.0], [-3.0], (4, 3))
    assert Ipo(tau=0.1, average=True).losses(batch).item() == pytest.approx(12.25)


def test_more_margin_than_asked_for_is_pushed_back(with_logratios: Maker) -> None:
    """Margin 8 at tau .1: the gradient in the chosen log-prob is 2 (8 - 5) = 6, upwards."""
    batch = with_logratios([5.0], [-3.0])
    Ipo(tau=0.1).losses(batch).sum().backward()
    assert batch.policy_chosen.grad.item() == pytest.approx(6.0)


def test_a_pair_at_loss_zero_can_be_ranked_wrongly(with_logratios: Maker) -> None:
    """Reference -12 and -8, margin 2 as tau .25 asks: the policy has -11 and -9."""
    batch = with_logratios([1.0], [-1.0])
    assert Ipo(tau=0.25).losses(batch).item() == pytest.approx(0.0)
    assert batch.policy_chosen.item() < batch.policy_rejected.item()


def test_expected_loss_is_least_where_the_margin_is_linear_in_the_preference(
    with_logratios: Maker,
) -> None:
    """P = .8 at tau .1: margin (.8 - .5) / .1 = 3, where the two gradients cancel."""
    right, wrong = with_logratios([1.0], [-2.0]), with_logratios([-2.0], [1.0])
    (0.8 * Ipo(tau=0.1).losses(right)).sum().backward()
    (0.2 * Ipo(tau=0.1).losses(wrong)).sum().backward()
    total = right.policy_chosen.grad - wrong.policy_chosen.grad
    assert total.item() == pytest.approx(0.0, abs=1e-12)


def test_rewards_differ_by_one_half_at_the_margin_asked_for() -> None:
    """Tau .1 times 5 nats; averaged, tau .1 times 5 nats per token over 4 tokens."""
    assert Ipo(tau=0.1).rewards(-7.0, -12.0, 4) == pytest.approx(0.5)
    assert Ipo(tau=0.1, average=True).rewards(8.0, -12.0, 4) == pytest.approx(0.5)


def test_tau_of_zero_is_refused() -> None:
    with pytest.raises(RecipeError, match="tau must be greater than 0, got 0"):
        Ipo(tau=0.0)
