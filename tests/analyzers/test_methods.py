"""Numbers, differences and claims of methods, by hand and on planted values."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dpo_diag.analyzers._method_claims import MethodClaim
from dpo_diag.analyzers._method_values import (
    difference_of,
    interval_over,
    seed_means,
    table_of,
    two_way,
)
from dpo_diag.analyzers.methods import Methods, Parameters
from dpo_diag.errors import TableError


def values_of(
    method: str, table: np.ndarray, statistic: str = "mean_cost", arm: str = "main"
) -> pd.DataFrame:
    """MethodValues of (prompts, seeds) values."""
    rows = [
        (method, arm, seed, statistic, f"p{i:03d}", f"p{i:03d}", float(value))
        for i, line in enumerate(table)
        for seed, value in enumerate(line)
    ]
    columns = ["model_id", "arm", "seed", "statistic", "unit_id", "prompt_id", "value"]
    return pd.DataFrame(rows, columns=columns)


def whole(method: str, numbers: list[float], statistic: str = "cost_cvar") -> pd.DataFrame:
    """MethodValues of a number of the whole model, one per seed."""
    frame = values_of(method, np.array([numbers]), statistic)
    return frame.assign(unit_id="", prompt_id="")


def run(values: pd.DataFrame, **options: object) -> pd.DataFrame:
    params = Parameters(**{"baseline_id": "dpo", **options})
    return Methods().run({"MethodValues": values}, params, np.random.default_rng(0)).findings


def only(findings: pd.DataFrame, **where: object) -> pd.Series:
    mask = np.ones(len(findings), bool)
    for column, value in where.items():
        mask &= (findings[column] == value).to_numpy()
    assert mask.sum() == 1
    return findings[mask].iloc[0]


def test_interval_is_over_prompts_and_spread_is_over_seeds() -> None:
    """Seeds' means .2, .4; prompts' means over seeds .1, .3, .5: se = .2 / sqrt(3)."""
    table = np.array([[0.0, 0.2], [0.2, 0.4], [0.4, 0.6]])
    findings = run(values_of("dpo", table))
    own = only(findings, statistic="mean_cost", baseline_id="", slice="all")
    half = stats.t.ppf(0.975, 2) * 0.2 / np.sqrt(3)
    assert own["estimate"] == pytest.approx(0.3)
    assert own["ci_high"] == pytest.approx(0.3 + half)
    assert (own["n"], own["n_clusters"]) == (3, 3)
    spread = only(findings, statistic="seed_sd_mean_cost")
    assert spread["estimate"] == pytest.approx(np.std([0.2, 0.4], ddof=1))


def test_number_of_the_whole_model_has_students_interval_over_seeds() -> None:
    numbers = [0.1, 0.2, 0.6]
    table = table_of(whole("dpo", numbers), "cost_cvar", "dpo")
    interval = interval_over(table, None, 0.9)
    low, high = stats.t.interval(0.9, 2, loc=0.3, scale=stats.sem(numbers))
    assert (interval.low, interval.high) == pytest.approx((low, high))


def test_difference_of_whole_numbers_is_welchs() -> None:
    first, second = [0.1, 0.2, 0.6, 0.3], [0.8, 0.9, 0.7]
    tables = [table_of(whole("m", n), "cost_cvar", "m") for n in (first, second)]
    difference, seeds = difference_of(*tables, level=0.95)
    oracle = stats.ttest_ind(first, second, equal_var=False)
    low, high = oracle.confidence_interval(0.95)
    assert difference.p_value == pytest.approx(oracle.pvalue)
    assert (difference.low, difference.high) == pytest.approx((low, high))
    assert seeds == pytest.approx(np.array(first) - 0.8)


def test_a_whole_number_against_a_value_counts_its_own_seeds_only() -> None:
    """One-sample t: four seeds are four observations, whatever they are compared with."""
    numbers = [0.1, 0.2, 0.6, 0.3]
    first = table_of(whole("m", numbers), "cost_cvar", "m")
    difference, seeds = difference_of(first, pd.DataFrame(), level=0.95, margin=0.5)
    low, high = stats.t.interval(0.95, 3, loc=0.3 - 0.5, scale=stats.sem(numbers))
    assert (difference.low, difference.high) == pytest.approx((low, high))
    assert (difference.n, difference.n_clusters) == (4, 4)
    assert difference.method == "t over training seeds"
    assert seeds == pytest.approx(np.array(numbers) - 0.5)


def test_units_that_a_seed_lacks_are_left_out() -> None:
    frame = values_of("dpo", np.array([[0.0, 1.0], [1.0, 1.0]])).drop(index=0)
    assert seed_means(table_of(frame, "mean_cost", "dpo")).tolist() == [1.0, 1.0]


def planted(shift: tuple[float, ...], *, arm: str = "main") -> pd.DataFrame:
    """DPO and a method that costs ``shift`` more, seed by seed, on 60 prompts of unequal cost."""
    rng = np.random.default_rng(1)
    prompts = rng.uniform(0.2, 0.8, (60, 1))
    noise = rng.normal(0, 0.01, (60, len(shift)))
    method = prompts + np.array(shift) + noise
    base = prompts + rng.normal(0, 0.01, (60, 2))
    parts = [values_of("dpo", base, arm=arm), values_of("other", method, arm=arm)]
    return pd.concat(parts, ignore_index=True)


def test_planted_shift_is_found_with_its_direction() -> None:
    row = only(run(planted((-0.1, -0.1))), statistic="mean_cost", baseline_id="dpo")
    assert row["verdict"] == "better"
    assert row["ci_low"] < -0.1 + 0.01
    assert row["ci_high"] > -0.1 - 0.01


def test_a_difference_that_one_seed_makes_decides_nothing() -> None:
    """Over prompts alone it would be certain; the seeds point both ways."""
    row = only(run(planted((-0.2, 0.05))), statistic="mean_cost", baseline_id="dpo")
    assert row["verdict"] == "not distinguishable"
    assert row["ci_low"] < -0.2
    assert row["ci_high"] > 0.05


def test_error_of_a_difference_by_hand() -> None:
    """Prompts' means 0, .3, .6; seeds' means .1, .5; no rest but -.1, .1 in two cells each.

    Over prompts .3^2 / 3 = .03; over seeds .08 / 2 = .04; rest .04 / ((3 - 1)(2 - 1)) / 6.
    """
    table = np.array([[-0.2, 0.2], [0.0, 0.6], [0.5, 0.7]])
    frame = table_of(values_of("m", table), "mean_cost", "m")
    difference = two_way(frame, level=0.95)
    left = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    variance = 0.03 + 0.04 - (left**2).sum() / 2 / 6
    df = 0.07**2 / (0.03**2 / 2 + 0.04**2 / 1)
    half = stats.t.ppf(0.975, df) * np.sqrt(variance)
    assert difference.estimate == pytest.approx(0.3)
    assert difference.high == pytest.approx(0.3 + half)
    assert difference.df == pytest.approx(df)


@pytest.mark.parametrize(("prompt_sd", "seed_sd"), [(0.3, 0.02), (0.3, 0.0), (0.05, 0.02)])
def test_two_equal_methods_are_told_apart_in_one_of_twenty(
    prompt_sd: float, seed_sd: float
) -> None:
    """300 worlds of 100 prompts and 5 seeds: at most 5 % and three standard errors (3.8)."""
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(300):
        noise = rng.normal(0, prompt_sd, (100, 1)) + rng.normal(0, seed_sd, (1, 5))
        table = table_of(values_of("m", noise + rng.normal(0, 0.1, (100, 5))), "mean_cost", "m")
        difference = two_way(table, level=0.95)
        wrong += not difference.low < 0 < difference.high
    assert wrong <= 0.088 * 300


def test_two_seeds_promise_no_difference_that_is_impossible() -> None:
    """With one degree of freedom the limits would lie far beyond -1 and 1."""
    table = np.array([[0.1, 0.9], [0.2, 1.0], [0.0, 0.8]])
    claim = MethodClaim("t", "gold_reward_accuracy", "m", "higher", margin=0.25)
    frame = values_of("m", table, "gold_reward_accuracy")
    findings = run(frame, claims=(claim,), baseline_id="")
    row = only(findings, baseline_id=f"claim: higher than {claim.against}")
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((-1.25, 0.75))


def test_one_seed_says_that_its_chance_is_missing() -> None:
    frame = values_of("m", np.array([[0.1], [0.3]]))
    difference = two_way(table_of(frame, "mean_cost", "m"), level=0.95)
    assert "one seed" in difference.flag
    assert difference.low < 0.2 < difference.high


def test_a_method_that_is_the_other_has_no_interval() -> None:
    difference = two_way(table_of(values_of("m", np.zeros((3, 2))), "mean_cost", "m"), level=0.95)
    assert np.isnan(difference.low)
    assert difference.flag == "no difference varies"


@pytest.mark.parametrize(
    ("shift", "direction", "margin", "verdict"),
    [
        ((-0.1, -0.1), "lower", 0.0, "holds"),
        ((-0.1, -0.1), "higher", 0.0, "does not hold"),
        ((-0.2, 0.05), "lower", 0.0, "not distinguishable"),
        ((0.05, 0.05), "lower", 0.1, "holds"),  # at most .1 more than the control
        ((0.0, 0.0), "lower", 0.0, "not distinguishable"),
    ],
)
def test_claims_are_decided_by_the_interval(
    shift: tuple[float, ...], direction: str, margin: float, verdict: str
) -> None:
    claim = MethodClaim("text", "mean_cost", "other", direction, control="dpo", margin=margin)
    findings = run(planted(shift), claims=(claim,))
    row = only(findings, baseline_id=f"claim: {direction} than {claim.against}")
    assert row["verdict"] == verdict


def test_claims_are_decided_at_once() -> None:
    """Two claims: each interval at 97.5 %."""
    claims = tuple(
        MethodClaim("t", "mean_cost", "other", d, control="dpo") for d in ("lower", "higher")
    )
    findings = run(planted((0.0, 0.0)), claims=claims)
    rows = findings[findings["baseline_id"].str.startswith("claim")]
    assert rows["ci_level"].tolist() == pytest.approx([0.975, 0.975])


def test_a_claim_without_a_control_is_against_a_value() -> None:
    claim = MethodClaim("t", "mean_cost", "dpo", "higher", margin=0.1)
    findings = run(planted((0.0, 0.0)), claims=(claim,))
    assert only(findings, baseline_id="claim: higher than the value 0.1")["verdict"] == "holds"


def test_a_claim_on_flipped_labels_reads_that_arm() -> None:
    values = pd.concat([planted((0.0, 0.0)), planted((-0.1, -0.1), arm="0.4")], ignore_index=True)
    claim = MethodClaim("t", "mean_cost", "other", "lower", control="dpo", arm="0.4")
    row = only(run(values, claims=(claim,)), baseline_id="claim: lower than dpo")
    assert (row["slice"], row["verdict"]) == ("flipped labels=0.4", "holds")


def test_a_claim_about_a_method_that_was_not_run_says_so() -> None:
    claim = MethodClaim("t", "mean_cost", "absent", "lower", control="dpo")
    row = only(run(planted((0.0, 0.0)), claims=(claim,)), model_id="absent")
    assert row["verdict"] == "not distinguishable"
    assert "no values of the method absent" in row["flag"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"direction": "up"}, "not higher or lower"), ({"statistic": "cost"}, "no statistic 'cost'")],
)
def test_bad_claims_are_refused(changes: dict[str, str], message: str) -> None:
    claim = {"text": "t", "statistic": "mean_cost", "treatment": "dpo", "direction": "lower"}
    with pytest.raises(TableError, match=message):
        MethodClaim(**{**claim, **changes})
