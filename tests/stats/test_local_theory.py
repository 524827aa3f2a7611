"""The local theory against the bandit, where it is exact, and against slow optimisers."""

import numpy as np
import pytest
from scipy import optimize, special

from dpo_diag.sandbox import bandit
from dpo_diag.sandbox.bandit import Counts
from dpo_diag.stats.local_theory import (
    Population,
    dpo_solution,
    frequency_sensitivity,
    frequency_threshold,
    pair_kernel,
    redraw_spread,
    reversed_pairs,
    rlhf_log_ratios,
    turning_factor,
)

FIRST, SECOND = np.array(bandit.PAIRS).T
CELLS = np.outer(bandit.FEATURES, bandit.FEATURES)
PAIRS = pair_kernel(CELLS, FIRST, SECOND)


def bandit_population(counts: Counts, *, beta: float = 1.0, bound: float = np.inf) -> Population:
    n = np.array([counts.n_12, counts.n_23, counts.n_13])
    return Population(n, bandit.preference(FIRST, SECOND), beta, bound)


def random_problem(seed: int, *, n: int = 9, rank: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of fewer dimensions than pairs, and preferences that they cannot all express."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, rank)), generator.uniform(0.1, 0.9, n)


def test_pairs_of_the_bandit_have_the_products_of_their_slopes() -> None:
    """Margins 2t, -t, t of (a1, a2), (a2, a3), (a1, a3): products of 2, -1, 1."""
    slopes = np.array([2.0, -1.0, 1.0])
    np.testing.assert_allclose(PAIRS, np.outer(slopes, slopes))


@pytest.mark.parametrize(
    ("counts", "t"),
    [
        ((1, 1, 1), -0.4260),
        ((1, 1, 5), 0.1253),
        ((1, 1, 10), 0.4006),
        ((1, 1, 100), 0.9114),
        ((100, 1, 1), -0.4988),
    ],
)
@pytest.mark.parametrize("beta", [1.0, 0.1])
def test_bandit_optimum_is_the_dossiers(
    counts: tuple[float, float, float], t: float, beta: float
) -> None:
    """Differences of log-probs are linear in theta there, so the local theory is exact."""
    found = dpo_solution(PAIRS, bandit_population(Counts(*counts), beta=beta))
    np.testing.assert_allclose(beta * found.margins, [2 * t, -t, t], atol=2 * 5e-5)


def test_bandit_reversal_is_predicted_beyond_its_threshold_only() -> None:
    """3.648 comparisons of (a1, a3) for each of the others; (a1, a2) and (a2, a3) then turn."""
    below, above = (
        reversed_pairs(dpo_solution(PAIRS, bandit_population(Counts(1, 1, n_13))))
        for n_13 in (3.64, 3.66)
    )
    np.testing.assert_array_equal(below, [False, False, True])
    np.testing.assert_array_equal(above, [True, True, False])


@pytest.mark.parametrize("others", [(1.0, 1.0), (2.0, 0.0), (3.0, 0.5)])
def test_bandit_threshold_is_the_closed_form(others: tuple[float, float]) -> None:
    found = frequency_threshold(PAIRS, bandit_population(Counts(*others, 1.0)), pair=0, moved=2)
    assert found == pytest.approx(bandit.reversal_threshold(*others), rel=1e-9)


def test_no_threshold_where_no_count_turns_the_pair() -> None:
    """The pair (a1, a3) alone: however often it is compared, it is on its own side."""
    population = bandit_population(Counts(0, 0, 1))
    assert np.isnan(frequency_threshold(PAIRS, population, pair=2, moved=2))


def test_bandit_sensitivity_by_hand() -> None:
    """One parameter t, margins s t: dt / dlog n_j = n_j s_j (p_j - q_j) / sum n s^2 q (1 - q)."""
    counts = np.array([1.0, 1.0, 10.0])
    found = dpo_solution(PAIRS, bandit_population(Counts(*counts)))
    slopes = np.array([2.0, -1.0, 1.0])
    q = special.expit(found.margins)
    curvature = np.sum(counts * slopes**2 * q * (1 - q))
    rates = counts * slopes * (bandit.preference(FIRST, SECOND) - q) / curvature
    np.testing.assert_allclose(frequency_sensitivity(found), np.outer(slopes, rates), rtol=1e-8)


@pytest.mark.parametrize("bound", [np.inf, 0.7])
def test_sensitivities_are_finite_differences(bound: float) -> None:
    features, p = random_problem(0)
    counts = np.random.default_rng(1).uniform(0.5, 4.0, len(p))
    kernel = features @ features.T

    def margins(log_counts: np.ndarray) -> np.ndarray:
        return dpo_solution(kernel, Population(np.exp(log_counts), p, 0.8, bound)).margins

    solution = dpo_solution(kernel, Population(counts, p, 0.8, bound))
    assert (solution.multiplier > 0) == np.isfinite(bound)
    step, base = 1e-4, np.log(counts)
    expected = np.column_stack(
        [
            (margins(base + step * row) - margins(base - step * row)) / (2 * step)
            for row in np.eye(len(p))
        ]
    )
    found = frequency_sensitivity(solution)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 0.0, atol=1e-9)


def test_bandit_turns_at_the_factor_that_all_counts_are_off_by() -> None:
    """At 1:1:3.6, n_13 up by f and the others down by f meet 3.648 at f = sqrt(3.648 / 3.6)."""
    solution = dpo_solution(PAIRS, bandit_population(Counts(1, 1, 3.6)))
    found = turning_factor(solution, frequency_sensitivity(solution))
    exact = np.log(bandit.reversal_threshold(1, 1) / 3.6) / 2
    np.testing.assert_allclose(np.log(found), exact, rtol=0.02)


def test_pairs_that_no_count_moves_never_turn() -> None:
    solution = dpo_solution(np.eye(2), Population(np.ones(2), np.array([0.9, 0.4]), 1.0))
    factors = turning_factor(solution, np.zeros((2, 2)))
    np.testing.assert_array_equal(factors, np.inf)


def test_redraw_spread_is_that_of_drawn_counts() -> None:
    """Each pair compared about 200 times, 400 draws of the counts."""
    features, p = random_problem(7)
    kernel, counts = features @ features.T, np.full(len(p), 200.0)
    solution = dpo_solution(kernel, Population(counts, p, 0.8))
    found = redraw_spread(frequency_sensitivity(solution), counts)
    generator = np.random.default_rng(8)
    drawn = [
        dpo_solution(kernel, Population(generator.poisson(counts), p, 0.8)).margins
        for _ in range(400)
    ]
    np.testing.assert_allclose(found, np.std(drawn, axis=0), rtol=0.15)


def test_redraw_spread_of_prompts_is_that_of_prompts_drawn_whole() -> None:
    """60 prompts of three pairs whose gradients are nearly one; pairs alone would say .65."""
    generator = np.random.default_rng(9)
    own = np.repeat(generator.normal(size=(60, 20)), 3, axis=0)
    features = 0.9 * own + 0.4 * generator.normal(size=(180, 20))
    kernel, prompts = features @ features.T, np.repeat(np.arange(60), 3)
    p = generator.uniform(0.2, 0.8, 60)[prompts]
    solution = dpo_solution(kernel, Population(np.ones(180), p, 0.5))
    found = redraw_spread(frequency_sensitivity(solution), np.ones(180), clusters=prompts)
    drawn = []
    for _ in range(200):
        counts = generator.poisson(20, 60)[prompts] / 20.0
        drawn.append(dpo_solution(kernel, Population(counts, p, 0.5)).margins * np.sqrt(20.0))
    assert np.median(found / np.std(drawn, axis=0)) == pytest.approx(1.0, abs=0.1)


def test_optimum_is_a_plain_optimisers() -> None:
    features, p = random_problem(2)
    counts = np.arange(len(p), dtype=float)  # one pair is never compared
    beta = 0.3

    def loss(point: np.ndarray) -> float:
        scores = beta * features @ point
        return float(counts @ (np.logaddexp(0, scores) - p * scores))

    oracle = optimize.minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-9})
    found = dpo_solution(features @ features.T, Population(counts, p, beta))
    np.testing.assert_allclose(found.margins, features @ oracle.x, atol=1e-5)
    assert found.norm == pytest.approx(np.linalg.norm(oracle.x), abs=1e-5)


def test_bounded_optimum_is_a_constrained_optimisers_also_for_certain_labels() -> None:
    """Labels of probability 1 have no free optimum; on a ball they do."""
    features, _ = random_problem(3)
    features[:, 0] = np.abs(features[:, 0]) + 0.5  # one direction has every pair right
    p, counts, bound = np.ones(len(features)), np.ones(len(features)), 1.5

    def loss(point: np.ndarray) -> float:
        return float(np.logaddexp(0, -(features @ point)).sum())

    oracle = optimize.minimize(
        loss,
        np.full(3, 0.1),
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda w: bound**2 - w @ w},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    found = dpo_solution(features @ features.T, Population(counts, p, 1.0, bound))
    assert found.norm == pytest.approx(bound, rel=1e-9)
    np.testing.assert_allclose(found.margins, features @ oracle.x, atol=1e-5)


def test_a_bound_that_does_not_bind_is_not_felt() -> None:
    """Certain labels that contradict each other have a free optimum: two of three win, log 2."""
    kernel = np.outer([1.0, 1.0, -1.0], [1.0, 1.0, -1.0])
    found = dpo_solution(kernel, Population(np.ones(3), np.ones(3), 1.0, 50.0))
    np.testing.assert_allclose(found.margins, np.log(2) * np.array([1, 1, -1]), rtol=1e-9)
    assert found.multiplier == 0.0
    np.testing.assert_array_equal(reversed_pairs(found), [False, False, True])


def test_many_dimensions_are_solved_as_few_are() -> None:
    """400 pairs with gradients of 350 dimensions, solved without a matrix: the optimum's slope.

    At the optimum the slope of the loss is minus the multiplier times the point.
    """
    generator = np.random.default_rng(6)
    features, p = generator.normal(size=(400, 350)), generator.uniform(size=400).round()
    found = dpo_solution(features @ features.T, Population(np.ones(400), p, 0.3, 2.0))
    assert found.norm == pytest.approx(2.0, rel=1e-9)
    pull = 0.3 * (special.expit(0.3 * found.margins) - p) / 400
    slope = found.coordinates.T @ pull
    np.testing.assert_allclose(slope, -found.multiplier * found.point, atol=1e-11)


def test_a_class_that_can_express_the_truth_finds_it_whatever_the_counts() -> None:
    features, p = random_problem(4, n=5, rank=8)
    kernel = features @ features.T
    for counts in (np.ones(5), np.array([1.0, 100.0, 2.0, 50.0, 1.0])):
        found = dpo_solution(kernel, Population(counts, p, 0.5))
        np.testing.assert_allclose(found.margins, special.logit(p) / 0.5, atol=1e-8)
        assert not reversed_pairs(found).any()
        np.testing.assert_allclose(frequency_sensitivity(found), 0.0, atol=1e-7)


def test_pairs_without_any_gradient_stay_where_they_are() -> None:
    found = dpo_solution(np.zeros((2, 2)), Population(np.ones(2), np.array([0.9, 0.2]), 1.0))
    np.testing.assert_array_equal(found.margins, 0.0)
    assert not reversed_pairs(found).any()


@pytest.mark.parametrize("beta", [1.0, 10.0])
def test_rlhf_solution_of_the_bandit_is_its_closed_form(beta: float) -> None:
    """Theta -1 / (2 beta): log-ratios of theta, -theta, 0 to first order."""
    found = rlhf_log_ratios(CELLS, bandit.REFERENCE, bandit.GOLD, beta)
    np.testing.assert_allclose(found, bandit.local_solution(beta) * bandit.FEATURES, atol=1e-12)


def test_rlhf_solution_is_equation_five_written_out() -> None:
    """Ten cells, four parameters, masses of which two are 0."""
    generator = np.random.default_rng(5)
    gradients = generator.normal(size=(4, 10))  # A
    mass = generator.uniform(size=10) * (np.arange(10) > 1)
    rewards = generator.normal(size=10)
    fisher = gradients @ np.diag(mass) @ gradients.T
    theta = np.linalg.pinv(fisher) @ gradients @ np.diag(mass) @ rewards / 0.4
    found = rlhf_log_ratios(gradients.T @ gradients, mass, rewards, 0.4)
    np.testing.assert_allclose(found, gradients.T @ theta, atol=1e-10)


@pytest.mark.parametrize(
    ("counts", "preferences", "message"),
    [
        ([1.0, 1.0], [0.5], "counts of shape"),
        ([0.0, 0.0], [0.5, 0.5], "not all 0"),
        ([1.0, 1.0], [0.5, 1.5], "probabilities"),
        ([1.0, 1.0], [0.5, 1.0], "no finite optimum"),
    ],
)
def test_populations_that_are_none_are_refused(
    counts: list[float], preferences: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Population(np.array(counts), np.array(preferences), 1.0)
