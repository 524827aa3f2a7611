from collections.abc import Callable

import numpy as np
import pytest
import torch

from dpo_diag.errors import RecipeError
from dpo_diag.variants._base import PairLogps
from dpo_diag.variants.dpo import Dpo
from dpo_diag.variants.rdpo import Rdpo

Maker = Callable[..., PairLogps]


def test_loss_of_one_pair_by_hand(with_logratios: Maker) -> None:
    """Margin 5, beta .1: (.9 * .474077 - .1 * .974077) / .8 = .329262 / .8 = .411577."""
    value = Rdpo(beta=0.1, epsilon=0.1).losses(with_logratios([2.0], [-3.0])).item()
    assert value == pytest.approx(0.411577, abs=5e-7)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.3, 0.45])
def test_expectation_over_flips_is_dpos_loss_and_gradient_on_the_true_label(
    with_logratios: Maker, epsilon: float
) -> None:
    """Exact: each pair counts as it is with weight 1 - epsilon and turned round with epsilon."""
    rng = np.random.default_rng(0)
    chosen, rejected = rng.normal(0, 8, 20), rng.normal(0, 8, 20)
    true, turned = with_logratios(chosen, rejected), with_logratios(rejected, chosen)
    variant = Rdpo(beta=0.3, epsilon=epsilon)
    values = (1 - epsilon) * variant.losses(true) + epsilon * variant.losses(turned)
    clean = with_logratios(chosen, rejected)
    wanted = Dpo(beta=0.3).losses(clean)
    torch.testing.assert_close(values, wanted)
    values.sum().backward()
    wanted.sum().backward()
    # turned round, the true chosen response is the rejected one: its log-prob acts with minus
    grad = true.policy_chosen.grad - turned.policy_chosen.grad
    torch.testing.assert_close(grad, clean.policy_chosen.grad)


def test_mean_over_simulated_flips_is_dpos_loss_where_dpos_own_mean_is_not(
    with_logratios: Maker,
) -> None:
    """20,000 pairs of margin 5, beta .1, three in ten flipped, seed 0.

    The two values of rDPO's loss differ by (.974077 - .474077) / .4 = 1.25, so the standard error
    is 1.25 * sqrt(.3 * .7 / 20000) = .0041; four of them are allowed. DPO's mean is off by
    .3 * .5 = .15.
    """
    is_flipped = np.random.default_rng(0).random(20_000) < 0.3
    chosen, rejected = np.where(is_flipped, -3.0, 2.0), np.where(is_flipped, 2.0, -3.0)
    batch = with_logratios(chosen, rejected)
    assert Rdpo(epsilon=0.3).losses(batch).mean().item() == pytest.approx(0.474077, abs=0.0162)
    assert Dpo().losses(batch).mean().item() == pytest.approx(0.474077 + 0.15, abs=0.01)


def test_loss_has_no_lower_bound_and_the_clip_gives_it_one(with_logratios: Maker) -> None:
    """Far out the slope in beta * m is -.1 / .8 = -.125; clipped at 4 nothing changes after 4."""
    batch = with_logratios([300.0, 500.0], [0.0, 0.0])
    near, far = Rdpo(beta=1.0).losses(batch).tolist()
    assert far - near == pytest.approx(-0.125 * 200)
    clipped = Rdpo(beta=1.0, margin_clip=4.0).losses(batch)
    at_clip = Rdpo(beta=1.0).losses(with_logratios([4.0], [0.0]))
    torch.testing.assert_close(clipped, at_clip.expand(2))
    clipped.sum().backward()
    assert (batch.policy_chosen.grad == 0).all()


def test_clip_leaves_smaller_margins_alone(with_logratios: Maker) -> None:
    batch = with_logratios([-30.0, 0.0, 3.9], [0.0, 0.0, 0.0])
    clipped = Rdpo(beta=1.0, margin_clip=4.0).losses(batch)
    assert torch.equal(clipped, Rdpo(beta=1.0).losses(batch))


@pytest.mark.parametrize(
    ("field", "value"),
    [("beta", 0.0), ("epsilon", -0.1), ("epsilon", 0.5), ("margin_clip", -1.0)],
)
def test_values_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(RecipeError, match=f"{field} must be"):
        Rdpo(**{field: value})
