import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from dpo_diag.errors import RecipeError
from dpo_diag.variants._base import PairLogps
from dpo_diag.variants.simpo import Simpo

Maker = Callable[..., PairLogps]


def pair(with_logratios: Maker) -> PairLogps:
    """Chosen -6 nats over 3 tokens, rejected -12 over 4: -2 and -3 per token."""
    return with_logratios([6.0], [-4.0])


def test_loss_of_one_pair_by_hand(with_logratios: Maker) -> None:
    """Beta 2: rewards -4 and -6; -log sigmoid(2 - 1) = log(1 + exp(-1)) = .313262."""
    value = Simpo(beta=2.0, gamma=1.0).losses(pair(with_logratios)).item()
    assert value == pytest.approx(0.313262, abs=5e-7)


def test_the_margin_asked_for_is_in_reward_units(with_logratios: Maker) -> None:
    """At gamma = the reward difference the loss is log 2, whatever beta: beta (3 - 2) = gamma."""
    for beta in (0.5, 2.0, 10.0):
        value = Simpo(beta=beta, gamma=beta).losses(pair(with_logratios)).item()
        assert value == pytest.approx(np.log(2))


def test_the_reference_plays_no_part(with_logratios: Maker) -> None:
    batch = pair(with_logratios)
    other = dataclasses.replace(batch, ref_chosen=torch.tensor([torch.nan]))
    assert torch.equal(Simpo().losses(batch), Simpo().losses(other))
    assert Simpo().rewards(-6.0, np.nan, 3) == pytest.approx(-4.0)


def test_a_longer_response_of_equal_sum_has_the_higher_reward() -> None:
    """-6 nats over 6 tokens is -1 each, over 3 it is -2."""
    assert Simpo(beta=2.0).rewards(-6.0, 0.0, 6) - Simpo(beta=2.0).rewards(-6.0, 0.0, 3) == 2.0


@pytest.mark.parametrize(("field", "value"), [("beta", 0.0), ("gamma", -0.1)])
def test_values_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(RecipeError, match=f"{field} must be"):
        Simpo(**{field: value})
