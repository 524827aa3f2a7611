"""Attainable: the paper's numbers, a hand-worked table, chances against a slow oracle."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_diag.analyzers import _ideal
from dpo_diag.analyzers._idealised import NO_VOTES
from dpo_diag.analyzers.attainable import Attainable, Parameters
from dpo_diag.errors import TableError


def run(rewards, pairs=None, **parameters):
    tables = {"ImplicitRewards": rewards}
    if pairs is not None:
        tables["PreferencePairs"] = pairs
    return Attainable().run(tables, Parameters(**parameters), np.random.default_rng(0))


def test_required_loss_is_the_papers() -> None:
    """Beta .1: c = 5 needs .474, c = 30 needs .049; c = 0 needs log 2."""
    assert _ideal.required_loss(np.array([5.0, 30.0, 0.0]), 0.1) == pytest.approx(
        [0.474077, 0.048587, math.log(2.0)], abs=1e-6
    )


def test_a_pair_is_ranked_right_exactly_where_its_loss_reaches_the_required_one() -> None:
    """Theorem 4.1, on log-probs drawn at random: log pi_w - log pi_l = m - c."""
    gap, margin = np.random.default_rng(0).normal(0, 9, (2, 500))
    reached = _ideal.own_loss(margin, 0.07) <= _ideal.required_loss(gap, 0.07)
    assert (reached == (margin >= gap)).all()


def test_idealised_order_by_hand() -> None:
    """With a = .8, beta 1: odds 4, times ref(y_w) / ref(y_l) = 1/3, is 4/3: right; 1/5 gives .8."""
    margin = _ideal.idealised_margin(np.log([3.0, 5.0]), np.array([0.8, 0.8]), 1.0)
    assert np.exp(margin) == pytest.approx([4 / 3, 0.8])


def test_a_unanimous_vote_counts_as_a_thousandth_short_of_certainty() -> None:
    assert _ideal.idealised_margin(np.zeros(2), np.array([1.0, 0.0]), 2.0) == pytest.approx(
        [math.log(999.0) / 2.0, -math.log(999.0) / 2.0]
    )


@pytest.fixture
def voted(make):
    """Three pairs, c = log 3, 9, -1 nats, and votes 4 of 5, 5 of 5, 1 of 5 for the label.

    Beta 1: log 4 - log 3 right; log 999 = 6.907 < 9 wrong; -log 4 + 1 = -.386 wrong: 1/3.
    Beta .1: 13.9 > log 3 right; 69 > 9 right; -13.9 + 1 wrong: 2/3. Beta 10: .139 < log 3 wrong;
    .69 < 9 wrong; -.139 + 1 right: 1/3. Beta 5: .277 wrong, wrong, right: 1/3. Beta .01: 2/3.
    """
    ref = np.array([[-10.0 - math.log(3.0), -10.0], [-20.0, -11.0], [-5.0, -6.0]])
    rewards = make.rewards(np.array([[0.0, 0.0], [4.0, -6.0], [0.0, 0.0]]), ref)
    return rewards, make.pairs(rewards, vote_share=[0.8, 1.0, 0.2], n_votes=5)


@pytest.mark.parametrize(
    ("statistic", "part", "value"),
    [("idealised_accuracy", "beta=1", 1 / 3), ("idealised_accuracy", "beta=0.1", 2 / 3),
     ("idealised_accuracy", "beta=10", 1 / 3), ("idealised_accuracy_min", "all", 1 / 3),
     ("idealised_accuracy_median", "all", 1 / 3), ("idealised_accuracy_max", "all", 2 / 3),
     ("alignment_gap", "all", 1 / 3 - 2 / 3), ("minority_label_rate", "all", 1 / 3),
     ("voted_rate", "all", 1.0)],
)  # fmt: skip
def test_idealised_accuracy_of_a_table_by_hand(voted, own, statistic, part, value) -> None:
    """The policy moves pair 1 by 10 > 9 nats, so it has pairs 1 and 2 right, pair 0 wrong."""
    assert own(run(*voted).findings, statistic, part=part)["estimate"] == pytest.approx(value)


def test_a_picked_beta_has_no_guarantee(voted) -> None:
    found = run(*voted).findings
    picked = found["statistic"].str.fullmatch("idealised_accuracy_(min|median|max)")
    fixed = (found["statistic"] == "idealised_accuracy") & (found["slice"] == "beta=1")
    assert not found.loc[picked, "is_guarantee"].any()
    assert found.loc[fixed, "is_guarantee"].all() and fixed.any()


def test_per_token_divides_each_answer_by_its_own_length(make, own) -> None:
    """Raw c is 1; per token -10/5 + 9/3 = +1 for chosen, and a = .5 leaves it to the reference."""
    rewards = make.rewards(np.zeros((1, 2)), np.array([[-10.0, -9.0]]), n_tokens=np.array([[5, 3]]))
    findings = run(rewards, make.pairs(rewards, vote_share=[0.5])).findings
    assert own(findings, "idealised_accuracy", part="beta=1")["estimate"] == 0.0
    assert own(findings, "idealised_accuracy_per_token", part="beta=1")["estimate"] == 1.0


def test_without_votes_the_part_says_what_it_needs(make, own) -> None:
    result = run(make.rewards(np.ones((3, 2)), np.full((3, 2), -5.0)))
    for name in ("idealised_accuracy_median", "alignment_gap", "minority_label_rate"):
        row = own(result.findings, name)
        assert (row["n"], row["flag"]) == (0, NO_VOTES)
        assert math.isnan(row["estimate"])
    assert any("votes_chosen and votes_rejected" in note for note in result.notes)


def test_a_minority_label_is_counted_and_said(voted) -> None:
    assert any("On 1 pairs most annotators" in note for note in run(*voted).notes)


@pytest.fixture
def planted(make):
    """100 training pairs of c = 5, ten of which training moved by 6 nats; 100 of c = 50, none.

    Then four test pairs, all moved by 1: c = 5 (lost), 50 (never), -1 (right), and c = -2 that
    fell by 3 (lost: the reference had it right).
    """
    gap = np.r_[np.full(100, 5.0), np.full(100, 50.0), 5.0, 50.0, -1.0, -2.0]
    margin = np.r_[np.full(10, 6.0), np.full(90, 1.0), np.full(100, 1.0), 1.0, 1.0, 1.0, -3.0]
    rewards = make.rewards(np.c_[margin, 0.0 * margin], np.c_[-60.0 - gap, np.full(204, -60.0)])
    return rewards.assign(split=["train"] * 200 + ["test"] * 4)


def test_lost_and_never_are_told_apart_as_planted(planted, own) -> None:
    findings = run(planted).findings
    for part, cells in (
        ("split=test", {"right": 1 / 4, "lost_it": 2 / 4, "never_had_a_chance": 1 / 4}),
        ("split=train", {"right": 10 / 200, "lost_it": 90 / 200, "never_had_a_chance": 1 / 2}),
    ):
        for cell, share in cells.items():
            assert own(findings, f"{cell}_rate", part=part)["estimate"] == pytest.approx(share)
    assert own(findings, "tied_rate")["estimate"] == 0.0


def test_the_line_moves_the_cells_and_its_sensitivity_is_shown(planted, own) -> None:
    """Ten of a hundred reached 5 nats: at a line of .15 and more the pairs of c = 5 never could."""
    findings = run(planted, least_chance=0.08).findings
    never = [own(findings, "never_had_a_chance_rate", part=f"line={x}") for x in ("0.08", "0.16")]
    assert [row["estimate"] for row in never] == pytest.approx([101 / 204, 192 / 204])


def test_losses_stand_beside_the_required_ones(planted, own) -> None:
    """Beta .1 of the table is found in it; the wrong test pairs lost .644 each or more."""
    findings = run(planted.tail(2).assign(split="test")).findings
    row = own(findings, "own_loss_of_wrong")
    assert row["estimate"] == pytest.approx(math.log1p(math.exp(0.3)))
    assert own(findings, "required_loss_of_wrong")["estimate"] == pytest.approx(
        math.log1p(math.exp(0.2))
    )


def test_cases_say_what_was_needed(planted) -> None:
    cases = run(planted).cases
    never = cases[cases["kind"] == "never_had_a_chance"]
    assert never["severity"].iloc[0] == pytest.approx(50.0)
    assert (
        "needed a log-ratio margin of +50.00 nats, got +1.00; 0 % of like" in never["note"].iloc[0]
    )


def test_a_reward_that_is_no_multiple_of_the_log_ratio_has_no_loss(planted, own) -> None:
    findings = run(planted.assign(margin=planted["margin"] ** 2)).findings
    row = own(findings, "own_loss")
    assert row["n"] == 0 and "no multiple of the log-ratio" in row["flag"]
    assert own(findings, "right_rate")["n"] == 204


def test_without_a_reference_nothing_is_claimed(planted, own) -> None:
    blank = dict.fromkeys(
        ["logratio_chosen", "logratio_rejected", "ref_logp_chosen", "ref_logp_rejected"], np.nan
    )
    findings = run(planted.assign(**blank)).findings
    assert own(findings, "lost_it_rate")["flag"] == "no reference"
    assert own(findings, "idealised_accuracy_median")["flag"] == "no reference"


def test_an_unknown_baseline_is_named(planted) -> None:
    with pytest.raises(TableError, match="the baseline other has no rows"):
        run(planted, baseline_id="other")


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n_like=st.integers(1, 12), k=st.integers(1, 20))
def test_chance_is_that_of_the_nearest_by_sorting(seed: int, n_like: int, k: int) -> None:
    """Distances are all different, so the nearest are no matter of taste."""
    rng = np.random.default_rng(seed)
    gap, like_gap, like_margin = rng.normal(size=7), rng.normal(size=k), rng.normal(size=k)
    slow = [np.mean(like_margin[np.argsort(np.abs(like_gap - c))[:n_like]] >= c) for c in gap]
    assert _ideal.chance(gap, like_gap, like_margin, n_like=n_like) == pytest.approx(slow)


def test_strength_is_found_or_missing() -> None:
    margin = np.array([1.0, -2.0, 0.0])
    assert _ideal.strength(margin, 0.03 * margin) == pytest.approx(0.03)
    assert math.isnan(_ideal.strength(margin, margin**2))
    assert math.isnan(_ideal.strength(np.zeros(3), np.zeros(3)))
