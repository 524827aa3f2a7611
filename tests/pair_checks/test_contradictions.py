"""Planted contradictions, by whom, and which side the repair keeps."""

import numpy as np

from dpo_diag.pair_checks._base import CLEAN, REPAIR
from dpo_diag.pair_checks.contradictions import CHECK, labelled_both_ways

RNG = np.random.default_rng(0)


def test_both_rows_of_each_planted_contradiction_are_found(coins, made, values) -> None:
    pairs = [*map(tuple, coins(0, 60).rows[["prompt", "chosen", "rejected"]].to_numpy())]
    turned = [(prompt, rejected, chosen) for prompt, chosen, rejected in pairs[:5]]
    found = CHECK().run(made([*pairs, *turned]), RNG)
    expected = [*range(5), *range(60, 65)]
    assert found.drops["contradictions"].nonzero()[0].tolist() == expected
    assert values(found)["contradictory_pairs"] == 10 / 65 and found.concern == REPAIR


def test_same_answers_to_another_prompt_do_not_contradict(made) -> None:
    assert CHECK().run(made([("p", "a", "b"), ("q", "b", "a")]), RNG).concern == CLEAN


def test_majority_of_annotators_is_kept(made) -> None:
    data = made([("p", "a", "b")] * 2 + [("p", "b", "a")], annotator=["x", "y", "z"])
    both, minority = labelled_both_ways(data)
    assert both.tolist() == [True] * 3 and minority.tolist() == [False, False, True]


def test_copies_without_names_are_no_majority(made) -> None:
    _, minority = labelled_both_ways(made([("p", "a", "b")] * 2 + [("p", "b", "a")]))
    assert minority.tolist() == [True] * 3


def test_one_annotators_two_minds_are_told_from_two_annotators(made, values) -> None:
    pairs = [("p", "a", "b"), ("p", "b", "a"), ("q", "a", "b"), ("q", "b", "a")]
    found = CHECK().run(made(pairs, annotator=["x", "x", "x", "y"]), RNG)
    assert values(found)["contradictory_pairs"] == 1.0
    assert values(found)["self_contradictory_pairs"] == 0.5


def test_unnamed_annotators_do_not_contradict_themselves(made, values) -> None:
    data = made([("p", "a", "b"), ("p", "b", "a")], annotator=[None, None])
    assert values(CHECK().run(data, RNG))["self_contradictory_pairs"] == 0.0


def test_identical_answers_do_not_contradict(made) -> None:
    assert CHECK().run(made([("p", "a", "a"), ("p", "a", "a")]), RNG).concern == CLEAN
