import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from dpo_diag.errors import RecipeError
from dpo_diag.variants._base import PairLogps, TrainingFacts
from dpo_diag.variants.holder_dpo import HolderDpo, mislabelled_share

Maker = Callable[..., PairLogps]


def test_loss_by_hand(with_logratios: Maker) -> None:
    """G = 2: at margin 0 -3/4 + 2/8 = -1/2; at beta * m = log 3, p = 3/4.

    -3 * 9/16 + 2 * 27/64 = -108/64 + 54/64 = -.84375.
    """
    values = HolderDpo(beta=1.0).losses(with_logratios([0.0, math.log(3)], [0.0, 0.0]))
    assert values.tolist() == pytest.approx([-0.5, -0.84375])


@pytest.mark.parametrize("g", [0.5, 1.0, 2.0, 4.0])
def test_gradient_is_the_redescending_one(with_logratios: Maker, g: float) -> None:
    """-g (1 + g) p^g (1 - p)^2 for beta 1."""
    margins = np.linspace(-9, 9, 19)
    batch = with_logratios(margins, np.zeros(19))
    HolderDpo(beta=1.0, g=g).losses(batch).sum().backward()
    p = 1 / (1 + np.exp(-margins))
    np.testing.assert_allclose(
        batch.policy_chosen.grad.numpy(), -g * (1 + g) * p**g * (1 - p) ** 2, rtol=1e-9
    )


def test_a_very_wrong_pair_no_longer_pulls(with_logratios: Maker) -> None:
    batch = with_logratios([-40.0, -4000.0], [0.0, 0.0])
    HolderDpo(beta=1.0).losses(batch).sum().backward()
    assert (batch.policy_chosen.grad.abs() < 1e-30).all()


def test_it_is_not_a_proper_score_at_two(with_logratios: Maker) -> None:
    """l(s) + l(-s) = -1: a label drawn with probability .6 is best met with full certainty."""
    margins = np.array([0.3, 1.0, 7.0])
    variant = HolderDpo(beta=1.0)
    right = variant.losses(with_logratios(margins, np.zeros(3)))
    turned = variant.losses(with_logratios(-margins, np.zeros(3)))
    np.testing.assert_allclose((right + turned).detach().numpy(), -1.0)
    assert (0.6 * right + 0.4 * turned).diff().max() < 0


def test_share_of_four_pairs_by_hand() -> None:
    """P = 1, 1, 1, 0: 1 - (3/4) * (3 / 3) = 1/4."""
    margins = torch.tensor([50.0, 50.0, 50.0, -50.0], dtype=torch.float64)
    assert mislabelled_share(margins) == pytest.approx(0.25)


def test_share_of_a_policy_that_is_half_sure_by_hand() -> None:
    """P = 3/4 and 1/4: mean 1/2, p^2 sum 10/16, p^3 sum 28/64: 1 - .5 * 10/7 = 2/7."""
    margins = torch.tensor([math.log(3), -math.log(3)], dtype=torch.float64)
    assert mislabelled_share(margins) == pytest.approx(2 / 7)


@pytest.mark.parametrize("flips", [0.0, 0.1, 0.2, 0.4])
def test_share_finds_planted_flips(flips: float) -> None:
    """10,000 margins of 6 +- 1, the first of them turned round; 1 - p of a right one is .004."""
    margins = np.random.default_rng(0).normal(6, 1, 10_000)
    margins[: round(flips * 10_000)] *= -1
    assert mislabelled_share(torch.tensor(margins)) == pytest.approx(flips, abs=0.004)


def test_share_is_zero_where_nothing_is_told_apart_and_nan_without_pairs() -> None:
    assert mislabelled_share(torch.zeros(10)) == pytest.approx(0.0)
    assert mislabelled_share(torch.full((10,), 2.0)) == pytest.approx(0.0, abs=1e-9)
    assert math.isnan(mislabelled_share(torch.zeros(0)))


def test_logged_share_is_of_running_means_by_hand(with_logratios: Maker) -> None:
    """First step p = 1, 1, second p = 1, 0; the older step counts .9 as much.

    After one step 0; after two, mean p = (.9 * 1 + 1 * .5) / 1.9 = .736842, as are those of p^2 and
    p^3, so the share is .263158.
    """
    variant = HolderDpo(beta=1.0)
    state = variant.init_state(TrainingFacts(n_pairs=2))
    state = variant.update_state(with_logratios([90.0, 90.0], [0.0, 0.0]), state)
    assert variant.metrics(state)["mislabelled_share"] == pytest.approx(0.0, abs=1e-12)
    state = variant.update_state(with_logratios([90.0, -90.0], [0.0, 0.0]), state)
    assert variant.metrics(state)["mislabelled_share"] == pytest.approx(0.263158, abs=5e-7)


def test_a_loss_of_planted_flips_settles_on_the_true_order_and_the_share_is_logged(
    with_logratios: Maker,
) -> None:
    """One margin for 40 pairs of which 8 are turned round: gradient descent, then the metric."""
    direction = np.where(np.arange(40) < 8, -1.0, 1.0)
    variant, m = HolderDpo(beta=1.0), torch.zeros((), dtype=torch.float64, requires_grad=True)
    state = variant.init_state(TrainingFacts(n_pairs=40))
    assert variant.metrics(state) == {}
    for _ in range(400):
        batch = with_logratios(np.zeros(40), np.zeros(40))
        moved = batch.policy_chosen.detach() + m * torch.tensor(direction)
        batch = dataclasses.replace(batch, policy_chosen=moved)
        (grad,) = torch.autograd.grad(variant.losses(batch).mean(), m)
        m = (m - 5.0 * grad).detach().requires_grad_()
        state = variant.update_state(batch, state)
    assert m.item() > 4
    assert variant.metrics(state)["mislabelled_share"] == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("field", ["beta", "g"])
def test_values_out_of_range_are_refused(field: str) -> None:
    with pytest.raises(RecipeError, match=f"{field} must be greater than 0"):
        HolderDpo(**{field: 0.0})
