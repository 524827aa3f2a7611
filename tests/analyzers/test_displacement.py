"""Displacement: hand-worked falls, moved mass against its definition, planted harm and none."""

import math

import numpy as np
import pandas as pd
import pytest

from dpo_diag.analyzers import _alarm
from dpo_diag.analyzers._alarm import Bounds
from dpo_diag.analyzers.displacement import Displacement, Parameters
from dpo_diag.tables import PAIR_STATES, SAMPLE_LOGPS, validate


def run(rewards, **tables):
    given = {"ImplicitRewards": rewards, **tables}
    return Displacement().run(given, Parameters(), np.random.default_rng(0))


def answers(shift: np.ndarray, ref_logp: np.ndarray, *, by: str, n_tokens: int = 10, **columns):
    """SampleLogps of (P, K) answers drawn by a model, P prompts as ``make.rewards`` names them."""
    n_prompts, n_samples = shift.shape
    frame = pd.DataFrame(
        {
            "model_id": "model",
            "reference_id": "ref",
            "sampled_by": by,
            "prompt_id": np.repeat([f"prompt{i:05d}" for i in range(n_prompts)], n_samples),
            "sample_index": np.tile(np.arange(n_samples), n_prompts),
            "logp": (ref_logp + shift).ravel(),
            "ref_logp": ref_logp.ravel().astype(float),
            "n_tokens": n_tokens,
            "answer": "third",
            "domain": "in_domain",
            "split": "test",
        }
    ).assign(**columns)
    return validate(frame, SAMPLE_LOGPS)


@pytest.fixture
def hand(make) -> pd.DataFrame:
    """Four pairs of ten tokens; log-ratios of chosen and rejected.

    +1, -2: held. -1, -3: rejected fell more. -4, -2: chosen fell more. -2, +2: rejected rose.
    """
    shift = np.array([[1.0, -2.0], [-1, -3], [-4, -2], [-2, 2]])
    return make.rewards(shift, np.full((4, 2), -20.0))


@pytest.mark.parametrize(
    ("statistic", "value"),
    [("chosen_held_rate", 1 / 4), ("rejected_fell_more_rate", 1 / 4),
     ("chosen_fell_more_rate", 1 / 4), ("rejected_rose_rate", 1 / 4),
     ("rejected_fell_more_of_falls", 1 / 3), ("mean_fall_of_chosen", 6 / 4),
     ("mean_fall_of_rejected", 5 / 4), ("fall_of_chosen_per_token", 6 / 40),
     ("fall_of_rejected_per_token", 5 / 40)],
)  # fmt: skip
def test_falls_by_hand(hand, own, statistic, value) -> None:
    assert own(run(hand).findings, statistic)["estimate"] == pytest.approx(value)


def test_masses_of_a_pair_are_exact(make, own) -> None:
    """No from .85 to .01, Never from .05 to .001: Yes and all others gained .889."""
    ref, policy = np.log([[0.85, 0.05]]), np.log([[0.01, 0.001]])
    findings = run(make.rewards(policy - ref, ref)).findings
    assert own(findings, "chosen_mass_change")["estimate"] == pytest.approx(-0.84)
    assert own(findings, "rejected_mass_change")["estimate"] == pytest.approx(-0.049)
    assert own(findings, "other_mass_change")["estimate"] == pytest.approx(0.889)


def test_mass_moved_is_the_total_variation_distance(make, own) -> None:
    """Policy (.7, .3), reference (.4, .6): .3 moved. Samples in these very proportions."""
    ratio = np.log([0.7 / 0.4, 0.3 / 0.6])
    shares = {"model": [7, 3], "ref": [4, 6]}
    parts = [
        answers(np.repeat(ratio, n)[None].repeat(5, axis=0), np.full((5, 10), -1.0), by=name)
        for name, n in shares.items()
    ]
    rewards = make.rewards(np.zeros((5, 2)), np.full((5, 2), -9.0))
    findings = run(rewards, SampleLogps=pd.concat(parts, ignore_index=True)).findings
    assert own(findings, "mass_moved")["estimate"] == pytest.approx(0.3)
    kl = 0.7 * math.log(0.7 / 0.4) + 0.3 * math.log(0.3 / 0.6)
    assert own(findings, "third_shift_of_policy_answers")["estimate"] == pytest.approx(kl)


def test_answers_of_the_pair_are_no_third_ones(make, own) -> None:
    """Of two policy answers with r = 2 (1/2 gained each) one is the chosen answer."""
    rows = answers(np.full((5, 2), math.log(2.0)), np.full((5, 2), -3.0), by="model")
    rows["answer"] = ["third", "chosen"] * 5
    rewards = make.rewards(np.zeros((5, 2)), np.full((5, 2), -9.0))
    findings = run(rewards, SampleLogps=rows).findings
    assert own(findings, "mass_moved")["estimate"] == pytest.approx(0.5)
    assert own(findings, "mass_moved_to_third_answers")["estimate"] == pytest.approx(0.25)
    assert own(findings, "third_shift_of_policy_answers")["n"] == 5


def test_policy_equal_to_its_reference_has_moved_nothing_and_no_alarm(make, own) -> None:
    rewards = make.rewards(np.zeros((30, 2)), np.full((30, 2), -9.0))
    rows = [answers(np.zeros((30, 2)), np.full((30, 2), -9.0), by=by) for by in ("model", "ref")]
    findings = run(rewards, SampleLogps=pd.concat(rows, ignore_index=True)).findings
    assert own(findings, "mass_moved")["estimate"] == 0.0
    assert own(findings, "displacement_alarm")["verdict"] == "none"


def fallen(make, rng, n: int = 300, *, chosen: float = -3.0, rejected: float = -8.0):
    shift = rng.normal([chosen, rejected], 1.0, (n, 2))
    return make.rewards(shift, np.full((n, 2), -20.0))


def drawn(rng, n: int = 300, *, per_token: float = -2.0):
    """Answers of policy and reference; the policy's have this log-prob per token under ref."""
    kept = rng.normal(-20.0, 2.0, (n, 2))
    own = rng.normal(10.0 * per_token, 2.0, (n, 2))
    return pd.concat(
        [answers(rng.normal(4.0, 1.0, (n, 2)), own, by="model"),
         answers(rng.normal(-4.0, 1.0, (n, 2)), kept, by="ref")], ignore_index=True,
    )  # fmt: skip


def alarm(own, result) -> str:
    return own(result.findings, "displacement_alarm")["verdict"]


def test_a_fall_in_which_the_rejected_falls_more_looks_harmless(make, own) -> None:
    """The chosen answers fall by 3 nats, the rejected by 8, the samples stay near -2 per token."""
    rng = np.random.default_rng(0)
    assert alarm(own, run(fallen(make, rng), SampleLogps=drawn(rng))) == "looks harmless"


def test_without_samples_a_harmless_fall_cannot_be_told(make, own) -> None:
    result = run(fallen(make, np.random.default_rng(0)))
    assert alarm(own, result) == "cannot tell"
    assert any("--answers N" in note for note in result.notes)
    assert own(result.findings, "mass_moved")["flag"].startswith("no sampled answers")


@pytest.mark.parametrize(
    ("chosen", "rejected", "per_token"),
    [(-8.0, -3.0, -2.0), (-3.0, 3.0, -2.0), (-3.0, -8.0, -5.0)],
    ids=["chosen fell more", "rejected rose", "the policy left the language"],
)
def test_planted_harm_is_seen_in_log_probs(make, own, chosen, rejected, per_token) -> None:
    rng = np.random.default_rng(1)
    rewards = fallen(make, rng, chosen=chosen, rejected=rejected)
    result = run(rewards, SampleLogps=drawn(rng, per_token=per_token))
    assert alarm(own, result) == "looks harmful"


def test_mass_that_moves_to_the_opposite_meaning_is_seen_in_short_answers(make, own) -> None:
    """No over Never; Yes gains: margins grow on every pair, yet .8 of probability is gone."""
    rng = np.random.default_rng(2)
    ref = np.log(np.c_[rng.uniform(0.8, 0.9, 60), rng.uniform(0.02, 0.06, 60)])
    shift = np.c_[rng.normal(-4.4, 0.3, 60), rng.normal(-9.0, 0.3, 60)]
    rewards = make.rewards(shift, ref, n_tokens=np.ones((60, 2), int))
    result = run(rewards)
    assert own(result.findings, "rejected_fell_more_of_falls")["estimate"] == 1.0
    assert alarm(own, result) == "looks harmful"


def judged(make, rng, rise: float):
    """Costs of four answers to a prompt: the reference's near .5, the policy's higher by a rise."""
    base = rng.normal(0.5, 0.1, (300, 4))
    rows = [
        make.costs(base, model_id="ref", cost="bad"),
        make.costs(base + rng.normal(rise, 0.05, (300, 4)), model_id="model", cost="bad"),
    ]
    return pd.concat(rows, ignore_index=True)


@pytest.mark.parametrize(
    ("rise", "word"), [(0.1, "harmful"), (-0.1, "harmless"), (0.0, "harmless")]
)
def test_a_judge_decides_what_log_probs_cannot(make, own, rise, word) -> None:
    """All is well in the log-probs; only the judge knows of the answers' meaning."""
    rng = np.random.default_rng(3)
    rewards, costs = fallen(make, rng), judged(make, rng, rise)
    result = run(rewards, SampleLogps=drawn(rng), SampleCosts=costs)
    assert alarm(own, result) == word
    row = own(result.findings, "cost_change_displaced", part="cost=bad")
    assert row["estimate"] == pytest.approx(rise, abs=0.02) and row["n"] == 75
    cases = result.cases[result.cases["kind"] == "worse_answers_bad"]
    assert len(cases) > 0 or rise <= 0


def test_costs_of_other_models_judge_nobody(make, own) -> None:
    rng = np.random.default_rng(4)
    costs = judged(make, rng, 0.5).replace({"model_id": {"ref": "elsewhere"}})
    result = run(fallen(make, rng), SampleLogps=drawn(rng), SampleCosts=costs)
    assert alarm(own, result) == "looks harmless"


def test_ches_uses_true_lengths_and_finds_a_planted_order(make, own) -> None:
    """S+ = (4, 0) over 2 tokens and S- = (3, 3) over 1: CHES -4, per token 12/2 - 16/4 = 2."""
    n = 40
    scale = np.linspace(1.0, 3.0, n)
    shift = np.c_[-scale, np.zeros(n)]
    lengths = np.tile([2, 1], (n, 1))
    rewards = make.rewards(shift, np.full((n, 2), -9.0), n_tokens=lengths)
    kept = ["pair_id", "prompt_id", "n_tokens_chosen", "n_tokens_rejected", "truncated"]
    states = rewards[[*kept, "domain", "split"]].assign(
        model_id="ref", state_product=12.0 * scale, state_square=16.0 * scale, engine="hf",
        dtype="float32", tokenizer_hash="x",
    )  # fmt: skip
    result = run(rewards, PairStates=validate(states, PAIR_STATES))
    high = result.cases[result.cases["kind"] == "high_ches"]
    assert high["severity"].min() >= 2.0 and high["severity"].max() == pytest.approx(6.0)
    assert own(result.findings, "ches_per_token_rank_correlation")["estimate"] == pytest.approx(1.0)
    assert own(result.findings, "ches_rank_correlation")["estimate"] == pytest.approx(-1.0)


def test_without_states_ches_says_what_it_needs(hand, own) -> None:
    result = run(hand)
    assert "PairStates (--states)" in own(result.findings, "ches_rank_correlation")["flag"]
    assert any("--states" in note for note in result.notes)


def test_without_a_reference_no_alarm_is_raised(hand, own) -> None:
    names = ["logratio_chosen", "logratio_rejected", "ref_logp_chosen", "ref_logp_rejected"]
    row = own(run(hand.assign(**dict.fromkeys(names, np.nan))).findings, "displacement_alarm")
    assert (row["n"], row["flag"], row["verdict"]) == (0, "no reference", "")


NARROW = 0.01


def around(value: float) -> Bounds:
    return Bounds(value, value - NARROW, value + NARROW)


FALLS = _alarm.fall_line(around(2.0), around(0.8))
FINE = [_alarm.share_line(around(0.7)), _alarm.support_line(around(0.0), 0.5)]


@pytest.mark.parametrize(
    ("lines", "level"),
    [([_alarm.fall_line(around(-1.0), around(0.2))], "none"),
     ([_alarm.fall_line(Bounds(0.1, -0.2, 0.4), Bounds(0.5, 0.4, 0.6))], "cannot tell"),
     ([_alarm.fall_line(Bounds(0.1, -0.2, 0.4), around(0.3))], "none"),
     ([FALLS, *FINE], "looks harmless"),
     ([FALLS, FINE[0]], "cannot tell"),
     ([_alarm.fall_line(Bounds(0.0, np.nan, np.nan), Bounds(0.0, 0.0, 0.04))], "none"),
     ([_alarm.fall_line(Bounds(-3.0, np.nan, np.nan), Bounds(0.0, 0.0, 0.98))], "cannot tell"),
     ([_alarm.fall_line(Bounds(3.0, np.nan, np.nan), Bounds(1.0, 0.02, 1.0)), *FINE],
      "cannot tell"),
     ([FALLS, *FINE, _alarm.rise_line(around(0.2))], "looks harmful"),
     ([FALLS, *FINE, _alarm.mass_line(around(-0.3), around(0.3), 0.05)], "looks harmful"),
     ([FALLS, _alarm.share_line(Bounds(0.45, 0.38, 0.52)), FINE[1]], "cannot tell"),
     ([FALLS, *FINE, _alarm.judge_line("c", around(0.2), around(0.2), 0.1)], "harmful"),
     ([FALLS, *FINE, _alarm.judge_line("c", around(-0.2), around(0.2), 0.1)], "harmless"),
     ([FALLS, *FINE, _alarm.judge_line("c", Bounds(0.2, -0.3, 0.7), around(0.2), 0.1)],
      "cannot tell"),
     ([FALLS, _alarm.share_line(around(0.2)),
       _alarm.judge_line("c", around(-0.2), around(0.2), 0.1)], "harmless")],
)  # fmt: skip
def test_levels_follow_intervals_not_points(lines, level) -> None:
    assert _alarm.level_of(lines).level == level
