"""Which prompts a round asks and which units a step takes."""

import numpy as np
import pytest

from dpo_diag.training.round_plan import RoundPlan


def test_every_prompt_is_asked_once_per_epoch() -> None:
    """10 prompts, 4 a round: rounds of 4, 4, 2; 2 steps a pass, 3 passes, so 18 steps."""
    plan = RoundPlan(seed=3, n_prompts=10, per_round=4, batch_size=2, passes=3)
    asked = np.concatenate([plan.prompts(number) for number in range(3)])
    assert sorted(asked) == list(range(10))
    assert plan.n_per_epoch == 18
    assert [plan.number(step) for step in (0, 5, 6, 17, 18)] == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("n_units", [1, 2, 3, 7, 8])
def test_each_pass_takes_every_unit_in_as_many_steps(n_units: int) -> None:
    plan = RoundPlan(seed=0, n_prompts=8, per_round=8, batch_size=2, passes=2)
    for first in (0, 4):
        parts = [plan.units(first + i, n_units) for i in range(4)]
        assert all(len(part) for part in parts)
        if n_units >= 4:
            assert sorted(np.concatenate(parts)) == list(range(n_units))
            sizes = [len(part) for part in parts]
            assert max(sizes) - min(sizes) <= 1
        else:
            assert set(np.concatenate(parts)) == set(range(n_units))


def test_passes_and_rounds_have_orders_of_their_own() -> None:
    plan = RoundPlan(seed=0, n_prompts=64, per_round=32, batch_size=32, passes=2)
    orders = [plan.units(step, 32).tolist() for step in range(4)]
    assert len({tuple(order) for order in orders}) == 4
    assert plan.units(3, 32).tolist() == orders[3]


def test_uses_and_rounds_have_seeds_of_their_own() -> None:
    plan = RoundPlan(seed=0, n_prompts=8, per_round=8, batch_size=2, passes=1)
    seeds = {plan.derived_seed(use, n) for use in ("samples", "labels", "gap") for n in range(3)}
    assert len(seeds) == 9
