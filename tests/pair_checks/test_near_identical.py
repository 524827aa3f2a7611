"""Answers identical, identical but for form, one word apart, and not alike."""

import numpy as np
import pytest

from dpo_diag.pair_checks._base import CLEAN, REPAIR
from dpo_diag.pair_checks.near_identical import CHECK, dice, likeness

RNG = np.random.default_rng(0)
TWENTY = " ".join(f"w{k}" for k in range(20))


def test_one_word_of_twenty_by_hand(made) -> None:
    """Sets of 20 words and 19 neighbours each; 19 and 17 are shared: 2 * 36 / 78 = 0.923."""
    data = made([("p", TWENTY, TWENTY.replace("w9", "other"))])
    assert likeness(data)[0] == pytest.approx(72 / 78)


def test_each_planted_kind_is_counted_apart(made, values) -> None:
    pairs = [
        ("p", TWENTY, TWENTY),
        ("q", TWENTY, TWENTY.upper() + "!"),
        ("r", TWENTY, TWENTY.replace("w9", "other")),
        ("s", TWENTY, " ".join(reversed(TWENTY.split()))),
    ]
    found = CHECK().run(made(pairs), RNG)
    shown = values(found)
    assert shown["identical_answers"] == shown["answers_identical_but_for_form"] == 0.25
    assert shown["nearly_identical_answers"] == 0.25 and found.concern == REPAIR
    assert found.drops["near_identical"].tolist() == [False, True, True, False]


def test_unlike_answers_are_clean(coins) -> None:
    assert CHECK().run(coins(0, 50), RNG).concern == CLEAN


def test_dice_of_nothing_is_nothing() -> None:
    assert dice(set(), set()) == 0.0 and dice({1, 2}, {2, 3}) == 0.5
