"""Spearman's correlation: by hand, against scipy, coverage with and without clusters."""

import math

import numpy as np
import pytest
from scipy import stats

from dpo_diag.stats.rank_correlation import rank_correlation


def test_by_hand() -> None:
    found = rank_correlation(np.array([1.0, 2, 3, 4]), np.array([20.0, 10, 40, 30]), np.arange(4))
    assert found.estimate == pytest.approx(0.6)


def test_is_scipys_with_ties() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, 80).astype(float)
    y = x + rng.integers(0, 9, 80)
    found = rank_correlation(x, y, np.arange(80))
    assert found.estimate == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.low < found.estimate < found.high
    assert (found.n, found.n_clusters) == (80, 80)


def test_the_influence_is_that_of_a_jackknife() -> None:
    """Leaving one row out at a time gives the same standard error, to a few per cent."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=150)
    y = x + rng.normal(size=150)
    left = [stats.spearmanr(np.delete(x, i), np.delete(y, i)).statistic for i in range(150)]
    jackknife = math.sqrt(149 / 150 * np.sum((np.array(left) - np.mean(left)) ** 2))
    assert rank_correlation(x, y, np.arange(150)).se == pytest.approx(jackknife, rel=0.05)


@pytest.mark.parametrize("size", [1, 3])
def test_coverage(size: int) -> None:
    """95 % of 600 intervals hold the truth, 6/pi asin(r/2) of a normal pair; rows in clusters."""
    rng = np.random.default_rng(2)
    truth, hits, groups = 6 / math.pi * math.asin(0.25), 0, 80
    for _ in range(600):
        shared = rng.normal(size=(2, groups)).repeat(size, axis=1) * math.sqrt(0.7)
        own = rng.normal(size=(2, groups * size)) * math.sqrt(0.3)
        first, other = shared + own
        second = 0.5 * first + math.sqrt(0.75) * other
        found = rank_correlation(first, second, np.arange(groups).repeat(size))
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / 600 <= 0.975


def test_nothing_to_rank_is_missing_and_certainty_is_not_claimed() -> None:
    assert math.isnan(rank_correlation(np.ones(5), np.arange(5.0), np.arange(5)).estimate)
    assert rank_correlation(np.zeros(0), np.zeros(0), np.zeros(0, int)).n == 0
    same = rank_correlation(np.arange(9.0), np.arange(9.0), np.arange(9))
    assert same.estimate == 1.0 and math.isnan(same.low)


def test_rows_with_a_missing_number_are_left_out() -> None:
    x, y = np.array([1.0, 2, 3, 4, np.nan]), np.array([20.0, 10, 40, 30, 1.0])
    assert rank_correlation(x, y, np.arange(5)).n == 4
