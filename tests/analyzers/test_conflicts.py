"""Conflicts: a hand-worked table of pushes, cut lists, cases, and pushes of a linear model."""

import numpy as np
import pandas as pd
import pytest

from dpo_diag.analyzers.conflicts import Conflicts, Parameters
from dpo_diag.reporting.cases import with_text
from dpo_diag.stats.linearised_dpo import Settings, descend, strongest_pushes
from dpo_diag.tables import CASES, PAIR_CONFLICTS, empty, validate


def conflicts_of(*rows) -> pd.DataFrame:
    """PairConflicts from rows of pair_id, train_pair_id, push, share."""
    frame = pd.DataFrame(rows, columns=["pair_id", "train_pair_id", "push", "share"])
    return validate(frame.assign(model_id="model", cosine=frame["push"] / 10.0), PAIR_CONFLICTS)


def run(rewards, conflicts, pairs, **parameters):
    tables = {"ImplicitRewards": rewards, "PairConflicts": conflicts, "PreferencePairs": pairs}
    return Conflicts().run(tables, Parameters(**parameters), np.random.default_rng(0))


@pytest.fixture
def world(make):
    """Five pairs: 0 and 1 reversed and held out, 2 and 4 for training; 3 is on 0's prompt.

    Pair 0: pushes -6, -3, -1 of training pairs 2, 3, 4: shares .6, .3, .1. Pair 1: -8 of pair 3
    is .8, the rest is not listed. Gold is against the label of 3 and agrees with 2; 4 is unknown.
    """
    margins = np.array([-2.0, -1.0, 3.0, 2.0, 1.0])
    prompts = ["prompt0", "prompt1", "prompt2", "prompt0", "prompt2"]
    rewards = make.rewards(
        np.column_stack([margins / 0.1, np.zeros(5)]), np.full((5, 2), -9.0), prompt_ids=prompts
    ).assign(split=["test", "test", "train", "train", "train"])
    pairs = make.pairs(
        rewards,
        gold_margin=[1.0, np.nan, 1.0, -1.0, np.nan],
        vote_share=[np.nan, np.nan, 0.9, 0.5, 0.2],
        n_votes=5,
    )
    conflicts = conflicts_of(
        ("pair00000", "pair00003", -3.0, 0.3),
        ("pair00000", "pair00002", -6.0, 0.6),
        ("pair00000", "pair00004", -1.0, 0.1),
        ("pair00000", "pair00001", 2.0, np.nan),
        ("pair00001", "pair00003", -8.0, 0.8),
        ("pair00002", "pair00003", -9.0, 1.0),
    )
    return rewards, conflicts, pairs


@pytest.mark.parametrize(
    ("statistic", "value"),
    [
        ("covered_rate", 1.0),
        ("top_1_share", (0.6 + 0.8) / 2),
        ("top_10_share", 1.0),  # of pair 0; of pair 1 a fifth is not listed
        ("pushers_for_half", 1.0),
        ("listed_share", 0.9),
        ("same_prompt_share", (0.3 + 0.0) / 2),
        ("against_gold_share", (0.3 / 0.9 + 1.0) / 2),
        ("training_against_gold", 1 / 2),
        ("against_gold_excess", (0.3 / 0.9 + 1.0) / 2 - 1 / 2),
        ("against_votes_share", ((0.3 / 2 + 0.1) / 1.0 + 1 / 2) / 2),
        ("training_against_votes", (0.0 + 1 / 2 + 1.0) / 3),
        ("overall_top_1_share", (0.3 + 0.8) / 2),
        ("overall_top_10_share", 0.9),
    ],
)
def test_a_small_table_by_hand(world, own, statistic, value) -> None:
    row = own(run(*world).findings, statistic)
    assert row["estimate"] == pytest.approx(value)


def test_cut_lists_are_said(world, own) -> None:
    found = run(*world).findings
    assert "lists hold 90 % of the push" in own(found, "top_1_share")["flag"]
    assert own(found, "top_10_share")["n"] == 1


def test_a_list_that_ends_before_one_half_has_no_number_for_it(world, own) -> None:
    rewards, _, pairs = world
    conflicts = conflicts_of(("pair00000", "pair00002", -3.0, 0.3))
    row = own(run(rewards, conflicts, pairs).findings, "pushers_for_half")
    assert np.isnan(row["estimate"])
    assert row["flag"] == "the lists are too short to tell"
    assert own(run(rewards, conflicts, pairs).findings, "covered_rate")["estimate"] == 0.5


def test_only_reversed_pairs_count_and_slices_hold_theirs(world, own) -> None:
    """Pair 2 is pushed too, and is not reversed; only pair 0 has a label that gold agrees with."""
    found = run(*world).findings
    assert own(found, "top_1_share")["n"] == 2
    assert own(found, "top_1_share", part="label=right")["estimate"] == pytest.approx(0.6)
    assert own(found, "top_1_share", part="split=held-out")["n"] == 2
    assert own(found, "top_1_share", part="split=train")["n"] == 0


def test_without_gold_or_votes_nothing_is_made_up(world, own) -> None:
    rewards, conflicts, pairs = world
    plain = pairs.drop(columns=["gold_margin", "vote_share"])
    found = run(rewards, conflicts, plain).findings
    for statistic, words in (
        ("against_gold_share", "no gold order"),
        ("training_against_votes", "no votes"),
    ):
        row = own(found, statistic)
        assert np.isnan(row["estimate"]) and row["flag"] == words


def test_cases_name_the_pushers_in_words_and_bring_their_text(world) -> None:
    rewards, conflicts, pairs = world
    pairs = pairs.assign(chosen=[f"text {i}" for i in range(5)])
    cases = validate(run(rewards, conflicts, pairs).cases, CASES)
    turned = cases[cases["kind"] == "pushed_by"].set_index("row_key")
    assert turned["severity"].to_dict() == pytest.approx({"pair00000": 2.0, "pair00001": 1.0})
    assert turned.at["pair00000", "note"] == (
        "margin -2.000; pushed by pair00002 (60 % of the push against it, cosine -0.60, another "
        "prompt); pair00003 (30 % of the push against it, cosine -0.30, same prompt, its label "
        "against the gold order); pair00004 (10 % of the push against it, cosine -0.10, another "
        "prompt, its label against its annotators)"
    )
    shown = with_text(cases, {"PreferencePairs": pairs}).set_index(["kind", "row_key"])
    text = shown.at[("pushed_by", "pair00000"), "other_pairs"]
    assert [line for line in text.split("\n") if "chosen" in line] == [
        f"  chosen: text {i}" for i in (2, 3, 4)
    ]
    assert shown.at[("pushed_by", "pair00000"), "chosen"] == "text 0"


def test_the_most_blamed_training_pair_is_a_case(world) -> None:
    cases = run(*world).cases
    many = cases[cases["kind"] == "pushes_many"]
    assert many.iloc[0]["row_key"] == "pair00003"
    assert many.iloc[0]["note"] == (
        "55 % of the push on all reversed pairs; pushes 2 of them, its label against the gold order"
    )


def test_curve_of_concentration_rises_to_what_is_listed(world) -> None:
    curve = run(*world).curves
    assert list(zip(curve["x"], curve["y"], strict=True)) == [
        (1.0, pytest.approx(0.55)),
        (2.0, pytest.approx(0.85)),
        (3.0, pytest.approx(0.9)),
    ]


def test_contradicting_twins_are_found_behind_a_linear_models_reversals(make, own) -> None:
    """Each of 10 pairs has three twins with the label turned: their gradients are its negative.

    Orthogonal otherwise, so its whole negative push comes from the three, in equal parts.
    """
    features = np.vstack([np.eye(10), *[-np.eye(10)] * 3])
    kernel = features @ features.T
    prediction = descend(kernel, Settings(1.0, steps=200), eval_kernel=kernel[:10])
    norms = np.ones(40)
    found = strongest_pushes(
        kernel[:10], prediction.alpha, eval_norms=norms[:10], train_norms=norms, n_each=5
    )
    prompts = [f"prompt{i % 10:05d}" for i in range(40)]
    rewards = make.rewards(
        np.column_stack([prediction.train_margins, np.zeros(40)]),
        np.full((40, 2), -9.0),
        prompt_ids=prompts,
    ).assign(split="train")
    names = rewards["pair_id"].to_numpy()
    conflicts = conflicts_of(
        *zip(names[found.pair], names[found.train_pair], found.push, found.share, strict=True)
    )
    pairs = make.pairs(rewards, gold_margin=np.repeat([1.0, -1.0], [10, 30]))
    result = run(rewards, conflicts, pairs).findings
    expected = {"top_1_share": 1 / 3, "top_10_share": 1.0, "pushers_for_half": 2.0,
                "same_prompt_share": 1.0, "against_gold_share": 1.0,
                "against_gold_excess": 1.0 - 30 / 40}  # fmt: skip
    for statistic, value in expected.items():
        assert own(result, statistic)["estimate"] == pytest.approx(value)
    assert own(result, "top_1_share")["n"] == 10


def test_no_pushes_at_all_is_said(world, own) -> None:
    rewards, _, pairs = world
    result = run(rewards, empty(PAIR_CONFLICTS), pairs)
    assert own(result.findings, "covered_rate")["estimate"] == 0.0
    assert own(result.findings, "overall_top_1_share")["flag"] == "no push on a reversed pair"
    assert result.cases.empty and result.curves.empty
