"""Planted length bias, the correlation against numpy's, null coverage."""

import numpy as np
import pytest

from dpo_diag.pair_checks._base import CLEAN, LOOK
from dpo_diag.pair_checks.length import CHECK, correlation, lengths, longer_chosen

RNG = np.random.default_rng(0)


def test_longer_shorter_and_tied_by_hand(made) -> None:
    """Words, marks counted: "a b ." is 3, "a" is 1; a Chinese character is a word."""
    data = made(
        [("p", "a b .", "a"), ("p", "a", "a b"), ("p", "a b", "c d"), ("p", "你好吗", "hi")]
    )
    assert lengths(data).tolist() == [[3, 1, 2, 3], [1, 2, 2, 1]]
    assert longer_chosen(data).tolist() == [1.0, 0.0, 0.5, 1.0]


def test_correlation_is_that_of_labels_and_log_lengths(coins) -> None:
    data = coins(3, 150)
    logs = np.log1p(lengths(data))
    labels = np.repeat([1.0, -1.0], data.n)
    expected = np.corrcoef(labels, logs.ravel())[0, 1]
    assert correlation(data).interval.estimate == pytest.approx(expected, abs=1e-12)


def test_correlations_interval_covers_the_truth_of_coins(coins) -> None:
    """0 is the truth; 95 % of 200 intervals should hold it: 180 to 199 is 4 standard errors."""
    covered = 0
    for seed in range(200):
        found = correlation(coins(seed, 60)).interval
        covered += found.low <= 0.0 <= found.high
    assert 178 <= covered <= 199


def test_a_planted_bias_is_seen_as_large_as_it_is(made, values) -> None:
    rng = np.random.default_rng(1)
    pairs = []
    for k in range(400):
        short, long = "x " * 5 + str(k), "x " * 12 + str(k)
        pairs.append((f"p{k}", long, short) if rng.random() < 0.8 else (f"p{k}", short, long))
    found = CHECK().run(made(pairs), RNG)
    assert abs(values(found)["length_accuracy"] - 0.8) < 0.08 and found.concern == LOOK


def test_annotators_and_domains_have_rows_of_their_own(made, values) -> None:
    pairs = [(f"p{k}", "a b c", "a") if k % 2 else (f"p{k}", "a", "a b c") for k in range(40)]
    data = made(pairs, annotator=["short", "long"] * 20)
    found = CHECK().run(data, RNG)
    assert values(found, "annotator=long")["length_accuracy"] == 1.0
    assert values(found, "annotator=short")["length_accuracy"] == 0.0
    assert found.concern == CLEAN


def test_equal_lengths_have_no_correlation_to_estimate(made) -> None:
    assert correlation(made([("p", "a", "b"), ("q", "c", "d")])).interval.n == 0
