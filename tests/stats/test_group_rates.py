"""The worst of several groups, with limits: hand-worked numbers and planted worlds."""

import numpy as np
import pytest
from scipy import stats

from dpo_diag.stats.group_rates import group_gap, is_divided, worst_group

TRUTH = np.array([0.5, 0.45, 0.45])


def test_worst_group_by_hand() -> None:
    """Means .5 and .3, both with standard error .1 (values mean +- .1, n = 2: sd .1414, / sqrt 2).

    Two groups: each at level .975, t with 1 degree: 25.4517, so the least lower limit is
    .3 - 2.54517 and the least upper one .3 + 2.54517.
    """
    worst = worst_group(np.array([[0.6, 0.2], [0.4, 0.4]]))
    t = float(stats.t.ppf(1 - 0.025 / 2, 1))
    assert t == pytest.approx(25.4517, abs=1e-4)
    assert worst.estimate == pytest.approx(0.3)
    assert worst.low == pytest.approx(0.3 - 0.1 * t) and worst.high == pytest.approx(0.3 + 0.1 * t)
    assert (worst.n, worst.n_clusters) == (2, 2)


def test_gap_by_hand_is_zero_below_until_groups_are_told_apart() -> None:
    close = group_gap(np.array([[0.6, 0.2], [0.4, 0.4]]))
    assert close.estimate == pytest.approx(0.2) and (close.low, close.high) == (0.0, 1.0)
    rng = np.random.default_rng(0)
    far = group_gap(np.column_stack([0.8 + 0.01 * rng.normal(size=50), 0.1 + 0.1 * rng.random(50)]))
    assert 0.6 < far.low < far.estimate < far.high < 0.7


def test_limits_cover_the_least_true_rate_and_the_true_gap() -> None:
    """Planted rates .5, .45, .45 over 200 worlds of 60 prompts: at least 95 % minus its noise."""
    covered, gaps, estimates = 0, 0, []
    for seed in range(200):
        rates = np.clip(np.random.default_rng(seed).normal(TRUTH, 0.25, (60, 3)), 0, 1)
        worst, gap = worst_group(rates), group_gap(rates)
        covered += worst.low <= 0.45 <= worst.high
        gaps += gap.low <= 0.05 <= gap.high
        estimates.append(worst.estimate)
    assert covered / 200 >= 0.93 and gaps / 200 >= 0.93
    assert np.mean(estimates) < 0.44  # biased down, as the docstring says


def test_nothing_known_of_a_group_gives_nothing() -> None:
    rates = np.array([[0.5, np.nan], [0.6, np.nan]])
    assert worst_group(rates).n == 0 and np.isnan(worst_group(rates).estimate)
    assert np.isnan(group_gap(rates[:, :1]).estimate)
    assert np.isnan(worst_group(np.zeros((0, 2))).estimate)


def test_a_group_whose_rate_does_not_vary_takes_the_limits_away() -> None:
    worst = worst_group(np.array([[0.5, 0.2], [0.5, 0.4]]))
    assert worst.estimate == pytest.approx(0.3) and np.isnan([worst.low, worst.high]).all()


def test_divided_means_one_for_and_one_against() -> None:
    rates = np.array([[0.6, 0.4], [0.5, 0.4], [0.6, 0.7], [0.6, np.nan]])
    np.testing.assert_array_equal(is_divided(rates), [1.0, 0.0, 0.0, np.nan])
    assert np.isnan(is_divided(rates[:, :1])).all()
