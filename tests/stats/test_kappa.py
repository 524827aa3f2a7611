"""Agreement of raters: by hand, by a slow oracle, and intervals that cover."""

import itertools

import numpy as np
import pytest

from dpo_diag.stats.kappa import kappa, pairwise_agreement, repeat_rate

BY_HAND = np.array([[1, 1], [1, 1], [1, 0], [0, 0]])


def test_agreement_by_hand() -> None:
    assert pairwise_agreement(BY_HAND).tolist() == [1.0, 1.0, 0.0, 1.0]
    # three raters, two yes: one agreeing pair of three
    assert pairwise_agreement(np.array([[1, 1, 0]])) == pytest.approx([1 / 3])


def test_kappa_by_hand() -> None:
    """P = 3/4, p = 5/8, E = 34/64: (48 - 34) / (64 - 34) = 7/15."""
    found = kappa(BY_HAND, np.arange(4))
    assert found.estimate == pytest.approx(7 / 15)
    assert found.low < 7 / 15 < found.high <= 1.0
    assert (found.n, found.n_clusters) == (4, 4)


def test_repeat_rate_by_hand() -> None:
    """Yes-counts 2, 2, 1, 0 of two raters: (2 + 2) / 5."""
    found = repeat_rate(BY_HAND, np.arange(4))
    assert found.estimate == pytest.approx(4 / 5)
    assert found.n == 3


@pytest.mark.parametrize("seed", range(10))
def test_both_agree_with_a_slow_oracle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    answers = (rng.random((30, 4)) < rng.random((30, 1))).astype(int)
    alike = [
        np.mean([a == b for a, b in itertools.combinations(row, 2)]) for row in answers.tolist()
    ]
    p = answers.mean()
    expected = p * p + (1 - p) * (1 - p)
    assert kappa(answers, np.arange(30)).estimate == pytest.approx(
        (np.mean(alike) - expected) / (1 - expected)
    )
    hits = trials = 0
    for row in answers.tolist():
        for a, b in itertools.permutations(range(4), 2):
            trials += row[a]
            hits += row[a] and row[b]
    assert repeat_rate(answers, np.arange(30)).estimate == pytest.approx(hits / trials)


def test_independent_raters_have_kappa_near_zero_and_full_agreement_is_one() -> None:
    rng = np.random.default_rng(1)
    found = kappa(rng.random((4000, 3)) < 0.7, np.arange(4000))
    assert found.low < 0.0 < found.high
    same = np.repeat(rng.random((50, 1)) < 0.5, 3, axis=1)
    assert kappa(same, np.arange(50)).estimate == pytest.approx(1.0)


def test_without_anything_to_agree_on_there_is_no_number() -> None:
    everything = kappa(np.ones((5, 2)), np.arange(5))
    assert np.isnan(everything.estimate) and "same" in everything.method
    assert repeat_rate(np.zeros((5, 2)), np.arange(5)).n == 0
    assert np.isnan(kappa(np.empty((0, 2)), np.empty(0, int)).estimate)


def test_rows_of_one_prompt_are_one_cluster() -> None:
    """The same items twice under their prompts: same estimate, about the same width."""
    rng = np.random.default_rng(2)
    answers = (rng.random((60, 3)) < rng.random((60, 1))).astype(int)
    once = kappa(answers, np.arange(60))
    twice = kappa(np.repeat(answers, 2, axis=0), np.repeat(np.arange(60), 2))
    assert twice.estimate == pytest.approx(once.estimate)
    assert twice.high - twice.low == pytest.approx(once.high - once.low)


@pytest.mark.slow
def test_intervals_cover_the_truth() -> None:
    """Items right with chance .2 or .9, evenly: E[yes] .55, P = (.68 + .82)/2, truth from those."""
    rng = np.random.default_rng(3)
    agreed, p = (0.2**2 + 0.8**2 + 0.9**2 + 0.1**2) / 2, 0.55
    expected = p**2 + (1 - p) ** 2
    truth = (agreed - expected) / (1 - expected)
    repeat = (0.2**2 + 0.9**2) / (0.2 + 0.9)
    held = np.zeros(2)
    for _ in range(400):
        chance = rng.choice([0.2, 0.9], (150, 1))
        answers = rng.random((150, 4)) < chance
        for k, (interval, value) in enumerate(
            (
                (kappa(answers, np.arange(150)), truth),
                (repeat_rate(answers, np.arange(150)), repeat),
            )
        ):
            held[k] += interval.low <= value <= interval.high
    assert ((held / 400 > 0.92) & (held / 400 < 0.985)).all(), held / 400
