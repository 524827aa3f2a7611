"""CHES as the selector computes it; a domain at risk; pairs without states."""

import numpy as np
import pandas as pd

from dpo_diag.pair_checks._base import KNOW, LOOK, UNSEEN, PairData
from dpo_diag.pair_checks.displacement import CHECK, ches
from dpo_diag.selectors.ches import Ches

RNG = np.random.default_rng(0)


def states_of(data: PairData, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = data.n
    return pd.DataFrame(
        {
            "model_id": "base",
            "pair_id": data.rows["pair_id"],
            "state_product": rng.normal(4, 2, n),
            "state_square": rng.random(n) * 10,
            "n_tokens_chosen": rng.integers(1, 9, n),
            "n_tokens_rejected": rng.integers(1, 9, n),
        }
    )


def test_both_forms_are_the_selectors(coins) -> None:
    data = coins(0, 30)
    states = states_of(data)
    parts = Ches().parts(states)
    summed, per_token = ches(data, states.sample(frac=1, random_state=1))
    np.testing.assert_allclose(summed, parts["ches"])
    np.testing.assert_allclose(per_token, parts["ches_per_token"])


def test_by_hand(made, values) -> None:
    """S+ = (4, 0) over 2 tokens, S- = (3, 3) over 1: CHES 12 - 16, per token 12/2 - 16/4 = 2."""
    data = made([("p", "a", "b"), ("q", "a", "b")])
    states = states_of(data).assign(
        state_product=12.0, state_square=16.0, n_tokens_chosen=2, n_tokens_rejected=1
    )
    shown = values(CHECK().run(PairData(data.rows, {"PairStates": states}), RNG))
    assert shown == {"ches_above_zero": 1.0, "mean_ches_per_token": 2.0, "mean_ches": -4.0}


def test_a_domain_of_likelier_displacement_is_named(coins) -> None:
    data = coins(0, 200, domain=["calm"] * 100 + ["risky"] * 100)
    states = states_of(data)
    even = CHECK().run(PairData(data.rows, {"PairStates": states}), RNG)
    states.loc[100:, "state_product"] += 20
    found = CHECK().run(PairData(data.rows, {"PairStates": states}), RNG)
    assert even.concern == KNOW and found.concern == LOOK and "risky" in found.summary
    assert "calm" not in found.summary
    ranked = [m for m in found.measures if m.statistic == "ches_in_upper_half"]
    assert ranked and not any(m.interval.is_guarantee for m in ranked)


def test_gravest_pair_comes_first_and_missing_states_are_said(coins) -> None:
    data = coins(0, 40)
    states = states_of(data).iloc[5:]
    states.loc[17, "state_product"] = 1000.0
    found = CHECK().run(PairData(data.rows, {"PairStates": states}), RNG)
    assert found.cases[0].row == 17 and "5 of 40" in found.notes[0]
    assert found.measures[0].interval.n == 35


def test_without_a_model_it_says_so(made) -> None:
    found = CHECK().run(made([("p", "a", "b")]), RNG)
    assert found.concern == UNSEEN and "--model" in found.advice


def test_unscored_rows_are_missing_not_zero(coins) -> None:
    data = coins(0, 3)
    assert np.isnan(ches(data, states_of(data).iloc[:0])[1]).all()
