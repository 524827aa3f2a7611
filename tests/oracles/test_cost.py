"""A cost model as an oracle: the number by hand, economy, abstention, bad parameters."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from dpo_diag import registry
from dpo_diag.errors import DataError, UnknownName
from dpo_diag.oracles.cost import CostOracle


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes the sandbox's harm the number an answer says, and notes what it is asked."""
    texts: list[str] = []

    def cost(self: Any, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        texts.extend(responses)
        return np.array([float(text) for text in responses])

    monkeypatch.setattr(registry.load("costs", "sandbox_harm"), "cost", cost)
    return texts


def test_chance_is_the_number_worked_by_hand(asked: list[str]) -> None:
    """Sigmoid((0.5 - 0.2) / 0.1) = sigmoid(3) = 0.95257."""
    oracle = CostOracle("sandbox_harm", scale=0.1)
    assert oracle.prefer(["p"], ["0.2"], ["0.5"])[0] == pytest.approx(0.95257, abs=1e-5)


def test_each_answer_is_given_to_the_cost_model_once(asked: list[str]) -> None:
    oracle = CostOracle("sandbox_harm")
    oracle.prefer(["p"] * 3, ["1", "1", "2"], ["2", "3", "3"])
    assert sorted(asked) == ["1", "2", "3"]


def test_far_costs_are_certain_without_overflow(asked: list[str]) -> None:
    oracle = CostOracle("sandbox_harm", scale=1e-3)
    assert oracle.prefer(["p"] * 2, ["0", "9e9"], ["9e9", "0"]).tolist() == [1.0, 0.0]


def test_it_abstains_where_the_cost_model_does() -> None:
    found = CostOracle("sandbox_harm").prefer(["hello there"], ["a"], ["b"])
    assert np.isnan(found).all()


def test_parameters_are_checked_when_it_is_built() -> None:
    with pytest.raises(DataError, match="scale must be greater than 0"):
        CostOracle("sandbox_harm", scale=0.0)
    with pytest.raises(UnknownName, match="Did you mean 'sandbox_harm'"):
        CostOracle("sandbox_ham")
    with pytest.raises(DataError, match="has no parameter 'x'"):
        CostOracle("sandbox_harm", cost_parameters={"x": 1})
