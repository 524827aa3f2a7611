"""Planted copies: exactly so many are found, apart from near ones and those of other splits."""

import numpy as np

from dpo_diag.pair_checks._base import CLEAN, KNOW, REPAIR
from dpo_diag.pair_checks.duplicates import CHECK, repeats

RNG = np.random.default_rng(0)


def test_each_copy_is_counted_and_the_first_is_not(coins, made, values) -> None:
    rows = coins(0, 100).rows[["prompt", "chosen", "rejected"]]
    pairs = [*rows.itertuples(index=False, name=None)]
    found = CHECK().run(made([*pairs, *pairs[:7], pairs[0]]), RNG)
    assert found.drops["duplicates"].nonzero()[0].tolist() == list(range(100, 108))
    assert values(found)["copied_pairs"] == 8 / 108 and found.concern == REPAIR
    assert found.summary.startswith("8 of 108 pairs")


def test_case_punctuation_and_space_make_a_near_copy(made) -> None:
    data = made(
        [
            ("How do I go?", "Walk, then run.", "No."),
            ("how do I go", "walk then  run", "NO"),
            ("how do I go", "walk then jump", "NO"),
        ]
    )
    found = CHECK().run(data, RNG)
    assert found.drops["duplicates_near"].tolist() == [False, True, False]
    assert not found.drops["duplicates"].any()


def test_texts_of_punctuation_alone_are_told_apart(made) -> None:
    data = made([("p", "?!", "..."), ("p", "!?", "...")])
    assert not repeats(data, "alike").any()


def test_copies_in_another_split_are_no_copies_here(made) -> None:
    data = made([("p", "a", "b"), ("p", "a", "b")], split=["train", "test"])
    assert CHECK().run(data, RNG).concern == CLEAN


def test_repeated_chosen_is_counted_and_not_blamed(made, values) -> None:
    found = CHECK().run(made([("p", "a", "b"), ("p", "a", "c")]), RNG)
    assert values(found)["repeated_chosen"] == 0.5 and found.concern == CLEAN


def test_few_copies_are_no_alarm(coins, made) -> None:
    pairs = [*coins(0, 199).rows[["prompt", "chosen", "rejected"]].itertuples(index=False)]
    assert CHECK().run(made([*map(tuple, pairs), tuple(pairs[3])]), RNG).concern == KNOW
