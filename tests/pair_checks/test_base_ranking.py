"""Theorem 4.1's loss by hand, ranking by sums and per token, unscored pairs."""

import numpy as np
import pandas as pd
import pytest

from dpo_diag.pair_checks._base import KNOW, LOOK, UNSEEN, PairData
from dpo_diag.pair_checks.base_ranking import CHECK, gaps, needed_loss

RNG = np.random.default_rng(0)


def scored(data: PairData, chosen: list, rejected: list) -> PairData:
    rows = pd.DataFrame(
        {
            "model_id": "base",
            "pair_id": data.rows["pair_id"],
            "logp_chosen": np.asarray(chosen, float),
            "logp_rejected": np.asarray(rejected, float),
            "n_tokens_chosen": 4,
            "n_tokens_rejected": 2,
        }
    )
    return PairData(data.rows, {"ScoredPairs": rows})


def test_needed_loss_at_the_published_points() -> None:
    """Beta 0.1: c = 5 needs 0.474, c = 30 needs 0.049; c = 0 needs log 2."""
    found = needed_loss(np.array([5.0, 30.0, 0.0]), beta=0.1)
    np.testing.assert_allclose(found, [0.474, 0.049, np.log(2)], atol=5e-4)


def test_needed_loss_is_where_the_order_turns() -> None:
    """At a policy that puts both answers level the margin is beta c: that loss, neither side."""
    gap, beta = np.linspace(-40, 40, 9), 0.3
    assert needed_loss(gap, beta=beta) == pytest.approx(-np.log(1 / (1 + np.exp(-beta * gap))))


def test_ranks_by_sum_and_per_token_by_hand(made, values) -> None:
    """Gaps of 2, 0 and -6 nats: wrong, tied, right.

    Per token, of 4 and 2 tokens: -1.5 against -2, -3 and -6, all right.
    """
    pairs = made([("p", "a", "b"), ("q", "a", "b"), ("r", "a", "b")])
    data = scored(pairs, [-6] * 3, [-4, -6, -12])
    shown = values(CHECK().run(data, RNG))
    assert shown["base_ranking_accuracy"] == 0.5
    assert shown["base_ranking_accuracy_per_token"] == 1.0
    assert shown["base_gap"] == pytest.approx(-4 / 3)
    assert shown["needed_loss"] == pytest.approx(np.log1p(np.exp(-0.2)))


def test_pairs_out_of_reach_are_counted_and_listed_first(coins) -> None:
    """At beta 0.1 a loss below 0.1 is a gap above log(e^0.1 - 1) / -0.1 = 22.5 nats."""
    data = coins(0, 40)
    rejected = np.where(np.arange(40) < 12, -30.0, -52.0)
    rejected[5] = 0.0
    found = CHECK().run(scored(data, [-53.0] * 40, rejected), RNG)
    assert found.measures[2].interval.estimate == 0.3 and found.concern == LOOK
    assert found.cases[0].row == 5


def test_a_base_that_is_right_is_known_and_no_more(coins) -> None:
    found = CHECK().run(scored(coins(0, 20), [-1.0] * 20, [-9.0] * 20), RNG)
    assert found.concern == KNOW and not found.cases and "0.0 %" in found.summary


def test_unscored_pairs_are_missing(coins) -> None:
    data = scored(coins(0, 4), [-1.0] * 4, [-2.0] * 4)
    part = PairData(data.rows, {"ScoredPairs": data.tables["ScoredPairs"].iloc[:3]})
    assert np.isnan(gaps(part, part.tables["ScoredPairs"])[0]).tolist() == [False] * 3 + [True]
    assert CHECK().run(part, RNG).measures[0].interval.n == 3


def test_without_a_model_it_says_so(made) -> None:
    assert CHECK().run(made([("p", "a", "b")]), RNG).concern == UNSEEN
