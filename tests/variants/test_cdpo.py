from collections.abc import Callable

import pytest
import torch

from dpo_diag.errors import RecipeError
from dpo_diag.variants._base import PairLogps
from dpo_diag.variants.cdpo import Cdpo
from dpo_diag.variants.dpo import Dpo

Maker = Callable[..., PairLogps]


def test_loss_of_one_pair_by_hand(with_logratios: Maker) -> None:
    """Margin 5, beta .1: .9 * .474077 + .1 * .974077 = .426669 + .097408 = .524077."""
    value = Cdpo(beta=0.1, epsilon=0.1).losses(with_logratios([2.0], [-3.0])).item()
    assert value == pytest.approx(0.524077, abs=5e-7)


def test_loss_is_least_where_the_sigmoid_is_the_share_of_right_labels(
    with_logratios: Maker,
) -> None:
    """Epsilon .2: beta * m = log(.8 / .2) = log 4 = 1.386294; the slope there is 0."""
    batch = with_logratios([1.3862943611], [0.0])
    Cdpo(beta=1.0, epsilon=0.2).losses(batch).sum().backward()
    assert batch.policy_chosen.grad.item() == pytest.approx(0.0, abs=1e-9)


def test_epsilon_of_zero_is_dpo(with_logratios: Maker) -> None:
    batch = with_logratios([-2.0, 1.0], [-3.0, 4.0])
    assert torch.equal(Cdpo(epsilon=0.0).losses(batch), Dpo().losses(batch))


def test_it_does_not_undo_flips(with_logratios: Maker) -> None:
    """Margin 5, beta .1, 10 % flips: .9 * .524077 + .1 * (.9 * .974077 + .1 * .474077).

    = .471669 + .092408 = .564077, not DPO's .474077 on the true label.
    """
    right, turned = with_logratios([2.0], [-3.0]), with_logratios([-3.0], [2.0])
    mean = 0.9 * Cdpo().losses(right).item() + 0.1 * Cdpo().losses(turned).item()
    assert mean == pytest.approx(0.564077, abs=1e-6)


@pytest.mark.parametrize(
    ("field", "value"), [("beta", 0.0), ("epsilon", -0.1), ("epsilon", 0.5), ("epsilon", 0.9)]
)
def test_values_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(RecipeError, match=f"{field} must be"):
        Cdpo(**{field: value})
