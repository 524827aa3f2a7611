"""Gaps of games: numbers by hand, no profit from noise, coverage of the true gain."""

import numpy as np
import pytest

from dpo_diag.stats.games import (
    best_of_n,
    duality_gap,
    exploitability,
    held_out_best,
    player_gap,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_gap_of_known_chances_is_twice_the_best_above_one_half() -> None:
    """Deviations win 0.4 and 0.7 everywhere: max J = 0.7, gap 2 * 0.7 - 1 = 0.4."""
    gap = duality_gap(np.repeat([[0.4], [0.7]], 6, axis=1), rng=rng())
    assert gap.estimate == pytest.approx(0.4)
    assert gap.picked == (1, 1)
    assert gap.n_prompts == 6


def test_price_of_divergence_lowers_the_gap() -> None:
    """J = 0.7 - 0.05: gap 2 * 0.65 - 1 = 0.3; with a price of 0.25 staying is best."""
    wins = np.full((1, 6), 0.7)
    cheap = duality_gap(wins, penalties=np.full((1, 6), 0.05), rng=rng())
    dear = duality_gap(wins, penalties=np.full((1, 6), 0.25), rng=rng())
    assert cheap.estimate == pytest.approx(0.3)
    assert (dear.estimate, dear.picked) == (0.0, (-1, -1))
    assert np.isnan(dear.low)


def test_maximum_over_deviations_does_not_profit_from_noise() -> None:
    """All 50 deviations are even with the policy; the plain maximum says 0.2, the estimate 0."""
    plain, crossed = [], []
    for seed in range(200):
        wins = (rng(seed).random((50, 100)) < 0.5).astype(float)
        plain.append(2 * wins.mean(1).max() - 1)
        crossed.append(duality_gap(wins, rng=rng(seed)).estimate)
    assert np.mean(plain) > 0.15
    # standard error of the mean of 200 estimates is about 0.1 / sqrt(200) = 0.007
    assert abs(np.mean(crossed)) < 0.025


def test_interval_covers_the_true_gain_of_one_deviation() -> None:
    """One deviation that wins 0.8: the gap over the stated set is 0.6."""
    covered = 0
    for seed in range(300):
        wins = (rng(seed).random((1, 80)) < 0.8).astype(float)
        gap = duality_gap(wins, rng=rng(seed))
        covered += gap.low <= 0.6 <= gap.high
    assert 0.9 <= covered / 300 <= 0.99


def test_estimate_is_at_most_the_gap_over_the_set_on_average() -> None:
    """Two deviations of 0.55 and 0.6: picking the wrong one at times can only lower the mean."""
    found = []
    for seed in range(400):
        wins = (rng(seed).random((2, 40)) < np.array([[0.55], [0.6]])).astype(float)
        found.append(duality_gap(wins, rng=rng(seed)).estimate)
    assert 0.0 < np.mean(found) <= 0.2 + 3 * np.std(found) / 20


def test_player_gap_is_the_gain_over_what_the_player_has() -> None:
    """Own 0.5, 0.7; a deviation 0.6, 0.9: gain (0.1 + 0.2) / 2 = 0.15."""
    gap = player_gap(np.array([[0.6, 0.9] * 3]), np.array([0.5, 0.7] * 3), rng=rng())
    assert gap.estimate == pytest.approx(0.15)


def test_exploitability_of_rock_paper_scissors_and_a_policy_that_loses() -> None:
    """Each of three is beaten surely by the next; a fourth loses to the first with 0.9 only."""
    matrix = np.full((4, 4), 0.5)
    for winner, loser in ((0, 1), (1, 2), (2, 0)):
        matrix[winner, loser], matrix[loser, winner] = 1.0, 0.0
    matrix[0, 3], matrix[3, 0] = 0.9, 0.1
    gaps = exploitability(np.repeat(matrix[:, :, None], 8, axis=2), rng=rng())
    assert [gap.estimate for gap in gaps] == pytest.approx([0.5, 0.5, 0.5, 0.4])
    assert [gap.picked for gap in gaps] == [(2, 2), (0, 0), (1, 1), (0, 0)]


def test_exploitability_agrees_with_a_loop_over_halves() -> None:
    matrix = rng(3).random((3, 3, 9))
    in_first = rng(4).random(9) < 0.5
    gains = 2 * matrix[[1, 2], 0] - 1
    values = []
    for prompt in range(9):
        other = [q for q in range(9) if in_first[q] != in_first[prompt]]
        means = [np.mean([row[q] for q in other]) for row in gains]
        best = int(np.argmax(means))
        values.append(gains[best, prompt] if means[best] > 0 else 0.0)
    np.testing.assert_allclose(held_out_best(gains, in_first).values, values)


def test_unknown_chances_are_left_out() -> None:
    """A deviation known at half of the prompts counts there; one known nowhere is not picked."""
    wins = np.full((2, 8), np.nan)
    wins[0, ::2] = 0.75
    gap = duality_gap(wins, rng=rng(1))
    assert gap.estimate == pytest.approx(0.5)
    assert set(gap.picked) == {0}
    nothing = duality_gap(np.full((1, 8), np.nan), rng=rng())
    assert nothing.estimate == 0.0 and nothing.picked == (-1, -1)


def test_too_few_prompts_give_no_number() -> None:
    assert np.isnan(duality_gap(np.ones((2, 1)), rng=rng()).estimate)
    assert np.isnan(duality_gap(np.ones((2, 0)), rng=rng()).estimate)


def test_no_deviation_gains_nothing() -> None:
    gap = duality_gap(np.zeros((0, 5)), rng=rng())
    assert (gap.estimate, gap.picked) == (0.0, (-1, -1))


def test_best_of_n_takes_by_the_selectors_and_measures_by_the_judges() -> None:
    """K = 6: candidates 0-2, selectors 3, judges 4-5. Candidate 1 wins against the selector.

    Its mean chance against the judges is (0.2 + 0.4) / 2 = 0.3, whatever the others would have.
    """
    matrix = np.full((1, 6, 6), 0.5)
    matrix[0, :3, 3] = [0.1, 0.9, 0.5]
    matrix[0, :3, 4], matrix[0, :3, 5] = [1.0, 0.2, 1.0], [1.0, 0.4, 1.0]
    best = best_of_n(matrix)
    assert best.win_rate == pytest.approx([0.3])
    assert (best.n, best.chosen.tolist()) == (3, [1])
    assert best.kl_bound == pytest.approx(np.log(3) - 2 / 3)


def test_best_of_four_of_a_transitive_game_wins_as_often_as_order_says() -> None:
    """Strength is uniform and the stronger wins. K = 8: 4 candidates, 2 selectors, 2 judges.

    The taken candidate is the first with the most wins against two selectors, so at least as good
    as the best of two; the best of four would win 4 / 5 against a fresh sample.
    """
    strength = rng().random((20000, 8))
    wins = (strength[:, :, None] > strength[:, None, :]).astype(float)
    rate = best_of_n(wins).win_rate.mean()
    assert 0.6 < rate < 0.8


def test_best_of_n_knows_nothing_where_the_oracle_abstained() -> None:
    matrix = np.full((2, 4, 4), 0.6)
    matrix[1] = np.nan
    best = best_of_n(matrix)
    assert best.win_rate[0] == pytest.approx(0.6) and np.isnan(best.win_rate[1])
    assert best.chosen.tolist() == [0, -1]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: duality_gap(np.full((1, 3), 1.2), rng=rng()), "outside"),
        (lambda: duality_gap(np.zeros(3), rng=rng()), "expected \\(deviations, prompts\\)"),
        (lambda: duality_gap(np.zeros((1, 3)), penalties=np.zeros(3), rng=rng()), "penalties"),
        (lambda: player_gap(np.zeros((1, 3)), np.zeros(2), rng=rng()), "own has shape"),
        (lambda: exploitability(np.zeros((2, 3, 4)), rng=rng()), "expected \\(M, M, P\\)"),
        (lambda: best_of_n(np.zeros((2, 3, 3))), "4 or more samples"),
        (lambda: best_of_n(np.zeros((2, 3, 4))), "expected \\(P, K, K\\)"),
    ],
)
def test_wrong_shapes_and_values_are_refused(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
