"""Planted artefacts by kind; ordinary text that looks a little like one is left alone."""

import numpy as np
import pytest

from dpo_diag.pair_checks._base import CLEAN, LOOK, REPAIR
from dpo_diag.pair_checks.artefacts import CHECK, MARKER, USER_TURN

RNG = np.random.default_rng(0)


def test_each_planted_kind_is_counted(made, values) -> None:
    asked = "What is the capital of France, please?"
    pairs = [
        (asked, "Paris.", ""),
        (asked, "Paris.<|im_end|>", "Rome."),
        (asked, "Paris.\n\nHuman: and Italy?", "Rome."),
        (asked, "Paris.", asked + " Rome."),
        (asked, "Paris.", "Rome."),
    ]
    found = CHECK().run(made(pairs), RNG)
    shown = values(found)
    for name in ("empty_texts", "template_markers", "turns_within_answers", "answers_with_prompt"):
        assert shown[name] == 0.2
    assert found.drops["artefacts"].tolist() == [True] * 4 + [False]
    assert found.concern == REPAIR


@pytest.mark.parametrize(
    "text",
    ["<|endoftext|>", "</s>", "[INST] x", "<<SYS>>", "<eos>", "<start_of_turn>", "### Response:\n"],
)
def test_markers_are_found(text: str) -> None:
    assert MARKER.search(f"x\n{text}")


@pytest.mark.parametrize(
    "text", ["a < b and c > d", "<b>bold</b>", "[1] see there", "# Title", "x <= y", "the user: me"]
)
def test_ordinary_text_holds_no_marker(text: str) -> None:
    assert not MARKER.search(text) and not USER_TURN.search(text)


def test_rows_that_make_no_pair_are_counted_and_named(made) -> None:
    found = CHECK().run(made([("p", "a", "b")], unread=("x.jsonl, line 3: no",)), RNG)
    assert found.concern == REPAIR and "line 3" in found.summary and "line 3" in found.notes[0]


def test_a_position_that_decides_is_seen(coins, values) -> None:
    always_first = CHECK().run(coins(0, 60, better_response_id=0), RNG)
    assert values(always_first)["preferred_was_first"] == 1.0 and always_first.concern == LOOK
    even = CHECK().run(coins(0, 60, better_response_id=[0, 1] * 30), RNG)
    assert even.concern == CLEAN
