"""Optima of the variants' own losses on the bandit, against closed forms and slow oracles."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from dpo_diag import registry
from dpo_diag.errors import TrainingError
from dpo_diag.sandbox import bandit
from dpo_diag.sandbox.bandit import Counts
from dpo_diag.training import population
from dpo_diag.training.population import Optimum, population_optimum

PARAMETERS = {
    "dpo": {"beta": 1.0},
    "ipo": {"tau": 1.0},
    "dpop": {"beta": 1.0, "lam": 1.0},
    "auxdpo": {"beta": 1.0, "null_space": "exact"},
}


def optimum(name: str, *counts: float, **parameters: float) -> Optimum:
    variant = registry.load("variants", name)(**{**PARAMETERS[name], **parameters})
    return population_optimum(variant, Counts(*counts))


@pytest.mark.parametrize(
    ("name", "reward"), [("dpo", 0.8956), ("ipo", 0.9690), ("dpop", 0.9698), ("auxdpo", 1.1993)]
)
def test_expected_rewards_of_the_papers_example(name: str, reward: float) -> None:
    """Counts 1:1:10; said to be .895, .969, .969 and 1.199, cut to three digits; reference 1."""
    found = bandit.expected_reward(optimum(name, 1, 1, 10).theta)
    assert found == pytest.approx(reward, abs=5e-5)


@pytest.mark.parametrize(
    ("counts", "theta", "masses", "reward"),
    [
        ((1, 1, 1), -0.4260, (0.205, 0.481, 0.314), 1.1668),
        ((1, 1, 5), 0.1253, (0.376, 0.293, 0.332), 0.9609),
        ((1, 1, 10), 0.4006, (0.472, 0.212, 0.316), 0.8956),
        ((1, 1, 100), 0.9114, (0.640, 0.103, 0.257), 0.8463),
        ((100, 1, 1), -0.4988, (0.187, 0.506, 0.307), 1.1988),
    ],
)
def test_table_of_dpos_optima(
    counts: tuple[float, ...], theta: float, masses: tuple[float, ...], reward: float
) -> None:
    found = optimum("dpo", *counts).theta
    assert found == pytest.approx(theta, abs=5e-5)
    np.testing.assert_allclose(bandit.policy(found), masses, atol=5e-4)
    assert bandit.expected_reward(found) == pytest.approx(reward, abs=5e-5)


@pytest.mark.parametrize("name", ["dpo", "ipo"])
def test_dpo_and_ipo_turn_round_exactly_at_the_threshold(name: str) -> None:
    threshold = bandit.reversal_threshold(1, 1)
    assert optimum(name, 1, 1, threshold - 1e-3).theta < -1e-6
    assert optimum(name, 1, 1, threshold + 1e-3).theta > 1e-6


def test_ipos_optimum_is_that_of_least_squares() -> None:
    """Margins 2t, -t, t; wanted p - 1/2 of each.

    At 1:1:10 t = (-.23106 * 2 - .38080 + 10 * .23106) / (4 + 1 + 10) = 1.467679 / 15 = .097845.
    """
    assert optimum("ipo", 1, 1, 10).theta == pytest.approx(0.097845, abs=5e-6)


def test_dpops_optimum_is_that_of_its_formula() -> None:
    """The formula once more in numpy, over six labelled pairs, with a bounded search."""
    population = bandit.comparisons(Counts(1, 1, 10))

    def loss(theta: float) -> float:
        ratio = np.array([theta, -theta, 0.0])
        ratio = ratio - np.log(np.exp(ratio).sum()) + np.log(3)
        chosen, rejected = ratio[population.chosen], ratio[population.rejected]
        inside = chosen - rejected - np.maximum(0.0, -chosen)
        return float((population.weight * np.log1p(np.exp(-inside))).sum())

    oracle = minimize_scalar(loss, bounds=(0.01, 2), method="bounded", options={"xatol": 1e-10})
    assert optimum("dpop", 1, 1, 10).theta == pytest.approx(oracle.x, abs=1e-6)


def test_dpop_stays_at_the_reference_where_the_pull_is_weak() -> None:
    """Any move lowers one of the two, which its penalty forbids: a kink, not a valley."""
    assert optimum("dpop", 1, 1, 5).theta == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    "counts", [(1, 1, 10), (1, 1, 1), (100, 1, 1), (0.1, 3, 30), (1, 0, 30), (0, 1, 1), (1, 1, 0)]
)
def test_auxdpos_joint_optimum_does_not_depend_on_the_counts(counts: tuple[float, ...]) -> None:
    """Any two compared pairs suffice: t = -1/2 and offsets 3/2, 3/2, 0, two-stage RLHF's theta.

    With these every margin is the gold one: 2t = -1, -t + 3/2 = 2, t + 3/2 = 1.
    """
    found = optimum("auxdpo", *counts)
    assert found.theta == pytest.approx(-0.5, abs=1e-6)
    assert found.theta == pytest.approx(bandit.local_solution(1.0), abs=1e-6)
    np.testing.assert_allclose(found.offsets, [1.5, 1.5, 0.0], atol=1e-6)


def test_theta_scales_with_one_over_beta_for_dpo_and_auxdpo() -> None:
    for name in ("dpo", "auxdpo"):
        one, ten = optimum(name, 1, 1, 10).theta, optimum(name, 1, 1, 10, beta=10.0).theta
        assert 10 * ten == pytest.approx(one, abs=1e-6)


def test_auxdpos_policy_does_not_order_all_three_but_its_reward_with_offsets_does() -> None:
    found = optimum("auxdpo", 1, 1, 10)
    a1, a2, a3 = bandit.policy(found.theta)
    assert a1 < a3 < a2
    augmented = found.theta * bandit.FEATURES + found.offsets
    np.testing.assert_allclose(augmented - augmented[2], [1.0, 2.0, 0.0], atol=1e-6)


def test_a_search_that_does_not_settle_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(population, "_NEWTON_STEPS", 1)
    with pytest.raises(TrainingError, match="auxdpo has no minimum that can be found; a slope of"):
        optimum("auxdpo", 1, 1, 10)


def test_state_that_is_not_offsets_in_the_null_space_is_refused() -> None:
    with pytest.raises(TrainingError, match="auxdpo must learn its offsets in a null-space basis"):
        optimum("auxdpo", 1, 1, 10, null_space="penalty")


def test_a_loss_that_couples_pairs_is_refused() -> None:
    with pytest.raises(TrainingError, match="drdpo couples the pairs of a batch"):
        population_optimum(registry.load("variants", "drdpo")(), Counts(1, 1, 1))
