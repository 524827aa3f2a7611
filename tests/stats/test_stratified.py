"""Sums over sets that share prompts: equal to the independent ones apart, wider together."""

import numpy as np
import pytest

from dpo_diag.stats.contrast import Group, weighted_share_sum, weighted_sum
from dpo_diag.stats.stratified import shared_share_sum, shared_sum


def disjoint(rng: np.random.Generator, n: int = 40) -> list[Group]:
    values = rng.random((2, n)) < 0.7
    return [Group(0.5, values[i].astype(float), np.arange(n) + i * n) for i in range(2)]


def test_without_shared_prompts_it_is_the_independent_sum() -> None:
    groups = disjoint(np.random.default_rng(0))
    ours, plain = shared_share_sum(groups), weighted_share_sum(groups)
    assert ours.estimate == plain.estimate
    assert ours.high - ours.low == pytest.approx(plain.high - plain.low, rel=0.02)
    assert ours.n_clusters == 80
    one, other = shared_sum(groups), weighted_sum(groups)
    assert one.se == pytest.approx(other.se, rel=0.02)


def test_one_set_counted_twice_has_the_width_of_one() -> None:
    """Half of a set and half of the same set is the set: its arms, not those of two halves."""
    values = (np.random.default_rng(1).random(60) < 0.8).astype(float)
    half = Group(0.5, values, np.arange(60))
    twice, once = shared_share_sum([half, half]), weighted_share_sum([half._replace(weight=1.0)])
    assert twice.estimate == pytest.approx(once.estimate)
    assert twice.high - twice.low == pytest.approx(once.high - once.low, rel=1e-6)
    assert twice.n_clusters == 60


def test_mean_and_standard_error_by_hand() -> None:
    """Weights 1 and -1, values (1, 0) and (0, 0), clusters (0, 1) both.

    The sum is 1/2 - 0. Prompt totals: (1 - 1/2)/2 = 1/4 and -1/4, so the variance is
    2/1 * (1/16 + 1/16) = 1/4 and the standard error 1/2.
    """
    groups = [Group(1.0, np.array([1.0, 0.0]), np.arange(2))]
    groups.append(Group(-1.0, np.zeros(2), np.arange(2)))
    found = shared_sum(groups)
    assert (found.estimate, found.se) == (0.5, 0.5)
    assert found.n == 4
    assert found.n_clusters == 2


def test_an_empty_set_makes_the_sum_missing() -> None:
    empty = Group(0.5, np.array([np.nan]), np.array([0]))
    full = Group(0.5, np.ones(3), np.arange(3))
    assert np.isnan(shared_share_sum([full, empty]).estimate)
    assert np.isnan(shared_sum([full, empty]).estimate)


def test_all_right_is_no_certainty() -> None:
    groups = [Group(0.5, np.ones(20), np.arange(20) + 20 * i) for i in range(2)]
    found = shared_share_sum(groups)
    assert found.estimate == 1.0
    assert 0.8 < found.low < 1.0 == found.high


def test_interval_covers_where_sets_share_their_prompts() -> None:
    """400 worlds of 60 prompts in two sets: 95 % intervals cover; the independent ones do not."""
    rng, worlds, n = np.random.default_rng(5), 400, 60
    covered = apart = 0
    for _ in range(worlds):
        ability = rng.normal(0.0, 2.0, n)
        values = (rng.logistic(size=(2, n)) < ability + 1.0).astype(float)
        truth = TRUTH
        groups = [Group(0.5, values[i], np.arange(n)) for i in range(2)]
        ours, plain = shared_share_sum(groups), weighted_share_sum(groups)
        covered += ours.low <= truth <= ours.high
        apart += plain.low <= truth <= plain.high
    assert 0.925 <= covered / worlds <= 0.985
    assert apart < covered - 0.02 * worlds


def _truth() -> float:
    """P(logistic < ability + 1) with ability normal(0, 2), by a fine sum over its quantiles."""
    from scipy.stats import norm

    ability = norm.ppf((np.arange(20000) + 0.5) / 20000, scale=2.0)
    return float(np.mean(1.0 / (1.0 + np.exp(-(ability + 1.0)))))


TRUTH = _truth()
