"""From answers and an oracle to pairs: who is asked, who is chosen, why there is no pair."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest

from dpo_diag.errors import DataError
from dpo_diag.oracles._base import Oracle
from dpo_diag.training.preferences import (
    Judged,
    ask,
    best_and_worst,
    drawn_pairs,
    mean_wins,
    win_matrix,
)


class Cyclic(Oracle):
    """Rock, paper, scissors; abstains on anything else, and counts what it is asked."""

    beats = (("paper", "rock"), ("rock", "scissors"), ("scissors", "paper"))

    def __init__(self) -> None:
        object.__setattr__(self, "asked", [])

    def prefer(
        self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
    ) -> np.ndarray:
        rows = list(zip(prompts, first, second, strict=True))
        self.asked.extend(rows)
        known = {"rock", "paper", "scissors"}
        return np.array(
            [
                np.nan if {a, b} - known else 0.5 if a == b else float((a, b) in self.beats)
                for _, a, b in rows
            ]
        )


def judged(wins: list[list[float]], same: bool = False) -> Judged:
    table = np.array([wins], float)
    n = len(wins)
    return Judged(table, np.eye(n, dtype=bool)[None] | same, 0, 0)


def test_each_pair_of_texts_is_asked_about_once_and_filled_in_everywhere() -> None:
    oracle = Cyclic()
    answers = [["rock", "paper", "rock", "scissors"], ["rock"] * 4]
    found = win_matrix(oracle, ["p", "q"], answers)
    assert len(oracle.asked) == found.n_asked == 3
    for row, texts in enumerate(answers):
        for a, first in enumerate(texts):
            for b, second in enumerate(texts):
                expected = Cyclic().prefer(["p"], [first], [second])[0]
                assert found.wins[row, a, b] == expected
                assert found.same[row, a, b] == (first == second)


def test_abstentions_are_missing_and_counted() -> None:
    found = win_matrix(Cyclic(), ["p"], [["rock", "lizard", "paper"]])
    assert found.n_abstained == 2 and found.n_asked == 3
    assert np.isnan(found.wins[0, 0, 1]) and np.isnan(found.wins[0, 1, 2])
    assert found.wins[0, 2, 0] == 1.0
    assert np.isnan(mean_wins(found)[0, 1])


def test_best_and_worst_go_by_the_mean_chance_against_the_others() -> None:
    """Means 0.65, 0.75 and 0.1, by hand."""
    table = judged([[0.5, 0.4, 0.9], [0.6, 0.5, 0.9], [0.1, 0.1, 0.5]])
    np.testing.assert_allclose(mean_wins(table)[0], [0.65, 0.75, 0.1])
    pair = best_and_worst(table)
    assert (pair.chosen[0], pair.rejected[0]) == (1, 2)


def test_best_and_worst_agree_with_a_loop() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        upper = np.triu(rng.random((5, 5)), 1)
        wins = upper + np.tril(1 - upper.T, -1) + 0.5 * np.eye(5)
        means = [np.mean([wins[i, j] for j in range(5) if j != i]) for i in range(5)]
        pair = best_and_worst(judged(wins.tolist()))
        assert pair.chosen[0] == int(np.argmax(means))
        assert pair.rejected[0] == int(np.argmin(means))


def test_a_cycle_of_three_has_no_best_answer() -> None:
    """Each wins one and loses one: a tie, for all that no two are alike."""
    found = win_matrix(Cyclic(), ["p"], [["rock", "paper", "scissors"]])
    pair = best_and_worst(found)
    assert (pair.chosen[0], pair.n_tied) == (-1, 1)


def test_prompts_without_a_pair_are_counted_under_one_reason_each() -> None:
    answers = [
        ["rock", "rock", "rock"],
        ["rock", "paper", "scissors"],
        ["lizard", "spock", "rock"],
        ["rock", "paper", "rock"],
    ]
    pair = best_and_worst(win_matrix(Cyclic(), list("abcd"), answers))
    assert pair.chosen.tolist() == [-1, -1, -1, 1]
    assert pair.rejected.tolist() == [-1, -1, -1, 0]
    assert (pair.n_identical, pair.n_tied, pair.n_abstained) == (1, 1, 1)


def test_drawn_pairs_are_uniform_and_ordered_with_the_oracles_chance() -> None:
    """The first answer beats the second with 0.8, both lose to the third with 0.3 and 0.6."""
    wins = np.array([[0.5, 0.8, 0.3], [0.2, 0.5, 0.6], [0.7, 0.4, 0.5]])
    n = 30000
    table = Judged(np.repeat(wins[None], n, 0), np.repeat(np.eye(3, dtype=bool)[None], n, 0), 0, 0)
    pair = drawn_pairs(table, np.random.default_rng(0))
    for a, b in combinations(range(3), 2):
        forth = ((pair.chosen == a) & (pair.rejected == b)).sum()
        back = ((pair.chosen == b) & (pair.rejected == a)).sum()
        assert (forth + back) / n == pytest.approx(1 / 3, abs=0.01)
        assert forth / (forth + back) == pytest.approx(wins[a, b], abs=0.02)


def test_drawn_pairs_leave_out_equal_texts_and_unjudged_ones() -> None:
    found = win_matrix(Cyclic(), ["a", "b"], [["rock", "rock"], ["rock", "lizard"]])
    pair = drawn_pairs(found, np.random.default_rng(0))
    assert pair.chosen.tolist() == [-1, -1]
    assert (pair.n_identical, pair.n_abstained) == (1, 1)


def test_oracle_with_too_few_values_is_refused() -> None:
    class Short(Cyclic):
        def prefer(self, prompts, first, second) -> np.ndarray:
            return np.zeros(1)

    with pytest.raises(DataError, match="one chance per pair"):
        ask(Short(), ["p", "q"], ["a", "b"], ["c", "d"])
