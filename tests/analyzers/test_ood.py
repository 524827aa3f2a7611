"""Off-distribution: drops by hand and by oracle, matched strata, calibration, curves by step."""

import numpy as np
import pandas as pd
import pytest

from dpo_diag.analyzers.ood import Ood, Parameters

RIGHT, WRONG = [1.0, -1.0], [-1.0, 1.0]


def run(rewards, pairs=None, **parameters):
    tables = {"ImplicitRewards": rewards}
    if pairs is not None:
        tables["PreferencePairs"] = pairs
    return Ood().run(tables, Parameters(**parameters), np.random.default_rng(0))


def world(make, counts, **options):
    """Rewards and their strata from {(domain, stratum): (right, wrong)}."""
    ratios, domains, strata = [], [], []
    for (domain, stratum), (right, wrong) in counts.items():
        ratios += [RIGHT] * right + [WRONG] * wrong
        domains += [domain] * (right + wrong)
        strata += [stratum] * (right + wrong)
    rewards = make.rewards(np.array(ratios), np.zeros((len(ratios), 2)), domain=domains, **options)
    return rewards, make.pairs(rewards, stratum=strata)


@pytest.fixture
def mixed(make):
    """The accuracy is .9 on benign and .6 on harmful pairs everywhere; only the mix differs.

    in_domain: 80 benign (72 right), 20 harmful (12): 84/100. shift: 20 benign (18), 80 harmful
    (48): 66/100. Raw drop .18, matched drop 0.
    """
    return world(
        make,
        {("in_domain", "benign"): (72, 8), ("in_domain", "harmful"): (12, 8),
         ("shift", "benign"): (18, 2), ("shift", "harmful"): (48, 32)},
    )  # fmt: skip


def test_a_change_of_mix_is_a_raw_drop_and_no_matched_drop(mixed, own):
    findings = run(*mixed).findings
    raw = own(findings, "ood_accuracy_drop", part="domain=shift")
    matched = own(findings, "ood_accuracy_drop_matched", part="domain=shift")
    assert raw["estimate"] == pytest.approx(0.18)
    assert raw["ci_low"] > 0
    assert matched["estimate"] == pytest.approx(0.0, abs=1e-12)
    assert matched["ci_low"] < 0 < matched["ci_high"]


def test_a_real_drop_survives_matching(make, own):
    """Benign .9 -> .5, harmful .6 -> .5 at the shift's mix of 20 to 80: .2*.4 + .8*.1 = .16."""
    findings = run(
        *world(
            make,
            {("in_domain", "benign"): (72, 8), ("in_domain", "harmful"): (12, 8),
             ("shift", "benign"): (10, 10), ("shift", "harmful"): (40, 40)},
        )
    ).findings  # fmt: skip
    matched = own(findings, "ood_accuracy_drop_matched", part="domain=shift")
    assert matched["estimate"] == pytest.approx(0.16)


def test_a_stratum_of_one_side_is_left_out_and_named(make, own):
    findings = run(
        *world(
            make,
            {("in_domain", "benign"): (8, 2), ("shift", "benign"): (5, 5),
             ("shift", "trap"): (0, 10)},
        )
    ).findings  # fmt: skip
    row = own(findings, "ood_accuracy_drop_matched", part="domain=shift")
    assert row["estimate"] == pytest.approx(0.3)
    assert row["n"] == 20
    assert "trap (0 in, 10 shifted)" in row["flag"]


def test_without_a_shared_stratum_the_matched_drop_is_missing(make, own):
    findings = run(
        *world(make, {("in_domain", "benign"): (8, 2), ("shift", "trap"): (5, 5)})
    ).findings
    row = own(findings, "ood_accuracy_drop_matched", part="domain=shift")
    assert row["n"] == 0
    assert "no stratum on both sides" in row["flag"]


def test_without_strata_only_the_raw_drop_is_known(make, own):
    rewards, _ = world(make, {("in_domain", ""): (8, 2), ("shift", ""): (5, 5)})
    result = run(rewards)
    assert own(result.findings, "ood_accuracy_drop")["estimate"] == pytest.approx(0.3)
    assert own(result.findings, "ood_accuracy_drop_matched")["n"] == 0
    assert any("cannot be matched" in note for note in result.notes)


def test_all_is_the_plain_mean_over_kinds_of_shift(make, own):
    """Drops of .8 - .5 = .3 and .8 - .7 = .1 from sets of unlike size: mean .2."""
    findings = run(
        *world(
            make,
            {("in_domain", "s"): (8, 2), ("one", "s"): (5, 5), ("two", "s"): (70, 30)},
        )
    ).findings
    for statistic in ("ood_accuracy_drop", "ood_accuracy_drop_matched"):
        assert own(findings, statistic)["estimate"] == pytest.approx(0.2)
    assert own(findings, "ood_accuracy_drop")["n"] == 120


def test_without_a_shifted_set_there_is_no_drop(make, own):
    result = run(*world(make, {("in_domain", "s"): (8, 2)}))
    row = own(result.findings, "ood_accuracy_drop")
    assert (row["n"], row["flag"].split(";")[0]) == (0, "no shifted set")


def test_pairs_that_were_trained_on_are_left_out_when_others_exist(make, own):
    rewards, pairs = world(make, {("in_domain", "s"): (6, 4), ("shift", "s"): (5, 5)})
    trained = rewards.assign(split=["train"] * 5 + ["test"] * 15)
    row = own(run(trained, pairs).findings, "reward_accuracy", part="domain=in_domain")
    assert (row["n"], row["estimate"]) == (5, pytest.approx(1 / 5))
    only = run(rewards.assign(split="train"), pairs).findings
    assert "trained on" in own(only, "ood_accuracy_drop")["flag"]


def test_calibration_and_auc_are_those_of_the_margins(make, own):
    """Margins .2 and -.2 times three and one: sigmoid(.2) = .549834; right 3 of 4.

    Brier (3 * (1-.549834)^2 + .549834^2) / 4; error |.75 - .549834|; AUC over the six couples of
    two pairs: three positive, three ties: .75.
    """
    rewards, _ = world(make, {("in_domain", "s"): (3, 1)})
    findings = run(rewards).findings
    high = 1 / (1 + np.exp(-0.2))
    expected = {
        "brier": (3 * (1 - high) ** 2 + high**2) / 4,
        "calibration_error": 0.75 - high,
        "reward_auc": 0.75,
        "mean_margin": 0.1,
    }
    for statistic, value in expected.items():
        row = own(findings, statistic, part="domain=in_domain")
        assert row["estimate"] == pytest.approx(value)


def test_an_explicit_reward_is_shown_beside(make, own):
    rewards, pairs = world(make, {("in_domain", "s"): (6, 4), ("shift", "s"): (5, 5)})
    pairs = pairs.assign(
        explicit_reward_chosen=[1.0] * 20, explicit_reward_rejected=[0.0] * 15 + [2.0] * 5
    )
    findings = run(rewards, pairs).findings
    assert own(findings, "explicit_reward_accuracy", part="domain=shift")["estimate"] == 0.5
    assert own(findings, "explicit_accuracy_drop")["estimate"] == pytest.approx(0.5)


def test_best_of_n_needs_the_chosen_answer_above_all_others(make, own):
    """Group a wins both, b loses one, c ties one of two: (1 + 0 + 1/2) / 3."""
    ratio = np.array([RIGHT, RIGHT, RIGHT, WRONG, RIGHT, [0.0, 0.0]])
    rewards = make.rewards(ratio, np.zeros((6, 2)))
    pairs = make.pairs(rewards, group_id=list("aabbcc"))
    row = own(run(rewards, pairs).findings, "best_of_n_accuracy", part="domain=in_domain")
    assert (row["n"], row["estimate"]) == (3, pytest.approx(0.5))


def test_the_drop_is_compared_on_the_same_pairs(make, own):
    """Both models lose accuracy under the shift, the model .4 more: drops .5 and .1."""
    model, pairs = world(make, {("in_domain", "s"): (90, 10), ("shift", "s"): (40, 60)})
    base, _ = world(make, {("in_domain", "s"): (90, 10), ("shift", "s"): (80, 20)}, model_id="base")
    findings = run(pd.concat([model, base]), pairs, baseline_id="base").findings
    row = own(findings, "ood_accuracy_drop", baseline="base")
    assert row["estimate"] == pytest.approx(0.4)
    assert row["verdict"] == "worse"
    assert row["ci_low"] < 0.4 < row["ci_high"]


def test_steps_are_drawn_under_the_final_model_of_their_run(make):
    frames = []
    for name, step in (("run-step10-0123abcd", 10), ("run-step20-4567abcd", 20),
                       ("run-89ababcd", -1)):  # fmt: skip
        rewards, _ = world(
            make, {("in_domain", "s"): (8, 2), ("shift", "s"): (5, 5)}, model_id=name, step=step
        )
        frames.append(rewards)
    curves = run(pd.concat(frames)).curves
    steps = curves[curves["curve"] == "reward_accuracy_by_step_and_set"]
    assert set(steps["model_id"]) == {"run-89ababcd"}
    assert steps[steps["series"] == "shift"]["x"].tolist() == [10.0, 20.0]
    assert steps["y"].tolist() == pytest.approx([0.8, 0.8, 0.5, 0.5])


def test_the_final_model_ends_its_curve_where_its_step_is_known(make):
    """Steps 10 and 20 right on 5 and 6 of 10, the final model, of step 25, on 8."""
    frames = []
    for name, step, right in (("run-step10-0123abcd", 10, 5), ("run-step20-4567abcd", 20, 6),
                              ("run-89ababcd", -1, 8)):  # fmt: skip
        rewards, _ = world(
            make, {("in_domain", "s"): (right, 10 - right)}, model_id=name, step=step
        )
        frames.append(rewards)
    rows = pd.concat(frames)
    places = pd.DataFrame(
        {
            "run_id": "run-89ababcd",
            "model_id": ["run-step10-0123abcd", "run-step20-4567abcd", "run-89ababcd"],
            "step": [10.0, 20.0, 25.0],
            "is_start": False,
            "seed_group": "run",
        }
    )
    tables = {"ImplicitRewards": rows, "RunSteps": places}
    curves = Ood().run(tables, Parameters(), np.random.default_rng(0)).curves
    points = curves[curves["curve"] == "reward_accuracy_by_step"]
    assert points["x"].tolist() == [10.0, 20.0, 25.0]
    assert points["y"].tolist() == pytest.approx([0.5, 0.6, 0.8])


@pytest.mark.parametrize("seed", range(50))
def test_drops_agree_with_the_slow_oracle(make, seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 60))
    rewards = make.random_pairs(rng, n, ("model",))
    strata = rng.choice(["a", "b", "c"], n)
    findings = run(rewards, make.pairs(rewards, stratum=strata), match=("stratum",)).findings
    found = findings.set_index(["statistic", "slice"])["estimate"]
    score = {"right": 1.0, "tie": 0.5, "wrong": 0.0}
    rows = [
        (
            r["domain"],
            s,
            score["right" if r["margin"] > 0 else "tie" if r["margin"] == 0 else "wrong"],
        )
        for r, s in zip(rewards.to_dict("records"), strata, strict=True)
    ]

    def mean(domain, stratum=None):
        values = [x for d, s, x in rows if d == domain and stratum in (None, s)]
        return (sum(values) / len(values) if values else float("nan")), len(values)

    for domain in set(rewards["domain"]) - {"in_domain"}:
        raw = mean("in_domain")[0] - mean(domain)[0]
        part = ("ood_accuracy_drop", f"domain={domain}")
        assert found[part] == pytest.approx(raw, nan_ok=True)
        shared = [s for s in "abc" if min(mean("in_domain", s)[1], mean(domain, s)[1]) >= 5]
        total = sum(mean(domain, s)[1] for s in shared)
        matched = sum(
            mean(domain, s)[1] / total * (mean("in_domain", s)[0] - mean(domain, s)[0])
            for s in shared
        )
        part = ("ood_accuracy_drop_matched", f"domain={domain}")
        assert found[part] == pytest.approx(matched if shared else float("nan"), nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["ood_accuracy_drop", "ood_accuracy_drop_matched"])
def test_intervals_cover_a_planted_null(make, own, statistic):
    """200 worlds with accuracy .85 on both sides: 90 to 99 % of intervals hold 0."""
    rng = np.random.default_rng(21)
    held = 0
    for _ in range(200):
        counts = {}
        for domain, stratum, n in (("in_domain", "a", 60), ("in_domain", "b", 40),
                                   ("shift", "a", 30), ("shift", "b", 50)):  # fmt: skip
            right = int(rng.binomial(n, 0.85))
            counts[domain, stratum] = (right, n - right)
        row = own(run(*world(make, counts)).findings, statistic, part="domain=shift")
        held += row["ci_low"] <= 0.0 <= row["ci_high"]
    assert 0.90 <= held / 200 <= 0.995
