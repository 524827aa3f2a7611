"""Forms planted on one side; balanced forms; the exact test by hand."""

import numpy as np
import pytest

from dpo_diag.pair_checks._base import CLEAN, LOOK
from dpo_diag.pair_checks.one_sided import CHECK, FORMS, is_cut_off, sign_test

RNG = np.random.default_rng(0)


def test_sign_test_counts_a_prompt_once_by_hand() -> None:
    """Six prompts, all for chosen: 2 / 2^6. The first has three pairs, which change nothing."""
    has = np.array([[True] * 8, [False] * 8])
    assert sign_test(has, np.array([0, 0, 0, 1, 2, 3, 4, 5])) == pytest.approx(2 / 64)
    assert np.isnan(sign_test(np.zeros((2, 4), bool), np.arange(4)))


def test_refusals_on_the_rejected_side_are_seen(coins, values) -> None:
    refusals = np.zeros((2, 200), bool)
    refusals[1, :60] = True
    found = CHECK().run(coins(0, 200, refusals=refusals), RNG)
    assert found.concern == LOOK and "30 % of the rejected answers refuse" in found.summary
    assert values(found)["chosen_side_of_refuses"] == 0.0


def test_as_many_refusals_on_both_sides_are_clean(coins) -> None:
    refusals = np.zeros((2, 200), bool)
    refusals[0, :60] = refusals[1, 60:120] = True
    assert CHECK().run(coins(0, 200, refusals=refusals), RNG).concern == CLEAN


def test_cut_rejected_answers_are_seen(made, values) -> None:
    pairs = [(f"p{k}", "one two three. " * 4, "one two three " * 4 + str(k)) for k in range(40)]
    found = CHECK().run(made(pairs), RNG)
    assert values(found)["rejected_cut_off"] == 1.0 and found.concern == LOOK


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("has_list", "so:\n- a\n- b"),
        ("has_list", "1. a"),
        ("has_code", "```py"),
        ("has_heading", "## Title"),
        ("has_bold", "a **bold** word"),
    ],
)
def test_forms_are_recognised(form: str, text: str) -> None:
    assert FORMS[form](text) and not FORMS[form]("Plain words - 3.5 of them, no more.")


def test_an_ending_is_a_mark_and_short_answers_need_none() -> None:
    assert is_cut_off("this answer has eight words and stops in")
    assert not is_cut_off("this answer has eight words and stops here. ")
    assert not is_cut_off("forty two") and not is_cut_off("")
