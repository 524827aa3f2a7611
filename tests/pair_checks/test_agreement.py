"""Agreement from counted votes and from rows of annotators; who is off."""

import numpy as np
import pytest

from dpo_diag.pair_checks._base import KNOW, LOOK, UNSEEN
from dpo_diag.pair_checks.agreement import CHECK, votes_of

RNG = np.random.default_rng(0)


def test_votes_are_counted_by_answer_not_by_label(made) -> None:
    """As text b > a: the first row's 4 of 5 votes are for b, the second row's 3 of 5 for a."""
    data = made([("p", "b", "a"), ("q", "a", "b")], vote_share=[0.8, 0.6], n_votes=5)
    assert votes_of(data)[["up", "down"]].to_numpy().tolist() == [[4, 1], [2, 3]]


def test_one_annotator_of_three_is_off(coins, made, values) -> None:
    pairs, who = [], []
    rng = np.random.default_rng(1)
    for k in range(60):
        for name in ("x", "y", "off"):
            turned = name == "off" and rng.random() < 0.5
            pairs.append((f"p{k}", "b", "a") if turned else (f"p{k}", "a", "b"))
            who.append(name)
    found = CHECK().run(made(pairs, annotator=who), RNG)
    off = values(found, "annotator=off")["agrees_with_others"]
    assert 0.3 < off < 0.7 and values(found, "annotator=x")["agrees_with_others"] > 0.7
    assert values(found)["unanimous_pairs"] == pytest.approx(off)


def test_coin_votes_have_no_agreement(coins, values) -> None:
    votes = np.random.default_rng(2).binomial(5, 0.5, 300)
    share = np.maximum(votes, 5 - votes) / 5  # the label is the majority's
    found = CHECK().run(coins(0, 300, vote_share=share, n_votes=5), RNG)
    alpha = next(m for m in found.measures if m.statistic == "annotator_alpha").interval
    assert alpha.low < 0.0 < alpha.high and found.concern == LOOK


def test_unanimous_votes_agree(coins, values) -> None:
    found = CHECK().run(coins(0, 80, vote_share=1.0, n_votes=3), RNG)
    assert values(found)["annotator_alpha"] == 1.0 and found.concern == KNOW and not found.advice


def test_without_several_votes_it_says_what_it_needs(made) -> None:
    assert CHECK().run(made([("p", "a", "b")]), RNG).concern == UNSEEN
    single = made([("p", "a", "b"), ("q", "a", "b")], annotator=["x", "y"])
    assert CHECK().run(single, RNG).concern == UNSEEN
    one_vote = made([("p", "a", "b"), ("q", "a", "b")], vote_share=1.0, n_votes=1)
    assert CHECK().run(one_vote, RNG).concern == UNSEEN


def test_votes_that_leave_nothing_to_chance_are_no_number(made) -> None:
    """As text a is below b in all three pairs, so that chance would agree as well."""
    found = CHECK().run(made([(p, "b", "a") for p in "pqr"], vote_share=1.0, n_votes=3), RNG)
    assert found.weight == 0.0 and "nan" not in found.summary
    assert "3 pairs, too few to tell agreement from chance" in found.summary


def test_a_handful_of_divided_pairs_calls_for_no_look(made) -> None:
    """Where only contradictory pairs were judged twice, alpha is low by construction."""
    pairs = [(f"p{k}", *answers) for k in range(6) for answers in (("a", "b"), ("b", "a"))]
    found = CHECK().run(made(pairs, annotator=["x", "y"] * 6), RNG)
    assert found.concern == KNOW and not found.advice
