from collections.abc import Callable

import numpy as np
import pytest
import torch

from dpo_diag.errors import RecipeError
from dpo_diag.variants._base import PairLogps
from dpo_diag.variants.dpo import Dpo
from dpo_diag.variants.dpop import Dpop

Maker = Callable[..., PairLogps]


def test_loss_of_one_pair_by_hand(with_logratios: Maker) -> None:
    """-2 + 3 - 5 * 2 = -9; log(1 + exp(2.7)) = 2.7 + log(1 + exp(-2.7)) = 2.765044."""
    value = Dpop(beta=0.3, lam=5.0).losses(with_logratios([-2.0], [-3.0])).item()
    assert value == pytest.approx(2.765044, abs=5e-7)


def test_loss_exceeds_dpos_exactly_where_the_chosen_response_has_fallen(
    with_logratios: Maker,
) -> None:
    rng = np.random.default_rng(0)
    chosen, rejected = rng.normal(0, 3, 50), rng.normal(0, 3, 50)
    batch = with_logratios(chosen, rejected)
    excess = Dpop(beta=0.3).losses(batch) - Dpo(beta=0.3).losses(batch)
    fallen = torch.tensor(chosen) < 0
    assert 10 < fallen.sum() < 40
    assert (excess[fallen] > 0).all()
    assert (excess[~fallen] == 0).all()


def test_a_fall_of_both_is_worth_nothing(with_logratios: Maker) -> None:
    """From (0, 0) to (-1, -40) the margin grows by 39 and the penalty, at lam 50, by 50."""
    before, after = with_logratios([0.0], [0.0]), with_logratios([-1.0], [-40.0])
    assert Dpop().losses(after).item() > Dpop().losses(before).item()
    assert Dpo().losses(after).item() < Dpo().losses(before).item()


def test_lam_of_zero_is_dpo(with_logratios: Maker) -> None:
    batch = with_logratios([-2.0, 1.0], [-3.0, 4.0])
    assert torch.equal(Dpop(beta=0.1, lam=0.0).losses(batch), Dpo(beta=0.1).losses(batch))


def test_reward_has_no_penalty() -> None:
    assert Dpop(beta=0.3).rewards(-14.0, -12.0, 3) == pytest.approx(-0.6)


@pytest.mark.parametrize(("field", "value"), [("beta", 0.0), ("lam", -1.0)])
def test_values_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(RecipeError, match=f"{field} must be"):
        Dpop(**{field: value})
