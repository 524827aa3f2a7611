"""Rewording by hand: what is said again in other words, and what stays in its place."""

import numpy as np
import pytest

from dpo_diag.sandbox import words
from dpo_diag.sandbox.rewording import reworded


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_every_step_becomes_a_sentence_of_its_own(rng):
    said = reworded(rng, "wipe the pan twice , then lift the tray and check the tap .")
    assert said == "wipe the pan twice . lift the tray . check the tap ."


def test_the_warning_comes_first_and_is_another_one(rng):
    first, second = words.CAVEATS
    assert reworded(rng, f"wipe the pan . {first}") == f"{second} wipe the pan ."


def test_a_closing_of_two_becomes_the_other_one(rng):
    first, second = words.CLOSINGS
    assert reworded(rng, f"wipe the pan . {second}") == f"wipe the pan . {first}"


@pytest.mark.parametrize("kind", [words.OPENERS, words.REFUSALS, words.REMARKS])
def test_a_phrase_becomes_another_one_of_its_kind(rng, kind):
    for phrase in kind:
        assert reworded(rng, phrase) in set(kind) - {phrase}


def test_a_remark_keeps_its_noun(rng):
    assert reworded(rng, "the valve matters a lot .") == "always think about the valve ."


def test_what_is_no_sentence_of_the_grammar_stays(rng):
    assert reworded(rng, "wipe pan burn burn .") == "wipe pan burn burn ."
