import math
from collections.abc import Callable

import pytest
import torch

from dpo_diag.errors import RecipeError
from dpo_diag.variants._base import PairLogps
from dpo_diag.variants.dpo import Dpo
from dpo_diag.variants.drdpo import Drdpo

Maker = Callable[..., PairLogps]


def test_loss_and_weights_of_two_pairs_by_hand(with_logratios: Maker) -> None:
    """Margins 0 and -log 3 at beta 1: losses log 2 and log(1 + 3) = log 4.

    Mean of exp(-l): (1/2 + 1/4) / 2 = 3/8, the loss log(8/3) = .980829. Weights 2/3 and 1/3, times
    DPO's gradients -1/2 and -3/4: -1/3 and -1/4.
    """
    batch = with_logratios([0.0, 0.0], [0.0, math.log(3)])
    values = Drdpo(beta=1.0, temperature=1.0).losses(batch)
    assert values.tolist() == pytest.approx([0.980829, 0.980829], abs=5e-7)
    values.mean().backward()
    assert batch.policy_chosen.grad.tolist() == pytest.approx([-1 / 3, -1 / 4])


def test_one_pair_alone_is_dpo(with_logratios: Maker) -> None:
    batch = with_logratios([-1.0], [3.0])
    torch.testing.assert_close(Drdpo(temperature=0.1).losses(batch), Dpo().losses(batch))


def test_a_large_temperature_is_the_mean_of_dpos_losses(with_logratios: Maker) -> None:
    """The next term is the variance of the losses over 2b."""
    batch = with_logratios([5.0, -9.0, 2.0], [-4.0, 3.0, 1.0])
    mean = Dpo(beta=1.0).losses(batch).mean().item()
    value = Drdpo(beta=1.0, temperature=1e6).losses(batch).mean().item()
    assert value == pytest.approx(mean, abs=1e-4)


def test_halves_do_not_add_up_to_the_whole_batch(with_logratios: Maker) -> None:
    """Two right pairs and two wrong ones: each half alone sees nothing to compare with."""
    chosen, rejected = [4.0, 4.0, -4.0, -4.0], [-4.0, -4.0, 4.0, 4.0]
    variant = Drdpo(beta=1.0, temperature=1.0)
    whole = variant.losses(with_logratios(chosen, rejected)).mean().item()
    halves = [
        variant.losses(with_logratios(chosen[i], rejected[i])).mean().item()
        for i in (slice(0, 2), slice(2, 4))
    ]
    # about log 2 + 0 in one, (0 + 8) / 2 in the other
    assert whole == pytest.approx(math.log(2), abs=1e-3)
    assert sum(halves) / 2 == pytest.approx(4.0, abs=1e-3)


def test_a_batch_that_is_all_wrong_keeps_its_gradient(with_logratios: Maker) -> None:
    """Losses near 1000: exp(-1000) is 0 in double precision, the weights are 1/2 each."""
    batch = with_logratios([-500.0, -500.0], [500.0, 500.0])
    values = Drdpo(beta=1.0, temperature=1.0).losses(batch)
    values.mean().backward()
    assert values.tolist() == pytest.approx([1000.0, 1000.0])
    assert batch.policy_chosen.grad.tolist() == pytest.approx([-0.5, -0.5])


def test_a_very_wrong_pair_among_right_ones_is_forgotten_without_overflow(
    with_logratios: Maker,
) -> None:
    """Losses 0, 0, 0 and 4000: -log(3/4) = .287682, and no gradient of the last pair is left."""
    batch = with_logratios([2000.0] * 3 + [-2000.0], [-2000.0] * 3 + [2000.0])
    values = Drdpo(beta=1.0, temperature=1.0).losses(batch)
    values.mean().backward()
    assert values.tolist() == pytest.approx([0.287682] * 4, abs=5e-7)
    assert batch.policy_chosen.grad.tolist() == [0.0] * 4


@pytest.mark.parametrize("field", ["beta", "temperature"])
def test_values_out_of_range_are_refused(field: str) -> None:
    with pytest.raises(RecipeError, match=f"{field} must be greater than 0"):
        Drdpo(**{field: 0.0})
