"""Names of slices; which intervals are guarantees."""

import numpy as np
import pandas as pd
import pytest

from dpo_diag.analyzers import _local_theory, attainable, label_or_model
from dpo_diag.analyzers._rows import Statistic, as_text, interval_of, with_columns


@pytest.mark.parametrize("values", [[True, False], [True, False, None]])
def test_booleans_have_one_name_with_and_without_missing_ones(values: list) -> None:
    assert list(as_text(pd.Series(values))) == ["true", "false", ""][: len(values)]


def test_booleans_of_a_table_that_lacks_a_row_keep_their_names() -> None:
    rows, prompts = pd.DataFrame({"id": ["a", "b"]}), pd.DataFrame({"id": ["a"], "trap": [True]})
    joined = with_columns(rows, prompts, key="id", columns=["trap"])
    assert list(as_text(joined["trap"])) == ["true", ""]


def test_numbers_and_words_are_as_written() -> None:
    assert list(as_text(pd.Series([1, "True", None], dtype=object))) == ["1", "True", ""]


def test_one_and_true_of_one_column_are_two_names() -> None:
    mixed = pd.Series([1, True, None, "x", 1], dtype=object)
    assert list(as_text(mixed)) == ["1", "true", "", "x", "1"]


@pytest.mark.parametrize(
    ("values", "dtype", "names"),
    [
        (["b", "a", None, "b"], "str", ["b", "a", "", "b"]),
        (["b", "a", None, "b"], object, ["b", "a", "", "b"]),
        ([1.5, None, 2.0], float, ["1.5", "", "2.0"]),
        ([3, 1], "int64", ["3", "1"]),
        ([None, 3], "Int64", ["", "3"]),
        ([], object, []),
    ],
)
def test_a_column_of_any_dtype_is_text(values: list, dtype: object, names: list) -> None:
    assert list(as_text(pd.Series(values, dtype=dtype))) == names


def test_values_that_rest_on_other_rows_have_an_interval_but_no_guarantee() -> None:
    values, prompts = np.array([1.0, 0.0, 1.0, 1.0]), np.arange(4)
    alone = interval_of(Statistic("a", "share of pairs", "lower"), values, prompts, 0.95)
    joint = interval_of(
        Statistic("a", "share of pairs", "lower", is_joint=True), values, prompts, 0.95
    )
    assert alone.is_guarantee and not joint.is_guarantee
    assert (joint.low, joint.high) == (alone.low, alone.high)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (attainable, {"lost_it_rate", "never_had_a_chance_rate", "lost_it_of_wrong"}),
        (label_or_model, {"label_verdict_share", "undecided_share", "model_verdict_precision"}),
        (_local_theory, {"chance_order_rate", "foreseen_right"}),
    ],
)
def test_what_is_judged_by_other_pairs_is_joint(module, names: set[str]) -> None:
    assert names <= {s.name for s in module.STATISTICS if s.is_joint}
