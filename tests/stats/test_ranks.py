"""Areas under the curve against brute force, scipy and simulation."""

import numpy as np
import pytest
from scipy import stats

from dpo_diag.stats.ranks import (
    auc,
    auc_difference,
    auc_influence,
    symmetric_auc,
    within_group_rank_correlation,
)


def test_symmetric_auc_is_the_hand_worked_one():
    """Margins 3, -1, 2, 1: pairs 3-1, 3+2, 3+1, -1+2 positive, -1+1 a tie, 2+1 positive: 5.5/6."""
    found = symmetric_auc(np.array([3.0, -1.0, 2.0, 1.0]), np.arange(4))
    assert found.estimate == pytest.approx(5.5 / 6)


def test_symmetric_auc_is_the_mean_over_orientations():
    """Random naming of the two answers, AUC of the signed margin against the label, averaged."""
    margins = np.random.default_rng(0).normal(0.4, 1, 60)
    generator = np.random.default_rng(1)
    drawn = []
    for _ in range(3000):
        sign = generator.integers(0, 2, 60) * 2 - 1
        up, down = margins[sign == 1], -margins[sign == -1]
        drawn.append(stats.mannwhitneyu(up, down).statistic / (len(up) * len(down)))
    ours = symmetric_auc(margins, np.arange(60)).estimate
    assert ours == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(3000))


def test_symmetric_auc_error_is_the_jackknifes():
    margins = np.random.default_rng(5).normal(0.3, 1, 80)
    found = symmetric_auc(margins, np.arange(80))
    left_out = [symmetric_auc(np.delete(margins, i), np.arange(79)).estimate for i in range(80)]
    jackknife = np.sqrt(79 / 80 * np.sum((np.array(left_out) - np.mean(left_out)) ** 2))
    assert found.se == pytest.approx(jackknife, rel=0.03)


def test_all_positive_margins_separate_perfectly_as_far_as_four_couples_can_tell():
    """Eight prompts are four independent couples, all right: .025^(1/4) = .3976."""
    found = symmetric_auc(np.arange(1.0, 9.0), np.arange(8))
    assert (found.estimate, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025**0.25)
    mirrored = symmetric_auc(-np.arange(1.0, 9.0), np.arange(8))
    assert (mirrored.estimate, mirrored.low) == (0.0, 0.0)
    assert mirrored.high == pytest.approx(1.0 - 0.025**0.25)


def test_ties_only_are_a_coin():
    assert symmetric_auc(np.zeros(10), np.arange(10)).estimate == 0.5


def test_too_few_pairs_are_nan():
    assert np.isnan(symmetric_auc(np.array([1.0]), np.arange(1)).estimate)


def test_auc_is_mann_whitneys_statistic():
    generator = np.random.default_rng(2)
    scores = np.round(generator.normal(size=50), 1)  # rounded, so that there are ties
    positive = generator.random(50) < 0.4
    expected = stats.mannwhitneyu(scores[positive], scores[~positive]).statistic
    found = auc(scores, positive, np.arange(50))
    assert found.estimate == pytest.approx(expected / (positive.sum() * (~positive).sum()))


def test_auc_error_is_delongs():
    """DeLong: var = S10 / m + S01 / n with sample variances of the placement values."""
    generator = np.random.default_rng(3)
    scores, positive = generator.normal(size=400), np.arange(400) < 150
    scores[positive] += 1.0
    up, down = scores[positive], scores[~positive]
    placed_up = (up[:, None] > down).mean(axis=1)
    placed_down = (up[:, None] > down).mean(axis=0)
    expected = np.sqrt(placed_up.var(ddof=1) / 150 + placed_down.var(ddof=1) / 250)
    assert auc(scores, positive, np.arange(400)).se == pytest.approx(expected, rel=1e-9)


def test_a_dozen_positives_among_hundreds_count_as_a_dozen():
    """95 % intervals hold in 600 worlds of 300 rows with 12 positives that are no different.

    With the degrees of freedom of all 300 rows they hold in .925 of them.
    """
    generator = np.random.default_rng(8)
    positive, held = np.arange(300) < 12, 0
    for _ in range(600):
        found = auc(generator.normal(size=300), positive, np.arange(300))
        held += found.low <= 0.5 <= found.high
    assert 0.93 <= held / 600 <= 0.975


def test_positives_of_one_prompt_have_no_interval():
    found = auc(np.arange(6.0), np.array([0, 1, 0, 1, 0, 0], bool), np.array([0, 1, 2, 1, 3, 4]))
    assert np.isnan(found.low)
    assert found.estimate == pytest.approx(3 / 8)  # (1/4 + 2/4) / 2


def test_one_kind_alone_is_nan():
    assert auc(np.arange(4.0), np.ones(4, bool), np.arange(4)).n == 0


@pytest.mark.slow
def test_symmetric_auc_covers():
    """Normal margins with mean .5, sd 1: P(m_i + m_j > 0) = Phi(1 / sqrt 2); 400 worlds."""
    truth = stats.norm.cdf(1 / np.sqrt(2))
    generator = np.random.default_rng(4)
    held = 0
    for _ in range(400):
        found = symmetric_auc(generator.normal(0.5, 1, 80), np.arange(80))
        held += found.low <= truth <= found.high
    assert 0.92 <= held / 400 <= 0.985


def test_rank_correlation_within_groups_by_hand() -> None:
    """Ranks 1 2 3 against 1 3 2 and 2 1 against 1 2: (1 - 1/2) / sqrt(2.5 * 2.5) = 0.2.

    The groups' own levels differ by 100 and do not enter.
    """
    first = np.array([0.1, 0.2, 0.4, 100.5, 100.3])
    second = np.array([3, 5, 4, 2, 7])
    groups = np.array(["x", "x", "x", "y", "y"])
    assert within_group_rank_correlation(first, second, groups) == pytest.approx(0.2)


def test_rank_correlation_of_one_group_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=30), rng.integers(0, 5, 30)
    expected = stats.spearmanr(first, second).statistic
    found = within_group_rank_correlation(first, second, np.zeros(30))
    assert found == pytest.approx(expected, abs=1e-12)


def test_rank_correlation_is_missing_where_nothing_varies() -> None:
    one = np.ones(4)
    assert np.isnan(within_group_rank_correlation(one, np.arange(4), np.zeros(4)))
    assert np.isnan(within_group_rank_correlation(np.arange(4), one, np.arange(4)))
    assert np.isnan(within_group_rank_correlation(one[:0], one[:0], one[:0]))


def test_auc_influences_average_to_the_auc():
    generator = np.random.default_rng(6)
    scores, positive = np.round(generator.normal(size=40), 1), generator.random(40) < 0.3
    expected = auc(scores, positive, np.arange(40)).estimate
    assert auc_influence(scores, positive).mean() == pytest.approx(expected)
    assert np.isnan(auc_influence(scores, np.zeros(40, bool))).all()


def test_auc_difference_by_hand():
    """Positives 3, 2 and negatives 1, 0 against positives 3, 0 and negatives 1, 2: 1 - 1/2."""
    positive = np.array([True, True, False, False])
    first, second = np.array([3.0, 2.0, 1.0, 0.0]), np.array([3.0, 0.0, 1.0, 2.0])
    found = auc_difference(first, second, positive, np.arange(4))
    assert found.estimate == pytest.approx(0.5)


def test_auc_difference_error_is_a_bootstraps_over_prompts():
    """Two correlated scores, three pairs per prompt that share a part; 800 resamples of prompts."""
    generator = np.random.default_rng(7)
    prompts = np.repeat(np.arange(120), 3)
    shared = np.repeat(generator.normal(size=120), 3)
    truth = shared + generator.normal(size=360)
    first, second = truth + generator.normal(size=360), truth + 2 * generator.normal(size=360)
    positive = truth > 0.8
    found = auc_difference(first, second, positive, prompts)
    drawn = []
    for _ in range(800):
        rows = (3 * generator.integers(0, 120, 120)[:, None] + np.arange(3)).ravel()
        one, two = (auc(s[rows], positive[rows], rows // 3).estimate for s in (first, second))
        drawn.append(one - two)
    assert found.se == pytest.approx(np.std(drawn), rel=0.12)
    assert found.low < found.estimate < found.high


def test_one_score_against_itself_has_no_interval():
    found = auc_difference(np.arange(6.0), np.arange(6.0), np.arange(6) > 3, np.arange(6))
    assert (found.estimate, found.flag) == (0.0, "no spread: no interval")
    assert auc_difference(np.arange(3.0), np.arange(3.0), np.ones(3, bool), np.arange(3)).n == 0
