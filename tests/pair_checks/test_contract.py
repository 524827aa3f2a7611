"""What every check must do; runs over each file in the folder, so its author writes no test."""

from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from dpo_diag import registry
from dpo_diag.pair_checks._base import CLEAN, CONCERNS, LOOK, REPAIR, UNSEEN, Check, PairData

HOSTILE = (
    "\x1b]0;owned\x07\x1b[31mred",
    "=HYPERLINK(1)|<script>alert(1)</script>",
    "\u202egnirts\u200b\u200d",
    "",
    " \n\t",
    "\n" * 5000,
    "." * 5000,
    "a" * 20000,
    "{data} {model} %s %d",
    "\u4f60\u597d\u4e16\u754c",
)


@pytest.fixture(params=registry.names("pair_checks"))
def module(request: pytest.FixtureRequest) -> ModuleType:
    return registry.load_module("pair_checks", request.param)


@pytest.fixture
def check(module: ModuleType) -> Check:
    return module.CHECK()


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def base_tables(data: PairData) -> dict[str, pd.DataFrame]:
    """Rows of a base model that were never measured, for the checks that read them."""
    draws = np.random.default_rng(11)
    keys = data.rows[["pair_id", "prompt_id", "domain", "split"]].drop_duplicates("pair_id")
    n = len(keys)
    logp = {f"logp_{s}": draws.normal(-20, 5, n) for s in ("chosen", "rejected")}
    tokens = {f"n_tokens_{s}": draws.integers(1, 30, n) for s in ("chosen", "rejected")}
    states = {"state_product": draws.normal(size=n), "state_square": draws.random(n)}
    score = {"predictor": "drawn", "score": draws.normal(size=n), "model_id": "base"}
    return {
        "ScoredPairs": keys.assign(**logp, **tokens, model_id="base"),
        "PairStates": keys.assign(**states, **tokens, model_id="base"),
        "ReversalPredictions": keys.assign(**score),
    }


@pytest.fixture
def mixed(coins) -> PairData:
    """120 coin pairs in two domains, two splits and with three annotators, and a base model."""
    columns = {
        "domain": np.tile(["a", "b"], 60),
        "split": np.tile(["train", "train", "test"], 40),
        "annotator": np.tile(["x", "y", "z"], 40),
        "vote_share": np.tile([1.0, 0.6, 0.8], 40),
        "n_votes": 5,
    }
    data = coins(1, 120, **columns)
    refusals = np.random.default_rng(2).random((2, 120)) < 0.2
    return PairData(data.rows, base_tables(data), refusals=refusals)


def test_there_are_checks() -> None:
    assert {"duplicates", "leakage", "telltale"} <= set(registry.names("pair_checks"))


def test_class_is_named_like_its_file_and_says_what_it_asks(module: ModuleType) -> None:
    kind = module.CHECK
    assert issubclass(kind, Check)
    assert kind.__name__.lower() == module.__name__.rsplit(".", 1)[-1].replace("_", "")
    assert kind.question.endswith("?") and kind.reading and kind.misleads and module.__doc__


def test_no_two_checks_share_a_statistic_or_a_name_of_rows_to_drop(mixed: PairData) -> None:
    statistics, removed = [], []
    for name in registry.names("pair_checks"):
        found = registry.load("pair_checks", name)().run(mixed, rng())
        statistics += {m.statistic for m in found.measures}
        removed += registry.load("pair_checks", name).removes
    assert len(statistics) == len(set(statistics)) and len(removed) == len(set(removed))


def test_every_measure_has_unit_direction_and_rows(check: Check, mixed: PairData) -> None:
    found = check.run(mixed, rng())
    assert found.concern in CONCERNS and found.concern != UNSEEN and found.summary.endswith(".")
    assert found.measures
    keys = [(m.statistic, m.part) for m in found.measures]
    assert len(keys) == len(set(keys))
    for measure in found.measures:
        assert measure.unit and measure.better in ("lower", "higher", "neither")
        interval = measure.interval
        assert interval.n >= interval.n_clusters >= 0
        assert np.isnan(interval.estimate) == (interval.n == 0)
        if not np.isnan(interval.low):
            assert interval.low <= interval.estimate <= interval.high
    assert set(check.headline) <= {m.statistic for m in found.measures}


def test_pressing_findings_say_what_to_do(check: Check, mixed: PairData) -> None:
    found = check.run(mixed, rng())
    assert found.advice or found.concern not in (REPAIR, LOOK)


def test_drops_are_masks_of_what_the_class_announces(check: Check, mixed: PairData) -> None:
    doubled = PairData(pd.concat([mixed.rows, mixed.rows], ignore_index=True), mixed.tables)
    for name, mask in check.run(doubled, rng()).drops.items():
        assert name in check.removes and mask.shape == (240,) and mask.dtype == bool


def test_order_of_the_rows_does_not_matter(check: Check, mixed: PairData) -> None:
    order = np.random.default_rng(5).permutation(mixed.n)
    rows = mixed.rows.iloc[order].reset_index(drop=True)
    turned = PairData(rows, mixed.tables, refusals=mixed.refusals[:, order])
    first, second = check.run(mixed, rng()), check.run(turned, rng())
    for one, other in zip(first.measures, second.measures, strict=True):
        assert (one.statistic, one.part) == (other.statistic, other.part)
        assert one.interval.estimate == pytest.approx(
            other.interval.estimate, rel=1e-9, nan_ok=True
        )
    assert first.concern == second.concern


def test_same_generator_same_numbers_and_inputs_unchanged(check: Check, mixed: PairData) -> None:
    before = mixed.rows.copy(deep=True)
    first, second = check.run(mixed, rng()), check.run(mixed, rng())
    assert [m.interval for m in first.measures] == [m.interval for m in second.measures]
    pd.testing.assert_frame_equal(mixed.rows, before)


@pytest.mark.parametrize("n", [0, 1])
def test_no_row_and_one_row_give_an_answer(check: Check, coins, n: int) -> None:
    data = coins(0, n)
    data = PairData(data.rows, base_tables(data) if n else {}, refusals=np.zeros((2, n), bool))
    found = check.run(data, rng())
    assert found.concern in CONCERNS and found.summary
    assert all(m.interval.n <= 1 for m in found.measures)


def test_hostile_text_gives_an_answer(check: Check, made) -> None:
    texts = [(p, c, r) for p in HOSTILE for c in HOSTILE for r in HOSTILE[:3]]
    data = made(texts, split=np.tile(["train", "test", "train"], len(texts) // 3))
    data = PairData(data.rows, base_tables(data), refusals=np.zeros((2, data.n), bool))
    found = check.run(data, rng())
    assert found.concern in CONCERNS
    assert all(0 <= case.row < data.n for case in found.cases)


def test_cases_are_few_and_name_their_place(check: Check, mixed: PairData) -> None:
    doubled = PairData(pd.concat([mixed.rows, mixed.rows], ignore_index=True), mixed.tables)
    cases = check.run(doubled, rng()).cases
    for kind in {case.kind for case in cases}:
        assert sum(case.kind == kind for case in cases) <= doubled.n_cases
    assert all(case.note.startswith("line ") for case in cases)


def test_clean_coins_call_for_no_repair(check: Check, coins) -> None:
    data = coins(8, 300, split=np.tile(["train", "train", "test"], 100))
    found = check.run(PairData(data.rows, refusals=np.zeros((2, 300), bool)), rng())
    assert found.concern not in (REPAIR, LOOK)
    if check.removes:
        assert found.concern == CLEAN
