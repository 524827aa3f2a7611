"""Kinds of shift, controls, distances: hand-worked drops and worlds with a planted cause."""

import numpy as np
import pandas as pd
import pytest

from dpo_diag.analyzers import _shift_covariates
from dpo_diag.analyzers.ood import Ood, Parameters
from dpo_diag.stats.intervals import clustered_proportion

RIGHT, WRONG = [1.0, -1.0], [-1.0, 1.0]
KIND_OF = {"one": "prompt", "two": "prompt", "three": "token_level"}


def run(rewards, pairs, distances=None, **parameters):
    tables = {"ImplicitRewards": rewards, "PreferencePairs": pairs}
    if distances is not None:
        tables["PromptDistances"] = distances
    return Ood().run(tables, Parameters(**parameters), np.random.default_rng(0))


def world(make, counts, **options):
    """Rewards and pairs from {set: (right, wrong)}, each set with the kind of ``KIND_OF``."""
    ratios, domains = [], []
    for domain, (right, wrong) in counts.items():
        ratios += [RIGHT] * right + [WRONG] * wrong
        domains += [domain] * (right + wrong)
    rewards = make.rewards(np.array(ratios), np.zeros((len(ratios), 2)), domain=domains, **options)
    return rewards, make.pairs(rewards, stratum="s", shift_kind=[KIND_OF.get(d) for d in domains])


@pytest.fixture
def kinds(make):
    """In distribution .8; prompt sets .7 and .5, a token-level one .3: drops .1, .3 and .5."""
    return world(
        make, {"in_domain": (160, 40), "one": (70, 30), "two": (10, 10), "three": (30, 70)}
    )


def test_a_kinds_drop_is_the_plain_mean_over_its_sets(kinds, own):
    """(.1 + .3) / 2 = .2 though the sets are 100 and 20 pairs; the other kind .5."""
    findings = run(*kinds).findings
    for statistic in ("ood_accuracy_drop", "ood_accuracy_drop_matched"):
        assert own(findings, statistic, part="kind=prompt")["estimate"] == pytest.approx(0.2)
        assert own(findings, statistic, part="kind=token_level")["estimate"] == pytest.approx(0.5)


def test_all_is_flagged_as_a_mix_only_where_it_is_one(kinds, make, own):
    findings = run(*kinds).findings
    assert "mixes kinds" in own(findings, "ood_accuracy_drop")["flag"]
    assert "mixes kinds" not in own(findings, "ood_accuracy_drop", part="kind=prompt")["flag"]
    single = run(*world(make, {"in_domain": (80, 20), "one": (70, 30)})).findings
    assert "mixes kinds" not in own(single, "ood_accuracy_drop")["flag"]


def test_a_drop_of_a_kind_has_a_verdict_against_0_and_a_line_that_says_it(make, own):
    """.8 against .78 is no drop to be claimed, .8 against .3 is one."""
    result = run(*world(make, {"in_domain": (160, 40), "one": (78, 22), "three": (30, 70)}))
    row = own(result.findings, "ood_accuracy_drop_matched", part="kind=prompt")
    assert row["verdict"] == "not distinguishable"
    worse = own(result.findings, "ood_accuracy_drop_matched", part="kind=token_level")
    assert worse["verdict"] == "worse" and worse["p_adjusted"] >= worse["p_value"]
    assert worse["ci_low"] > 0.0
    (line,) = [note for note in result.notes if "drop of the implicit reward" in note]
    assert line.index("Worse off-distribution: token_level (+50.0 points") < line.index(
        "Not distinguishable from no drop: prompt (+2.0 points"
    )


def test_a_better_reward_off_distribution_is_called_better(make, own):
    result = run(*world(make, {"in_domain": (60, 40), "one": (95, 5)}))
    assert own(result.findings, "ood_accuracy_drop", part="kind=prompt")["verdict"] == "better"


def test_a_set_without_a_kind_is_unspecified_and_named(make, own):
    result = run(*world(make, {"in_domain": (8, 2), "other": (5, 5)}))
    assert own(result.findings, "ood_accuracy_drop", part="kind=unspecified")["n"] == 20
    assert any("what kind of shift other is" in note for note in result.notes)


def test_numbers_of_a_kind_are_over_the_pairs_of_its_sets(kinds, own):
    """Prompt sets: 80 of 120 right; calibration and AUC are there by kind as well."""
    findings = run(*kinds).findings
    row = own(findings, "reward_accuracy", part="kind=prompt")
    assert (row["n"], row["estimate"]) == (120, pytest.approx(80 / 120))
    for statistic in ("brier", "calibration_error", "squared_calibration_error", "reward_auc"):
        assert own(findings, statistic, part="kind=token_level")["n"] == 100


def test_reliability_has_intervals_by_kind_and_by_set(kinds):
    curves = run(*kinds).curves
    kind = curves[curves["curve"] == "reliability"].set_index("series")
    assert set(kind.index) == {"in_domain", "prompt", "token_level"}
    low, high = clustered_proportion(np.array([1.0] * 30 + [0.0] * 70), np.arange(100))[1:3]
    assert tuple(kind.loc["token_level", ["y_low", "y_high"]]) == (low, high)
    sets = curves[curves["curve"] == "reliability_by_set"]
    assert set(sets["series"]) == {"in_domain", "one", "two", "three"}


# what the drop is made of


def mixed_world(make, column, values):
    """Accuracy .9 where the column is low, .5 where it is high, in both sets; only the mix differs.

    in_domain: 100 low, 100 high: .7. shift: 20 low, 80 high: .58.
    """
    parts = [("in_domain", 0, 90, 10), ("in_domain", 1, 50, 50), ("one", 0, 18, 2),
             ("one", 1, 40, 40)]  # fmt: skip
    ratios, domains, levels = [], [], []
    for domain, level, right, wrong in parts:
        ratios += [RIGHT] * right + [WRONG] * wrong
        domains += [domain] * (right + wrong)
        levels += [values[level]] * (right + wrong)
    ref, tokens, texts = np.zeros((len(ratios), 2)), None, {}
    if column == "n_tokens":
        tokens = np.array(levels)
    elif column == "ref":
        ref = np.array(levels, float)
    rewards = make.rewards(np.array(ratios), ref, domain=domains, n_tokens=tokens)
    if column == "texts":
        texts = {"chosen": [a for a, _ in levels], "rejected": [b for _, b in levels]}
    extra = {"gold_margin": levels} if column == "gold_margin" else {}
    kinds = [KIND_OF.get(d) for d in domains]
    pairs = make.pairs(rewards, stratum="s", shift_kind=kinds, **extra)
    return rewards, pairs.assign(**texts)


CAUSES = [
    ("n_tokens", [(10, 10), (10, 20)], "ood_accuracy_drop_same_length", "ood_drop_from_length"),
    ("texts", [("a b", "a c"), ("a", "b")], "ood_accuracy_drop_same_overlap",
     "ood_drop_from_overlap"),
    ("gold_margin", [2.0, 0.1], "ood_accuracy_drop_matched", "ood_drop_from_mix"),
    ("ref", [(-5.0, -9.0), (-9.0, -5.0)], "ood_accuracy_drop_matched", "ood_drop_from_mix"),
]  # fmt: skip


@pytest.mark.parametrize(("column", "values", "held", "made"), CAUSES)
def test_a_drop_that_is_all_mix_is_gone_when_it_is_held_fixed(
    make, own, column, values, held, made
):
    """Raw .7 - .58 = .12; held fixed 0; all of it is mix: (.5 - .2) * .9 + (.5 - .8) * .5."""
    findings = run(*mixed_world(make, column, values)).findings
    part = "kind=prompt"
    assert own(findings, "ood_accuracy_drop", part=part)["estimate"] == pytest.approx(0.12)
    row = own(findings, held, part=part)
    assert row["estimate"] == pytest.approx(0.0, abs=1e-12)
    assert row["ci_low"] < 0.0 < row["ci_high"]
    cause = own(findings, made, part=part)
    assert cause["estimate"] == pytest.approx(0.12)
    assert cause["ci_low"] > 0.0


@pytest.mark.parametrize(("column", "values", "held", "made"), CAUSES)
def test_what_is_not_held_fixed_stays(make, own, column, values, held, made):
    findings = run(*mixed_world(make, column, values)).findings
    for other in {held for _, _, held, _ in CAUSES} - {held}:
        row = own(findings, other, part="kind=prompt")
        assert row["estimate"] == pytest.approx(0.12)


def test_a_real_token_level_drop_is_found_whatever_is_held_fixed(make, own):
    """.85 against .55 at any length and likeness: every drop within .1 of .3 and above 0."""
    rng = np.random.default_rng(3)
    n = 800
    shifted = np.arange(n) >= n // 2
    right = rng.random(n) < np.where(shifted, 0.55, 0.85)
    rewards = make.rewards(
        np.where(right[:, None], RIGHT, WRONG),
        rng.normal(-20, 3, (n, 2)),
        n_tokens=rng.integers(5, 30, (n, 2)),
        domain=list(np.where(shifted, "three", "in_domain")),
    )
    pairs = make.pairs(
        rewards,
        stratum=rng.choice(["a", "b"], n),
        shift_kind=np.where(shifted, "token_level", None),
    ).assign(chosen=rng.choice(["a b c", "a b", "d"], n), rejected=rng.choice(["a b", "c"], n))
    findings = run(rewards, pairs).findings
    for name in ("", "_matched", "_same_length", "_same_overlap", "_same_length_overlap"):
        row = own(findings, f"ood_accuracy_drop{name}", part="kind=token_level")
        assert row["estimate"] == pytest.approx(0.3, abs=0.1)
        assert row["ci_low"] > 0.0
    for cause in ("ood_drop_from_length", "ood_drop_from_overlap", "ood_drop_from_mix"):
        assert abs(own(findings, cause, part="kind=token_level")["estimate"]) < 0.03


def test_drops_add_up_where_every_stratum_is_on_both_sides(make, own):
    """Raw is matched plus mix, exactly, in any world of well-filled strata."""
    rng = np.random.default_rng(0)
    n = 600
    rewards = make.rewards(
        rng.normal(0.3, 2, (n, 2)),
        np.zeros((n, 2)),
        domain=list(rng.choice(["in_domain", "one"], n)),
    )
    pairs = make.pairs(rewards, stratum=rng.choice(list("abc"), n))
    findings = run(rewards, pairs).findings
    value = {
        name: own(findings, name, part="domain=one")["estimate"]
        for name in ("ood_accuracy_drop", "ood_accuracy_drop_matched", "ood_drop_from_mix")
    }
    raw, matched, mix = value.values()
    assert raw == pytest.approx(matched + mix)


def test_strata_are_crossed_and_many_sparse_ones_are_counted(make, own):
    """Five strata of one pair on each side are too few to name: 5 in, 5 shifted."""
    rewards, pairs = world(make, {"in_domain": (8, 7), "one": (8, 7)})
    strata = ["full"] * 10 + list("abcde")
    findings = run(rewards, pairs.assign(stratum=strata * 2)).findings
    flag = own(findings, "ood_accuracy_drop_matched", part="kind=prompt")["flag"]
    assert "5 of 6 strata with fewer than 5 pairs on a side (5 in, 5 shifted)" in flag


def test_a_column_to_match_on_that_is_not_there_is_named(kinds):
    result = run(*kinds, match=("stratum", "mood"))
    assert any("no column mood" in note for note in result.notes)


def test_difficulty_is_the_true_gap_where_every_pair_has_one_else_the_references_margin():
    frame = pd.DataFrame({"gold_gap": [0.1, 0.2, 0.3], "reference_margin": [3.0, 2.0, 1.0]})
    found, _ = _shift_covariates.strata_of(frame, ("difficulty",))
    assert list(found) == ["gap 1 of 3", "gap 2 of 3", "gap 3 of 3"]
    unknown = frame.assign(gold_gap=[0.1, np.nan, 0.3])
    found, _ = _shift_covariates.strata_of(unknown, ("difficulty",))
    assert list(found) == ["reference 3 of 3", "reference 2 of 3", "reference 1 of 3"]


def test_overlap_of_answers_is_hand_worked():
    """{a, b} and {a, c} share one of three words; equal answers all; an empty pair is unknown."""
    pairs = pd.DataFrame({"chosen": ["a b", "x", ""], "rejected": ["a c", "x", ""]})
    assert _shift_covariates.answer_overlap(pairs) == pytest.approx(
        [1 / 3, 1.0, np.nan], nan_ok=True
    )


def test_quantile_labels_fill_bins_evenly_and_keep_equal_values_together():
    labels = _shift_covariates.quantile_labels(np.array([1.0, 2.0, 3.0, np.nan]), 3)
    assert list(labels) == ["1 of 3", "2 of 3", "3 of 3", ""]
    assert set(_shift_covariates.quantile_labels(np.zeros(9), 3)) == {"1 of 3"}


# the same pairs asked twice, other orders, baselines


def test_the_same_prompts_in_both_sets_make_the_interval_narrower(make, own):
    """Rewordings of the same pairs: what a pair is in itself cancels."""
    right = np.arange(200) % 10 < 7
    again = np.where(np.arange(200) % 20 < 19, right, ~right)
    ratios = np.where(np.concatenate([right, again])[:, None], RIGHT, WRONG)
    domain = ["in_domain"] * 200 + ["three"] * 200
    widths = []
    for prompts in (list(range(200)) * 2, list(range(400))):
        ids = [f"prompt{i:05d}" for i in prompts]
        rewards = make.rewards(ratios, np.zeros((400, 2)), domain=domain, prompt_ids=ids)
        row = own(run(rewards, make.pairs(rewards, stratum="s")).findings, "ood_accuracy_drop")
        widths.append(row["ci_high"] - row["ci_low"])
        assert row["n_clusters"] == len(set(ids))
    assert widths[0] < 0.6 * widths[1]


def test_a_drop_is_set_against_that_of_an_explicit_reward_on_the_same_pairs(make, own):
    """Implicit .8 to .3, explicit .8 to .7: the implicit drop is .4 larger, and worse."""
    rewards, pairs = world(make, {"in_domain": (160, 40), "three": (60, 140)})
    explicit = [1.0] * 160 + [-1.0] * 40 + [1.0] * 140 + [-1.0] * 60
    pairs = pairs.assign(explicit_reward_chosen=explicit, explicit_reward_rejected=0.0)
    findings = run(rewards, pairs).findings
    for name in ("ood_accuracy_drop", "ood_accuracy_drop_matched"):
        row = own(findings, name, part="kind=token_level", baseline="explicit reward")
        assert row["estimate"] == pytest.approx(0.4)
        assert row["verdict"] == "worse"


def test_pairs_that_are_harder_for_the_reference_too_are_no_worse_a_reward(make, own):
    """Reward and reference both fall from .8 to .5, on the same pairs: difference 0."""
    right = np.array([True] * 160 + [False] * 40 + [True] * 100 + [False] * 100)
    rewards = make.rewards(
        np.where(right[:, None], RIGHT, WRONG),
        np.where(right[:, None], [-5.0, -9.0], [-9.0, -5.0]),
        domain=["in_domain"] * 200 + ["one"] * 200,
    )
    pairs = make.pairs(rewards, stratum="s", shift_kind=[None] * 200 + ["prompt"] * 200)
    row = own(
        run(rewards, pairs, match=("stratum",)).findings,
        "ood_accuracy_drop", part="kind=prompt", baseline="reference's ranking",
    )  # fmt: skip
    assert row["estimate"] == pytest.approx(0.0, abs=1e-12)
    assert row["verdict"] in ("", "not distinguishable")


def test_a_baseline_is_compared_by_kind(make, own):
    model, pairs = world(make, {"in_domain": (90, 10), "one": (90, 10), "three": (40, 60)})
    base, _ = world(make, {"in_domain": (90, 10), "one": (90, 10), "three": (80, 20)},
                    model_id="base")  # fmt: skip
    findings = run(pd.concat([model, base]), pairs, baseline_id="base").findings
    worse = own(findings, "ood_accuracy_drop", part="kind=token_level", baseline="base")
    assert (worse["estimate"], worse["verdict"]) == (pytest.approx(0.4), "worse")
    same = own(findings, "ood_accuracy_drop", part="kind=prompt", baseline="base")
    assert same["verdict"] != "worse"


# distance


def distant(make, slope, n=1200, seed=5):
    """Accuracy .9 less ``slope`` per unit of distance, which runs from 0 to 1; one kind."""
    rng = np.random.default_rng(seed)
    distance = rng.random(n)
    right = rng.random(n) < 0.9 - slope * distance
    shifted = distance > 0.5
    rewards = make.rewards(
        np.where(right[:, None], RIGHT, WRONG),
        rng.normal(-20, 3, (n, 2)),
        domain=list(np.where(shifted, "one", "in_domain")),
    )
    pairs = make.pairs(rewards, stratum="s", shift_kind=np.where(shifted, "prompt", None))
    table = pd.DataFrame(
        {
            "reference_id": "ref",
            "prompt_id": rewards["prompt_id"],
            "encoder": "ref",
            "distance": distance,
            "nearest_prompt_id": "near",
            "seen_share": 1.0 - distance,
            "prompt_surprise": 2.0,
        }
    )
    return rewards, pairs, table


def test_a_planted_slope_over_distance_is_found_within_sets_too(make, own):
    findings = run(*distant(make, 0.4)).findings
    for name in ("", "_within_sets", "_controlled"):
        row = own(findings, f"accuracy_slope_embedding_distance{name}", part="kind=prompt")
        assert row["ci_low"] < -0.4 < row["ci_high"]
        assert row["ci_high"] < 0.0
        assert "unit of cosine distance" in row["unit"]


def test_one_pair_without_a_control_does_not_set_the_control_free(make, own):
    """A pair with two empty answers has no overlap: it is left out, the overlap stays fixed."""
    rewards, pairs, table = distant(make, 0.4)
    whole = run(rewards, pairs, table).findings
    pairs.loc[7, ["chosen", "rejected"]] = ""
    part = {"part": "kind=prompt"}
    name = "accuracy_slope_embedding_distance"
    assert own(run(rewards, pairs, table).findings, f"{name}_controlled", **part)["n"] == 1199
    assert own(whole, f"{name}_controlled", **part)["n"] == own(whole, name, **part)["n"] == 1200
    without = run(rewards, pairs.drop(columns=["chosen", "rejected"]), table).findings
    assert "not held fixed: answer overlap" in own(without, f"{name}_controlled", **part)["flag"]


def test_no_slope_is_called_one_of_the_reference(make, own):
    findings = run(*distant(make, 0.4)).findings
    row = own(findings, "ref_ranking_slope_embedding_distance", part="kind=prompt")
    assert row["ci_low"] < 0.0 < row["ci_high"]


def test_the_curve_over_distance_has_equally_full_bins_with_intervals(make):
    result = run(*distant(make, 0.4), n_bins=6)
    points = result.curves[result.curves["curve"] == "accuracy_by_embedding_distance"]
    assert points["n"].tolist() == [200] * 6
    assert points["x"].is_monotonic_increasing
    assert set(points["series"]) == {"prompt"}
    assert (points["y_low"] < points["y"]).all() and (points["y"] < points["y_high"]).all()
    assert points["y"].iloc[-1] < points["y"].iloc[0] - 0.15


def test_a_distance_that_does_not_vary_has_no_slope(make, own):
    findings = run(*distant(make, 0.4)).findings
    row = own(findings, "accuracy_slope_prompt_surprise", part="kind=prompt")
    assert np.isnan(row["estimate"]) and "does not vary" in row["flag"]


def test_a_drop_that_is_all_prompt_overlap_can_be_matched_away(make, own):
    """Accuracy follows how much of the prompt was seen; matched on it nothing is left."""
    rng = np.random.default_rng(1)
    n = 1500
    shifted = np.arange(n) >= n // 2
    seen = np.where(rng.random(n) < np.where(shifted, 0.3, 0.7), 1.0, 0.2)
    right = rng.random(n) < np.where(seen == 1.0, 0.9, 0.5)
    rewards = make.rewards(
        np.where(right[:, None], RIGHT, WRONG), np.zeros((n, 2)),
        domain=list(np.where(shifted, "one", "in_domain")),
    )  # fmt: skip
    pairs = make.pairs(rewards, stratum="s", shift_kind=np.where(shifted, "prompt", None))
    _, _, table = distant(make, 0.0, n=n)
    table = table.assign(prompt_id=rewards["prompt_id"].to_numpy(), seen_share=seen)
    findings = run(rewards, pairs, table, match=("stratum", "prompt_overlap")).findings
    assert own(findings, "ood_accuracy_drop", part="kind=prompt")["ci_low"] > 0.05
    row = own(findings, "ood_accuracy_drop_matched", part="kind=prompt")
    assert row["ci_low"] < 0.0 < row["ci_high"]


def test_without_the_table_only_the_answers_surprise_is_measured(kinds, make, own):
    rewards, pairs, _ = distant(make, 0.2)
    result = run(rewards, pairs)
    names = set(result.findings["statistic"])
    assert "accuracy_slope_answer_surprise" in names
    assert "accuracy_slope_embedding_distance" not in names
    assert any("Not measured: embedding distance, prompt surprise" in n for n in result.notes)


def test_distances_of_the_only_reference_serve_a_model_without_one(make, own):
    rewards, pairs, table = distant(make, 0.4)
    findings = run(rewards.assign(reference_id="none"), pairs, table).findings
    assert own(findings, "accuracy_slope_embedding_distance", part="kind=prompt")["n"] == 1200


@pytest.mark.slow
def test_tests_against_no_drop_keep_their_level(make):
    """300 worlds without any drop, two kinds: a false verdict in at most 7.5 % of them."""
    rng = np.random.default_rng(8)
    false = 0
    for _ in range(300):
        counts = {}
        for name, n in (("in_domain", 150), ("one", 120), ("three", 90)):
            right = int(rng.binomial(n, 0.8))
            counts[name] = (right, n - right)
        rows = run(*world(make, counts)).findings
        own = rows[(rows["baseline_id"] == "") & rows["slice"].str.startswith("kind=")]
        false += own["verdict"].isin(["worse", "better"]).any()
    assert false / 300 <= 0.075
