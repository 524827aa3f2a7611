import pytest

from dpo_diag.errors import DataError
from dpo_diag.similarities.chrf import Chrf


def test_value_by_hand() -> None:
    """``ab`` against ``abc``, character 1- and 2-grams, beta 2.

    1-grams: precision 2/2, recall 2/3; 2-grams: 1/1 and 1/2. Means 1 and 7/12;
    F = 5 * 1 * 7/12 / (4 * 1 + 7/12) = 35/55.
    """
    value = Chrf(char_order=2).similarity(["ab"], ["abc"])[0]
    assert value == pytest.approx(35 / 55)


def test_case_counts_unless_ignored() -> None:
    assert Chrf().similarity(["STOVE"], ["stove"])[0] == 0.0
    assert Chrf(lowercase=True).similarity(["STOVE"], ["stove"])[0] == 1.0


def test_spaces_do_not_count_and_recall_weighs_more() -> None:
    assert Chrf().similarity(["a b c"], ["abc"])[0] == 1.0
    longer, shorter = Chrf().similarity(
        ["wipe it then dry it", "wipe"], ["wipe it then", "wipe it then"]
    )
    assert longer > shorter


@pytest.mark.parametrize(("field", "value"), [("char_order", 0), ("word_order", -1), ("beta", 0)])
def test_values_out_of_range_are_refused(field: str, value: int) -> None:
    with pytest.raises(DataError, match=f"{field} must be"):
        Chrf(**{field: value})
