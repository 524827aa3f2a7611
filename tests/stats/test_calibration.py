"""Calibration of sigmoid(margin): hand-worked bins and a planted calibrated world."""

import numpy as np
import pytest

from dpo_diag.stats.calibration import (
    N_BINS,
    brier,
    calibration_error,
    reliability,
    squared_calibration_error,
)
from dpo_diag.stats.intervals import clopper_pearson

LOGIT_8 = float(np.log(0.8 / 0.2))  # sigmoid = .8


def test_brier_is_hand_worked():
    """sigmoid(0) = .5: .25; sigmoid(logit .8): (1 - .8)^2 = .04; reversed: (1 - .2)^2 = .64."""
    assert brier(np.array([0.0, LOGIT_8, -LOGIT_8])) == pytest.approx([0.25, 0.04, 0.64])


def test_error_of_one_bin_is_hand_worked():
    """Confidence .8 on four pairs of which two are right: |.5 - .8| = .3."""
    margins = LOGIT_8 * np.array([1, 1, -1, -1])
    assert calibration_error(margins, np.arange(4)).estimate == pytest.approx(0.3)


def test_bins_add_up_by_their_pairs():
    """Three ties (confidence .5, half right: gap 0) and one pair at .8 that is right: .2 / 4."""
    margins = np.array([0.0, 0.0, 0.0, LOGIT_8])
    assert calibration_error(margins, np.arange(4)).estimate == pytest.approx(0.05)
    assert [b.n for b in reliability(margins)] == [3, 1]


def test_naming_the_answers_the_other_way_round_changes_nothing_but_the_outcome():
    margins = np.random.default_rng(0).normal(0, 2, 300)
    right = [b.accuracy for b in reliability(margins)]
    assert right == pytest.approx([1 - b.accuracy for b in reliability(-margins)])


def test_margins_that_are_log_odds_are_calibrated():
    """Labels drawn with the stated probability: the error is the noise of ten bins of 5,000."""
    generator = np.random.default_rng(1)
    log_odds = generator.normal(0, 2, 50_000)
    is_first = generator.random(50_000) < 1 / (1 + np.exp(-log_odds))
    margins = np.where(is_first, log_odds, -log_odds)
    assert calibration_error(margins, np.arange(50_000)).estimate < 0.01


def test_no_pairs_are_nan():
    found = calibration_error(np.zeros(0), np.zeros(0, int))
    assert np.isnan(found.estimate)
    assert found.n == 0


def test_each_bin_has_the_interval_of_its_share():
    """Confidence .8 on four pairs of which three are right: Clopper-Pearson of 3 of 4."""
    (only,) = reliability(LOGIT_8 * np.array([1, 1, 1, -1]))
    low, high = clopper_pearson(3, 4)
    assert (only.low, only.high) == (pytest.approx(float(low)), pytest.approx(float(high)))


def test_squared_error_is_hand_worked():
    """Confidence .8, right 2 of 4: gap -.3; variance of the mean 4/3 * 4 * .25 / 16 = 1/12.

    .09 - 1/12 = .00667.
    """
    margins = LOGIT_8 * np.array([1, 1, -1, -1])
    found = squared_calibration_error(margins, np.arange(4))
    assert found.estimate == pytest.approx(0.09 - 1.0 / 12.0)
    assert (found.n, found.n_clusters) == (4, 4)


def slow_squared_error(margins, clusters):
    confidence = 1.0 / (1.0 + np.exp(-np.abs(margins)))
    gaps = 0.5 + 0.5 * np.sign(margins) - confidence
    bins = np.minimum(((confidence - 0.5) * 20).astype(int), N_BINS - 1)
    total, n = 0.0, 0
    for b in set(bins):
        own, who = gaps[bins == b], clusters[bins == b]
        prompts = sorted(set(who))
        if len(prompts) < 2:
            continue
        sums = [sum(own[who == p] - own.mean()) for p in prompts]
        noise = len(prompts) / (len(prompts) - 1) * sum(s * s for s in sums) / len(own) ** 2
        total, n = total + len(own) * (own.mean() ** 2 - noise), n + len(own)
    return total / n if n else np.nan


@pytest.mark.parametrize("seed", range(10))
def test_squared_error_and_its_jackknife_are_those_of_the_slow_oracle(seed):
    rng = np.random.default_rng(seed)
    margins, clusters = rng.normal(0, 2, 60), rng.integers(0, 25, 60)
    found = squared_calibration_error(margins, clusters)
    assert found.estimate == pytest.approx(slow_squared_error(margins, clusters))
    left = [
        slow_squared_error(margins[clusters != p], clusters[clusters != p]) for p in set(clusters)
    ]
    spread = np.sum((np.array(left) - np.mean(left)) ** 2)
    assert found.se == pytest.approx(np.sqrt((len(left) - 1) / len(left) * spread))


def test_a_calibrated_reward_has_no_squared_error_on_average_at_any_size():
    """60 pairs, 400 worlds: mean within three standard errors of 0, the plain error far from it."""
    rng = np.random.default_rng(3)
    squared, plain = [], []
    for _ in range(400):
        log_odds = rng.normal(0, 2, 60)
        margins = np.where(rng.random(60) < 1 / (1 + np.exp(-log_odds)), log_odds, -log_odds)
        squared.append(squared_calibration_error(margins, np.arange(60)).estimate)
        plain.append(calibration_error(margins, np.arange(60)).estimate)
    assert abs(np.mean(squared)) < 3 * np.std(squared) / np.sqrt(400)
    assert np.mean(plain) > 0.05


def test_no_bin_with_two_prompts_gives_no_squared_error():
    found = squared_calibration_error(np.array([0.1, 5.0]), np.arange(2))
    assert np.isnan(found.estimate) and found.n == 0
    assert squared_calibration_error(np.zeros(0), np.zeros(0, int)).n == 0
