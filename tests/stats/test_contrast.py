"""Weighted sums of independent sets: Welch, Newcombe's published examples, hand-worked weights."""

import numpy as np
import pytest
from scipy import stats

from dpo_diag.stats.compare import paired_difference
from dpo_diag.stats.contrast import Group, share_sum_against_zero, weighted_share_sum, weighted_sum


def ones(k: int, n: int) -> np.ndarray:
    return np.array([1.0] * k + [0.0] * (n - k))


def pair(first: np.ndarray, second: np.ndarray) -> list[Group]:
    return [
        Group(1.0, first, np.arange(len(first))),
        Group(-1.0, second, np.arange(len(second))),
    ]


@pytest.mark.parametrize(
    ("k", "n", "m", "o", "low", "high"),
    [(56, 70, 48, 80, 0.0524, 0.3339), (9, 10, 3, 10, 0.1705, 0.8090),
     (10, 10, 0, 10, 0.6075, 1.0), (5, 56, 0, 29, -0.0381, 0.1926)],
)  # fmt: skip
def test_share_differences_are_newcombes_published_ones(k, n, m, o, low, high):
    """Newcombe 1998, table II, method 10 (hybrid score without continuity correction)."""
    interval = weighted_share_sum(pair(ones(k, n), ones(m, o)))
    assert [interval.low, interval.high] == pytest.approx([low, high], abs=1e-4)


def test_a_difference_of_means_is_welchs_t():
    generator = np.random.default_rng(0)
    one, two = generator.normal(size=20), generator.normal(0.4, 3, size=35)
    ours = weighted_sum(pair(one, two))
    theirs = stats.ttest_ind(one, two, equal_var=False)
    assert ours.p_value == pytest.approx(theirs.pvalue)
    assert [ours.low, ours.high] == pytest.approx(list(theirs.confidence_interval()))


def test_weights_are_the_hand_worked_ones():
    """.75 * 4/5 + .25 * 2/4 - 1 * 3/6 = .6 + .125 - .5 = .225."""
    groups = [
        Group(0.75, ones(4, 5), np.arange(5)),
        Group(0.25, ones(2, 4), np.arange(4)),
        Group(-1.0, ones(3, 6), np.arange(6)),
    ]
    assert weighted_share_sum(groups).estimate == pytest.approx(0.225)
    assert weighted_sum(groups).estimate == pytest.approx(0.225)
    assert weighted_share_sum(groups).n == 15


def test_perfect_sets_keep_an_interval():
    interval = weighted_share_sum(pair(ones(30, 30), ones(30, 30)))
    assert interval.low < 0.0 < interval.high


@pytest.mark.parametrize("make", [weighted_share_sum, weighted_sum])
@pytest.mark.parametrize("groups", [[], pair(ones(3, 5), np.zeros(0))])
def test_an_empty_side_or_no_side_is_nan(make, groups):
    found = make(groups)
    assert np.isnan(found.estimate)
    assert found.n == 0


def test_repeated_rows_of_prompts_do_not_narrow_a_drop():
    one, two = ones(60, 80), ones(30, 70)
    once = weighted_share_sum(pair(one, two))
    often = weighted_share_sum(
        [
            Group(1.0, np.repeat(one, 4), np.repeat(np.arange(80), 4)),
            Group(-1.0, np.repeat(two, 4), np.repeat(np.arange(70), 4)),
        ]
    )
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.03)


@pytest.mark.parametrize(("k", "m"), [(56, 48), (70, 60), (30, 40), (2, 0)])
def test_the_p_value_is_where_the_interval_touches_0(k, m):
    groups = pair(ones(k, 70), ones(m, 80))
    tested = share_sum_against_zero(groups)
    assert (tested.low, tested.high) == weighted_share_sum(groups)[1:3]
    edge = weighted_share_sum(groups, level=1.0 - tested.p_value)
    assert min(abs(edge.low), abs(edge.high)) == pytest.approx(0.0, abs=1e-6)


def test_equal_shares_have_p_1_and_certain_ones_a_small_p():
    assert share_sum_against_zero(pair(ones(30, 40), ones(60, 80))).p_value == 1.0
    assert share_sum_against_zero(pair(ones(500, 500), ones(0, 500))).p_value <= 1e-9


def test_test_and_interval_never_disagree():
    rng = np.random.default_rng(5)
    for _ in range(200):
        n, m = rng.integers(5, 60, 2)
        groups = pair(ones(rng.integers(0, n + 1), n), ones(rng.integers(0, m + 1), m))
        tested = share_sum_against_zero(groups)
        assert (tested.p_value < 0.05) == (tested.low > 0.0 or tested.high < 0.0)


def test_the_same_prompts_on_both_sides_make_it_a_paired_comparison():
    """The same 300 prompts asked twice: the paired standard error, with its factor G / (G - 1)."""
    rng = np.random.default_rng(2)
    first = (rng.random(300) < 0.7).astype(float)
    second = np.where(rng.random(300) < 0.9, first, 1.0 - first)
    paired = paired_difference(
        np.repeat(first, 2), np.repeat(second, 2), np.repeat(np.arange(300), 2), rng=rng
    )
    joint = weighted_sum(pair(first, second), shared=True)
    assert joint.se == pytest.approx(paired.se)
    apart = weighted_sum(pair(first, second))
    assert joint.se < 0.6 * apart.se
    narrow, wide = (weighted_share_sum(pair(first, second), shared=s) for s in (True, False))
    ratio = (narrow.high - narrow.low) / (wide.high - wide.low)
    assert ratio == pytest.approx(joint.se / apart.se)


def test_sets_without_a_shared_prompt_are_independent():
    groups = [
        Group(1.0, ones(20, 30), np.arange(30)),
        Group(-1.0, ones(10, 40), 100 + np.arange(40)),
    ]
    assert weighted_sum(groups, shared=True) == weighted_sum(groups)
    one, two = weighted_share_sum(groups, shared=True), weighted_share_sum(groups)
    assert [one.low, one.high] == pytest.approx([two.low, two.high])
