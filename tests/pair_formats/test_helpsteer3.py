"""HelpSteer3: the sign of the overall strength, annotators' strengths as votes."""

from typing import Any

import pytest

from dpo_diag.errors import DataError
from dpo_diag.pair_formats._base import LeftOut
from dpo_diag.pair_formats.helpsteer3 import Helpsteer3

ROW = {
    "context": [{"role": "user", "content": "q"}],
    "response1": "one",
    "response2": "two",
    "domain": "code",
    "language": "python",
}


def pair(strength: Any, scores: Any = None, **changes: Any) -> Any:
    individual = None if scores is None else [{"score": s, "reasoning": "so"} for s in scores]
    row = {**ROW, "overall_preference": strength, "individual_preference": individual, **changes}
    (draft,) = Helpsteer3().drafts(row, "better")
    return draft


@pytest.mark.parametrize(
    ("strength", "scores", "chosen", "share"),
    [(2, [3, 1, 2], "two", 1.0), (1, [2, 1, -1], "two", 2 / 3), (-1, [-3, 0], "one", 0.75),
     (-2, [1, 2, -3], "one", 1 / 3), (3, [0, 0], "two", 0.5)],
)  # fmt: skip
def test_votes_are_the_annotators_signs(strength, scores, chosen, share) -> None:
    made = pair(strength, scores)
    assert made.chosen == chosen and {made.chosen, made.rejected} == {"one", "two"}
    assert made.extras["vote_share"] == pytest.approx(share)
    assert made.extras["n_votes"] == len(scores)
    assert made.extras["overall_preference"] == strength


def test_without_annotators_there_are_no_votes() -> None:
    assert "vote_share" not in pair(1).extras and "n_votes" not in pair(1, []).extras


def test_the_context_is_the_conversation_and_the_domain_no_shift() -> None:
    made = pair(1)
    assert made.turns == [{"role": "user", "content": "q"}]
    assert made.extras["task_domain"] == "code" and "domain" not in made.extras


def test_an_overall_zero_has_no_winner() -> None:
    with pytest.raises(LeftOut, match="undecided"):
        pair(0)


def test_bad_strengths_are_named() -> None:
    with pytest.raises(DataError, match="overall_preference must be one of -3"):
        pair(7)
    with pytest.raises(DataError, match="individual_preference, entry 2: column score"):
        pair(1, [1, "high"])
    with pytest.raises(DataError, match="must be a list of entries with a score"):
        pair(1, individual_preference="1, 2")
