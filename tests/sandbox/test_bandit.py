"""The three-response bandit: what can be known of it without minimising any variant's loss."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from dpo_diag.errors import DataError
from dpo_diag.sandbox import bandit
from dpo_diag.sandbox.bandit import Counts

DATA = Path(__file__).parents[2] / "data" / "bandit"


def test_policy_and_reward_by_hand() -> None:
    """Theta log 2: weights 2, 1/2, 1 of 3.5; reward (2 * 1 + 1/2 * 2) / 3.5 = 6/7."""
    np.testing.assert_allclose(bandit.policy(np.log(2)), [4 / 7, 1 / 7, 2 / 7])
    assert bandit.expected_reward(np.log(2)) == pytest.approx(6 / 7)
    assert bandit.expected_reward(0.0) == pytest.approx(1.0)


def test_population_weighs_each_direction_by_its_probability() -> None:
    """Counts 1:1:2: (a1, a3) is half of all; a1 is preferred with sigmoid(1) = .731059."""
    population = bandit.comparisons(Counts(1, 1, 2))
    assert population.weight.sum() == pytest.approx(1.0)
    weights = {
        (int(chosen), int(rejected)): p
        for chosen, rejected, p in zip(
            population.chosen, population.rejected, population.weight, strict=True
        )
    }
    assert weights[0, 2] == pytest.approx(0.5 * 0.731059, abs=1e-6)
    assert weights[2, 0] == pytest.approx(0.5 * 0.268941, abs=1e-6)


def test_reversal_condition_has_the_published_coefficients() -> None:
    """Half of tanh(1/2) = .23106 per unit of margin: 1, 2 and sigmoid(2) - 1/2 = .38080."""
    slopes = [bandit.reversal_slope(Counts(*row)) for row in np.eye(3)]
    assert slopes == pytest.approx([-0.46212, -0.38080, 0.23106], abs=5e-6)
    assert bandit.reversal_threshold(1, 1) == pytest.approx(3.648, abs=5e-4)
    assert bandit.reversal_threshold(2, 0) == pytest.approx(4.0)  # 2 * .46212 / .23106


def test_null_space_is_that_of_offsets_equal_for_the_two_moving_responses() -> None:
    basis = bandit.null_space()
    assert basis.shape == (3, 2)
    np.testing.assert_allclose(basis.T @ basis, np.eye(2), atol=1e-12)
    np.testing.assert_allclose((bandit.REFERENCE * bandit.FEATURES) @ basis, 0.0, atol=1e-12)
    np.testing.assert_allclose(basis[0], basis[1], atol=1e-12)


def test_local_solution_by_hand() -> None:
    """F = 2/3, A_rho r = (1 - 2)/3: -1/2 over beta."""
    assert bandit.local_solution(1.0) == pytest.approx(-0.5)
    assert bandit.local_solution(10.0) == pytest.approx(-0.05)


@pytest.mark.parametrize(("beta", "scaled", "reward"), [(1.0, -0.995, 1.418), (10.0, -0.526, None)])
def test_kl_optimum_is_far_from_the_local_solution_at_small_beta(
    beta: float, scaled: float, reward: float | None
) -> None:
    def objective(theta: float) -> float:
        weights = np.exp([theta, -theta, 0.0])
        p = weights / weights.sum()
        return beta * float((p * np.log(3 * p)).sum()) - float(p[0] + 2 * p[1])

    found = bandit.kl_optimum(beta)
    oracle = minimize_scalar(objective, bounds=(-4, 4), method="bounded", options={"xatol": 1e-10})
    assert found == pytest.approx(oracle.x, abs=1e-6)
    assert beta * found == pytest.approx(scaled, abs=5e-4)
    if reward is not None:
        assert bandit.expected_reward(found) == pytest.approx(reward, abs=6e-4)


def test_search_finds_the_lower_of_two_valleys_and_a_kink() -> None:
    assert bandit.least(lambda x: np.minimum((x + 3) ** 2, (x - 2) ** 2 - 1)) == pytest.approx(2.0)
    assert bandit.least(lambda x: np.abs(x - 0.1234567)) == pytest.approx(0.1234567, abs=1e-9)


@pytest.mark.parametrize("values", [(0, 0, 0), (1, -1, 1), (1, 1, float("inf"))])
def test_counts_that_are_none_are_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(DataError, match="counts must be finite, 0 or more and not all 0"):
        Counts(*values)


def test_committed_set_is_what_its_generator_makes(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_bandit", DATA / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    manifest = module.make(tmp_path)
    assert manifest == json.loads((DATA / "manifest.json").read_text("utf-8"))
    for name in manifest["files"]:
        assert (tmp_path / name).read_text("utf-8") == (DATA / name).read_text("utf-8")
