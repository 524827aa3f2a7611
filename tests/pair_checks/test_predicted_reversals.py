"""The upper tenth of a predictor, where it lies, and its absence."""

import numpy as np
import pandas as pd

from dpo_diag.pair_checks._base import KNOW, LOOK, UNSEEN, PairData
from dpo_diag.pair_checks.predicted_reversals import CHECK

RNG = np.random.default_rng(0)


def predicted(data: PairData, scores: np.ndarray, name: str = "conflict") -> PairData:
    rows = data.rows[["pair_id", "prompt_id", "domain", "split"]]
    table = rows.assign(model_id="base", predictor=name, score=scores)
    both = pd.concat([table, table.assign(predictor="flat", score=0.0)])
    return PairData(data.rows, {"ReversalPredictions": both})


def test_upper_tenth_and_its_domain(coins, values) -> None:
    data = coins(0, 200, domain=["a"] * 100 + ["b"] * 100)
    found = CHECK().run(predicted(data, np.arange(200.0)), RNG)
    assert values(found)["in_upper_tenth_conflict"] == 0.1
    assert values(found, "domain=b")["in_upper_tenth_conflict"] == 0.2
    assert found.cases[0].row == 199 and found.concern == KNOW
    assert not any(measure.interval.is_guarantee for measure in found.measures)  # ranks


def test_a_crowded_domain_is_named(coins) -> None:
    data = coins(0, 200, domain=["a"] * 170 + ["b"] * 30)
    found = CHECK().run(predicted(data, np.arange(200.0)), RNG)
    assert found.concern == LOOK and "domains b" in found.summary


def test_a_flat_score_predicts_nothing(coins, values) -> None:
    found = CHECK().run(predicted(coins(0, 50), np.arange(50.0)), RNG)
    assert values(found)["in_upper_tenth_flat"] == 0.0


def test_absent_table_is_said(made) -> None:
    assert CHECK().run(made([("p", "a", "b")]), RNG).concern == UNSEEN
