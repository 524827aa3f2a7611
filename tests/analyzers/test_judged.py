"""Agreement with a judge and accuracy behind it: by hand, without validation, in planted worlds."""

import numpy as np
import pandas as pd
import pytest

from dpo_diag.analyzers._base import AnalyzerResult
from dpo_diag.analyzers.judged import Judged, Parameters


def tables(
    make, agrees: np.ndarray, *, is_first: object = True, gold: object = None, **columns: object
) -> dict[str, pd.DataFrame]:
    """Rewards whose order is the judge's where ``agrees`` is 1, a tie where it is one half."""
    margin = 2.0 * np.asarray(agrees, float) - 1.0
    rewards = make.rewards(
        np.column_stack([margin, np.zeros(len(margin))]), np.full((len(margin), 2), -9.0)
    )
    pairs = make.pairs(rewards, judge="cost", is_first_chosen=is_first, **columns)
    if gold is not None:
        pairs["gold_label"] = gold
    return {"ImplicitRewards": rewards, "PreferencePairs": pairs}


def run(given: dict[str, pd.DataFrame], baseline: str = "") -> AnalyzerResult:
    return Judged().run(given, Parameters(baseline), np.random.default_rng(0))


def value(result: AnalyzerResult, statistic: str, label: str = "all") -> pd.Series:
    found = result.findings
    (row,) = found[(found["statistic"] == statistic) & (found["slice"] == label)].itertuples()
    return row


def test_without_validated_pairs_it_is_agreement_and_says_so(make) -> None:
    result = run(tables(make, np.array([1.0] * 7 + [0.0] * 2 + [0.5])))
    agreement = value(result, "reward_judge_agreement")
    assert agreement.estimate == 0.75
    assert "agreement with the judge, not accuracy" in agreement.flag
    corrected = value(result, "reward_accuracy_corrected")
    assert np.isnan(corrected.estimate)
    assert "no validated pairs" in corrected.flag
    assert any("not accuracy" in note for note in result.notes)


def test_validated_pairs_by_hand(make) -> None:
    """Judge right on 4 of 5, reward agrees with 6 of 10: (0.6 - 0.2) / 0.6 = 2/3.

    Of the validated five the reward agrees with the judge on the first three (right, right, and
    wrong where the judge is) and not on the other two (wrong both): 2 of 5 are right.
    """
    agrees = np.array([1, 1, 1, 0, 0, 1, 1, 1, 0, 0.0])
    gold = ["chosen", "chosen", "rejected", "chosen", "chosen", *[""] * 5]
    result = run(tables(make, agrees, gold=gold))
    assert value(result, "judge_accuracy").estimate == 0.8
    assert value(result, "reward_accuracy_validated").estimate == pytest.approx(0.4)
    assert value(result, "reward_accuracy_rogan_gladen").estimate == pytest.approx(2 / 3)
    assert "5 validated pairs" in value(result, "reward_accuracy_corrected").flag


def test_planted_accuracy_comes_back_from_a_judge_that_errs(make) -> None:
    """2,000 pairs, reward right on 75 %, judge on 85 %: agreement is near .675, corrected .75."""
    rng = np.random.default_rng(4)
    n = 2000
    truth_first = rng.random(n) < 0.5
    judge_first = np.where(rng.random(n) < 0.85, truth_first, ~truth_first)
    model_first = np.where(rng.random(n) < 0.75, truth_first, ~truth_first)
    gold = np.where(judge_first == truth_first, "chosen", "rejected").astype(object)
    gold[rng.random(n) > 0.2] = None
    result = run(
        tables(make, (model_first == judge_first).astype(float), is_first=judge_first, gold=gold)
    )
    agreement = value(result, "reward_judge_agreement")
    assert agreement.ci_high < 0.72
    for name in ("reward_accuracy_corrected", "reward_accuracy_rogan_gladen"):
        row = value(result, name)
        assert row.ci_low < 0.75 < row.ci_high
        assert row.ci_high - row.ci_low > agreement.ci_high - agreement.ci_low
    alone = value(result, "reward_accuracy_validated")
    corrected = value(result, "reward_accuracy_corrected")
    assert corrected.ci_high - corrected.ci_low < alone.ci_high - alone.ci_low


def test_domains_are_slices(make) -> None:
    given = tables(make, np.array([1.0, 1.0, 0.0, 0.0]))
    given["ImplicitRewards"]["domain"] = ["in_domain", "in_domain", "far", "far"]
    result = run(given)
    assert value(result, "reward_judge_agreement", "domain=in_domain").estimate == 1.0
    assert value(result, "reward_judge_agreement", "domain=far").estimate == 0.0


def test_what_the_judge_left_open_is_counted(make) -> None:
    """Six pairs of different answers: one abstention, one waverer, one tie are half of them."""
    states = ["decided"] * 3 + ["abstained", "wavered", "tied", "identical", "empty"]
    judged = pd.DataFrame(
        {
            "state": states,
            "prompt_id": [f"p{i}" for i in range(8)],
            "order_agreement": [1.0, 1.0, 1.0, np.nan, 0.0, 1.0, np.nan, np.nan],
        }
    )
    result = run({**tables(make, np.ones(3)), "JudgedPairs": judged})
    undecided = value(result, "judge_undecided_rate")
    assert (undecided.estimate, undecided.n, undecided.better) == (0.5, 6, "lower")
    assert value(result, "judge_order_agreement").estimate == pytest.approx(0.8)
