import pytest

from dpo_diag.errors import DataError
from dpo_diag.similarities.meteor import Meteor


def test_value_by_hand() -> None:
    """``the cat`` against ``the cat sat``: precision 1, recall 2/3, one run of two words.

    F = P R / (.9 P + .1 R) = (2/3) / (.9 + .2/3) = 20/29; penalty .5 * (1/2)^3 = 1/16.
    """
    value = Meteor().similarity(["the cat"], ["the cat sat"])[0]
    assert value == pytest.approx(20 / 29 * 15 / 16)


def test_stems_match_synonyms_do_not() -> None:
    """One matched word of one: F = 1, penalty .5; ``stove`` and ``range`` share no stem."""
    assert Meteor().similarity(["wiping"], ["wiped"])[0] == pytest.approx(0.5)
    assert Meteor().similarity(["stove"], ["range"])[0] == 0.0


def test_case_is_ignored_and_punctuation_stands_alone() -> None:
    values = Meteor().similarity(["Wipe, now!", "wipe , now !"], ["wipe , now !"] * 2)
    assert values[0] == values[1]


def test_scattered_matches_cost() -> None:
    together, scattered = Meteor().similarity(["a b c d", "d c b a"], ["a b c d"] * 2)
    assert scattered == pytest.approx(0.5) and together > 0.99


@pytest.mark.parametrize(("field", "value"), [("alpha", 1.0), ("beta", -1.0), ("gamma", 1.5)])
def test_values_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(DataError, match=f"{field} must be"):
        Meteor(**{field: value})
