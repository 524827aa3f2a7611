"""What every selector must do; runs over each file in the folder, so its author writes no test."""

import dataclasses
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from dpo_diag import registry
from dpo_diag.content import content_id
from dpo_diag.errors import DataError
from dpo_diag.selectors._base import ORIGINS, Selector

N = 40


@pytest.fixture(params=registry.names("selectors"))
def module(request: pytest.FixtureRequest) -> ModuleType:
    return registry.load_module("selectors", request.param)


@pytest.fixture
def selector(module: ModuleType) -> Selector:
    return module.SELECTOR()


def table_for(selector: Selector, n: int = N) -> pd.DataFrame:
    """Inputs of every kind, no two rows alike; counts of tokens from 1 to 30."""
    rng = np.random.default_rng(5)
    columns: dict[str, object] = {"pair_id": [content_id(str(i)) for i in range(n)]}
    for name in selector.needs:
        if name.startswith("n_tokens"):
            columns[name] = rng.integers(1, 31, size=n)
        elif name != "pair_id":
            columns[name] = rng.normal(size=n) * 3
    return pd.DataFrame(columns)


def numeric(selector: Selector) -> list[str]:
    return [name for name in selector.needs if name != "pair_id"]


def test_there_are_selectors() -> None:
    assert {"bees", "external_margin", "implicit_margin", "ches", "random"} <= set(
        registry.names("selectors")
    )


def test_class_is_a_frozen_dataclass_named_like_its_file(module: ModuleType) -> None:
    kind = module.SELECTOR
    assert issubclass(kind, Selector) and dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    assert kind.__name__.lower() == module.__name__.rsplit(".", 1)[-1].replace("_", "")


def test_source_needs_and_ranges_are_said(module: ModuleType, selector: Selector) -> None:
    assert "Source:" in module.__doc__ and "Needs:" in module.__doc__ and selector.source
    assert selector.needs and set(selector.needs.values()) <= ORIGINS.keys()
    assert selector.ranges.keys() == {field.name for field in dataclasses.fields(selector)}


def test_identity_names_file_and_every_parameter(selector: Selector) -> None:
    assert selector.selector_def.startswith(selector.name + "(")
    for field in dataclasses.fields(selector):
        assert f"{field.name}=" in selector.selector_def


def test_unknown_parameter_is_refused(selector: Selector) -> None:
    with pytest.raises(DataError, match="no parameter 'nonsense'"):
        registry.build("selectors", selector.name, {"nonsense": 1})


@pytest.mark.parametrize("n", [1, 2, N])
def test_one_finite_score_and_part_per_pair(selector: Selector, n: int) -> None:
    table = table_for(selector, n)
    scores = selector.scores(table)
    assert scores.shape == (n,) and scores.dtype == np.float64 and np.isfinite(scores).all()
    for values in selector.parts(table).values():
        assert values.shape == (n,) and np.isfinite(values).all()


def test_no_pairs_give_no_scores(selector: Selector) -> None:
    scores = selector.scores(table_for(selector).iloc[:0])
    assert scores.shape == (0,) and scores.dtype == np.float64


def test_scores_tell_pairs_apart(selector: Selector) -> None:
    assert len(np.unique(selector.scores(table_for(selector)))) > N / 2


def test_order_of_the_pairs_does_not_matter(selector: Selector) -> None:
    table = table_for(selector)
    order = np.random.default_rng(0).permutation(N)
    shuffled = selector.scores(table.iloc[order])
    np.testing.assert_array_equal(shuffled, selector.scores(table)[order])


def test_score_is_missing_exactly_where_an_input_is(selector: Selector) -> None:
    table = table_for(selector)
    lost = np.zeros(N, dtype=bool)
    for row, name in enumerate(numeric(selector)):
        table[name] = table[name].astype(float)
        table.loc[[row, row + 10], name] = np.nan
        lost[[row, row + 10]] = True
    np.testing.assert_array_equal(np.isnan(selector.scores(table)), lost)


def test_all_inputs_missing_is_all_scores_missing(selector: Selector) -> None:
    table = table_for(selector)
    if numeric(selector):
        table[numeric(selector)] = np.nan
        assert np.isnan(selector.scores(table)).all()
    else:
        assert np.isfinite(selector.scores(table)).all()


def test_table_is_unchanged_and_a_second_call_agrees(selector: Selector) -> None:
    table = table_for(selector)
    before = table.copy(deep=True)
    scores = selector.scores(table)
    pd.testing.assert_frame_equal(table, before)
    np.testing.assert_array_equal(selector.scores(table), scores)


def test_a_column_that_is_not_there_is_named(selector: Selector) -> None:
    for name in selector.needs:
        with pytest.raises(DataError, match=name):
            selector.scores(table_for(selector).drop(columns=name))


def test_infinite_inputs_and_texts_are_refused_by_name(selector: Selector) -> None:
    for name in numeric(selector):
        table = table_for(selector)
        infinite = table.assign(**{name: np.where(np.arange(N) == 3, np.inf, table[name])})
        with pytest.raises(DataError, match=f"finite numbers in {name}; 1 .* row 3"):
            selector.scores(infinite)
        with pytest.raises(DataError, match=name):
            selector.scores(table.assign(**{name: "much"}))
