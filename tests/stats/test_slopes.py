"""Slopes: hand-worked, against the full regression with its sandwich, coverage with clusters."""

import numpy as np
import pytest

from dpo_diag.stats.slopes import clustered_slope


def slow_sandwich(x, y, clusters, controls):
    """The full design at once: (X'X)^-1 (sum of cluster scores) (X'X)^-1, with the CR1 factor."""
    design = np.column_stack([x, np.ones(len(x)), controls])
    bread = np.linalg.inv(design.T @ design)
    beta = bread @ design.T @ y
    left = y - design @ beta
    meat = np.zeros((design.shape[1],) * 2)
    names = sorted(set(clusters))
    for name in names:
        score = design[clusters == name].T @ left[clusters == name]
        meat += np.outer(score, score)
    n, g = len(x), len(names)
    factor = g / (g - 1) * (n - 1) / (n - design.shape[1])
    return beta[0], np.sqrt(factor * (bread @ meat @ bread)[0, 0])


def test_a_slope_is_hand_worked():
    """Values 0, 1, 2, 3 and outcomes 0, 1, 1, 1: sum of products 1.5, of squares 5: .3."""
    found = clustered_slope(np.arange(4.0), np.array([0.0, 1.0, 1.0, 1.0]), np.arange(4))
    assert found.estimate == pytest.approx(0.3)
    assert found.low < 0.3 < found.high


@pytest.mark.parametrize("seed", range(8))
def test_slope_and_error_are_those_of_the_full_regression(seed):
    rng = np.random.default_rng(seed)
    controls = rng.normal(size=(80, 3)) * [1.0, 100.0, 0.01]
    x = rng.normal(size=80) + controls[:, 0]
    y = (rng.random(80) < 0.5).astype(float)
    clusters = rng.integers(0, 30, 80)
    found = clustered_slope(x, y, clusters, controls=controls)
    slope, error = slow_sandwich(x, y, clusters, controls)
    assert (found.estimate, found.se) == (pytest.approx(slope), pytest.approx(error))


def test_a_control_takes_away_what_is_its_own():
    """The outcome follows the control alone, x is it with noise: raw slope high, held fixed 0."""
    rng = np.random.default_rng(1)
    control = rng.normal(size=4000)
    x, y = control + rng.normal(size=4000), control + 0.1 * rng.normal(size=4000)
    assert clustered_slope(x, y, np.arange(4000)).low > 0.4
    held = clustered_slope(x, y, np.arange(4000), controls=control[:, None])
    assert held.low < 0.0 < held.high and abs(held.estimate) < 0.01


def test_redundant_controls_change_nothing():
    rng = np.random.default_rng(0)
    x, y, control = rng.normal(size=(3, 50))
    once = clustered_slope(x, y, np.arange(50), controls=control[:, None])
    twice = clustered_slope(x, y, np.arange(50), controls=np.column_stack([control, 3 * control]))
    assert (twice.estimate, twice.se) == (pytest.approx(once.estimate), pytest.approx(once.se))


@pytest.mark.parametrize("x", [np.zeros(6), np.full(6, 0.1), np.full(6, np.nan)])
def test_what_does_not_vary_has_no_slope(x):
    found = clustered_slope(x, np.arange(6.0), np.arange(6))
    assert np.isnan(found.estimate) and found.n == 0


def test_x_that_is_a_control_has_no_slope():
    rng = np.random.default_rng(0)
    x = rng.normal(size=30)
    found = clustered_slope(x, rng.normal(size=30), np.arange(30), controls=2 * x[:, None])
    assert np.isnan(found.estimate)


def test_one_prompt_has_no_interval():
    found = clustered_slope(np.arange(5.0), np.array([0, 1, 0, 1, 1.0]), np.zeros(5, int))
    assert np.isnan(found.low) and found.n == 5


def test_intervals_cover_a_planted_slope_of_clustered_rows():
    """A share falling .2 per unit; three rows of a prompt share its x and most of its luck."""
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(400):
        prompts = np.repeat(np.arange(100), 3)
        x = np.repeat(rng.random(100), 3)
        luck = np.where(rng.random(300) < 0.8, np.repeat(rng.random(100), 3), rng.random(300))
        found = clustered_slope(x, (luck < 0.8 - 0.2 * x).astype(float), prompts)
        held += found.low <= -0.2 <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_intervals_cover_where_a_few_prompts_lie_far_out():
    """Distances with a long tail, 30 prompts of two rows: G - 1 degrees would cover .88."""
    rng = np.random.default_rng(5)
    held, prompts = 0, np.repeat(np.arange(30), 2)
    for _ in range(800):
        x = rng.exponential(size=30)[prompts]
        chance = 1.0 / (1.0 + np.exp(-0.5 - rng.normal(size=30)[prompts]))
        y = (rng.random(60) < chance).astype(float)
        found = clustered_slope(x, y, prompts, controls=rng.normal(size=(60, 2)))
        held += found.low <= 0.0 <= found.high
    assert 0.92 <= held / 800 <= 0.975
