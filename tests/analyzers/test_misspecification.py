"""Misspecification: areas by hand, residuals read off, seeds against simulation, the bandit."""

import numpy as np
import pandas as pd
import pytest

from dpo_diag.analyzers._reversal_aucs import Scored
from dpo_diag.analyzers._reversal_seeds import mean_area, on_logit_scale
from dpo_diag.analyzers.misspecification import Misspecification, Parameters
from dpo_diag.errors import TableError
from dpo_diag.sandbox import bandit
from dpo_diag.sandbox.bandit import Counts
from dpo_diag.stats.local_theory import Population, dpo_solution, pair_kernel
from dpo_diag.stats.ranks import auc, auc_difference
from dpo_diag.tables import EXPRESSIBLE, REVERSAL_PREDICTIONS, empty, validate


def rewards_of(make, margins, *, model_id="model", lengths=None, ref=None, **extra):
    """ImplicitRewards with these margins (reward units, beta .1) and, by default, equal answers."""
    margins = np.asarray(margins, float)
    logratio = np.column_stack([margins, np.zeros(len(margins))]) / 0.1
    ref = np.full((len(margins), 2), -10.0) if ref is None else ref
    return make.rewards(logratio, ref, model_id=model_id, n_tokens=lengths, **extra)


def predictions_of(rewards: pd.DataFrame, **scores) -> pd.DataFrame:
    columns = ["model_id", "pair_id", "prompt_id", "domain", "split"]
    frames = [
        rewards[columns].assign(predictor=name, score=values) for name, values in scores.items()
    ]
    return validate(pd.concat(frames, ignore_index=True), REVERSAL_PREDICTIONS)


def expressible(*rows, model_id="model") -> pd.DataFrame:
    """Rows of space, dimension, norm, moved_norm, residual_share."""
    columns = ["space", "dimension", "norm", "moved_norm", "residual_share"]
    frame = pd.DataFrame(rows, columns=columns).assign(model_id=model_id, sign_errors=0.25, n=40)
    return validate(frame, EXPRESSIBLE)


def run(rewards, predictions=None, table=None, pairs=None, **parameters):
    tables = {
        "ImplicitRewards": rewards,
        "ReversalPredictions": empty(REVERSAL_PREDICTIONS) if predictions is None else predictions,
        "Expressible": empty(EXPRESSIBLE) if table is None else table,
    }
    if pairs is not None:
        tables["PreferencePairs"] = pairs
    return Misspecification().run(tables, Parameters(**parameters), np.random.default_rng(0))


def test_area_by_hand_without_the_tie(make, own) -> None:
    """Reversed score 3 and 1, others 2 and 0; the margin of 0 scores 9: 3/4 of the four pairs."""
    rewards = rewards_of(make, [-1.0, -2.0, 1.0, 2.0, 0.0])
    found = run(rewards, predictions_of(rewards, conflict=[3.0, 1.0, 2.0, 0.0, 9.0])).findings
    row = own(found, "auc:conflict")
    assert row["estimate"] == pytest.approx(0.75)
    assert row["n"] == 4
    assert "2 reversed pairs" in row["flag"] and "1 pairs with margin 0 left out" in row["flag"]
    assert own(found, "reversal_rate")["estimate"] == pytest.approx(2 / 5)


@pytest.mark.parametrize("sign", [1, -1])
def test_length_baseline_stands_on_its_better_side(make, own, sign) -> None:
    """Chosen shorter by 3, 1 among the reversed, by 2, 0 among the others: 3/4 on either side."""
    lengths = np.array([[10, 13], [10, 11], [10, 12], [10, 10]])[:, ::sign]
    found = run(rewards_of(make, [-1.0, -2.0, 1.0, 2.0], lengths=lengths)).findings
    row = own(found, "auc:length")
    assert row["estimate"] == pytest.approx(0.75)
    assert ("turned" in row["flag"]) == (sign == -1)


def test_reference_margin_is_the_references_log_probs(make, own) -> None:
    """The reference ranks the reversed pairs wrong by 2 nats and the others right by 1."""
    ref = np.array([[-12.0, -10.0], [-12.0, -10.0], [-10.0, -11.0], [-10.0, -11.0]])
    found = run(rewards_of(make, [-1.0, -2.0, 1.0, 2.0], ref=ref)).findings
    assert own(found, "auc:reference_margin")["estimate"] == 1.0


def test_a_baseline_that_is_given_is_not_made_again(make, own) -> None:
    rewards = rewards_of(make, [-1.0, -2.0, 1.0, 2.0])
    given = predictions_of(rewards, length=[4.0, 3.0, 2.0, 1.0])
    assert own(run(rewards, given).findings, "auc:length")["estimate"] == 1.0


@pytest.fixture
def world(make):
    """300 pairs on 150 prompts: one score sees the cause well, lengths see it badly."""
    generator = np.random.default_rng(0)
    cause = generator.normal(size=300)
    prompts = [f"prompt{i // 2:05d}" for i in range(300)]
    lengths = 30 + np.column_stack(
        [-np.round(2 * cause + 6 * generator.normal(size=300)), np.zeros(300)]
    )
    rewards = rewards_of(make, 1.0 - cause, lengths=lengths.astype(int), prompt_ids=prompts)
    score = cause + 0.5 * generator.normal(size=300)
    return rewards, predictions_of(rewards, conflict=score, linearised_dpo=-score), score


def test_areas_and_gains_are_those_of_the_statistics(world, own) -> None:
    rewards, predictions, score = world
    found = run(rewards, predictions).findings
    outcome = rewards["margin"].to_numpy() < 0
    prompts = rewards["prompt_id"].to_numpy()
    expected = auc(score, outcome, prompts)
    row = own(found, "auc:conflict")
    assert tuple(row[["estimate", "ci_low", "ci_high"]]) == pytest.approx(
        (expected.estimate, expected.low, expected.high)
    )
    length = (rewards["n_tokens_rejected"] - rewards["n_tokens_chosen"]).to_numpy(float)
    gain = auc_difference(score, length, outcome, prompts)
    row = own(found, "auc:conflict", baseline="length")
    assert row["estimate"] == pytest.approx(gain.estimate)
    assert row["p_value"] == pytest.approx(gain.p_value)
    assert row["verdict"] == "better"
    assert own(found, "auc:linearised_dpo", baseline="length")["verdict"] == "worse"


def test_slices_are_by_split_and_by_right_labels(world, own, make) -> None:
    rewards, predictions, _ = world
    rewards = rewards.assign(split=np.where(np.arange(300) < 200, "train", "test"))
    gold = np.where(np.arange(300) % 3 == 0, -1.0, 1.0)
    found = run(rewards, predictions, pairs=make.pairs(rewards, gold_margin=gold)).findings
    counts = {
        "all": 300,
        "split=train": 200,
        "split=held-out": 100,
        "label=right": 200,
        "split=train, label=right": 133,
        "split=held-out, label=right": 67,
    }
    for part, n in counts.items():
        assert own(found, "auc:conflict", part=part)["n"] == n
        assert own(found, "auc:length", part=part)["n"] == n
    without = run(rewards, predictions).findings
    assert not without["slice"].str.contains("label").any()


@pytest.mark.parametrize(
    ("moved", "share", "flag"),
    [
        (2.0, 0.4, ""),
        (np.sqrt(8.0), 0.3, "read off between two lengths"),  # half way from 2 to 4 in the log
        (9.0, np.nan, "the run's own length lies outside those tried"),
        (np.nan, np.nan, "the run's own length is not known"),
    ],
)
def test_residual_is_read_off_at_the_runs_own_length(make, own, moved, share, flag) -> None:
    table = expressible(
        ("all", 900, 1.0, moved, 0.8), ("all", 900, 4.0, moved, 0.2), ("all", 900, 2.0, moved, 0.4)
    )
    row = own(run(rewards_of(make, [1.0, -1.0]), table=table).findings, "residual_share")
    assert row["estimate"] == pytest.approx(share, nan_ok=True)
    assert row["flag"] == flag
    assert np.isnan(row["ci_low"])


def test_all_parameters_stand_first_and_spaces_beside(make, own) -> None:
    rows = [
        (space, dimension, norm, 1.0, share)
        for space, dimension, share in (
            ("all", 900, 0.1),
            ("random", 64, 0.8),
            ("random", 256, 0.5),
        )
        for norm in (0.5, 1.0)
    ]
    result = run(rewards_of(make, [1.0, -1.0]), table=expressible(*rows))
    for part, share in (("all", 0.1), ("space=random 64", 0.8), ("space=random 256", 0.5)):
        assert own(result.findings, "residual_share", part=part)["estimate"] == share
    curve = result.curves[result.curves["curve"] == "residual_over_dimension"]
    assert list(zip(curve["series"], curve["x"], curve["y"], strict=True)) == [
        ("random", 64.0, 0.8),
        ("random", 256.0, 0.5),
    ]
    lengths = result.curves[result.curves["curve"] == "residual_over_norm"]
    marks = lengths[lengths["series"].str.startswith("run's own, ")]
    assert set(marks["x"]) == {1.0} and len(marks) == 3


def test_held_out_sign_errors_are_shown_where_they_are_known(make, own) -> None:
    table = expressible(("all", 900, 1.0, 1.0, 0.1)).assign(held_out_sign_errors=0.3, n_prompts=30)
    found = run(rewards_of(make, [1.0, -1.0]), table=table).findings
    row = own(found, "held_out_sign_errors")
    assert (row["estimate"], row["n"], row["n_clusters"]) == (0.3, 40, 30)


def scored_seeds(generator, *, n_seeds, n_prompts, seed_sd=0.3) -> list[Scored]:
    """Runs on the same pairs: cause and score of a pair; how well the cause shows is the seed's.

    Two pairs per prompt share a part of their cause.
    """
    n = 2 * n_prompts
    index = pd.Index([f"pair{i:05d}" for i in range(n)])
    prompts = [f"prompt{i // 2:05d}" for i in range(n)]
    cause = np.repeat(generator.normal(size=n_prompts), 2) + generator.normal(size=n)
    scores = pd.DataFrame({"conflict": cause + generator.normal(size=n)}, index=index)
    models = []
    for _ in range(n_seeds):
        strength = 1.0 + seed_sd * generator.normal()
        margins = 1.0 - strength * cause - generator.normal(size=n)
        pairs = pd.DataFrame({"prompt_id": prompts, "margin": margins}, index=index)
        models.append(Scored(pairs, scores, frozenset()))
    return models


def seeds_of(make, generator, **sizes) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same as tables."""
    rewards, predictions = [], []
    for seed, model in enumerate(scored_seeds(generator, **sizes)):
        frame = rewards_of(
            make,
            model.pairs["margin"],
            model_id=f"s{seed}",
            prompt_ids=list(model.pairs["prompt_id"]),
        )
        rewards.append(frame)
        predictions.append(predictions_of(frame, conflict=model.scores["conflict"].to_numpy()))
    return pd.concat(rewards, ignore_index=True), pd.concat(predictions, ignore_index=True)


def test_area_over_seeds_is_their_mean_with_both_sources_of_chance(make, own) -> None:
    generator = np.random.default_rng(1)
    rewards, predictions = seeds_of(make, generator, n_seeds=4, n_prompts=60, seed_sd=0.8)
    names = tuple(f"s{i}" for i in range(4))
    result = run(rewards, predictions, seeds=names)
    areas = [own(result.findings, "auc:conflict", model=name) for name in names]
    row = own(result.findings, "auc:conflict", model="seeds")
    assert row["estimate"] == pytest.approx(np.mean([area["estimate"] for area in areas]))
    spread = np.std([area["estimate"] for area in areas], ddof=1) / 2.0
    assert row["ci_high"] - row["ci_low"] > 2 * spread
    assert any(note.startswith("AUC as a mean over the 4 training seeds") for note in result.notes)


def test_seeds_are_found_in_the_table_of_runs(make, own) -> None:
    rewards, predictions = seeds_of(make, np.random.default_rng(2), n_seeds=3, n_prompts=40)
    names = ["s0", "s1", "s2"]
    steps = pd.DataFrame({"run_id": names, "model_id": names, "step": 9.0, "is_start": False})
    steps["seed_group"] = ["dpo", "dpo", "other"]
    tables = {
        "ImplicitRewards": rewards,
        "ReversalPredictions": predictions,
        "Expressible": empty(EXPRESSIBLE),
        "RunSteps": steps,
    }
    found = Misspecification().run(tables, Parameters(), np.random.default_rng(0)).findings
    pooled = own(found, "auc:conflict", model="dpo")
    mean = np.mean([own(found, "auc:conflict", model=m)["estimate"] for m in ("s0", "s1")])
    assert pooled["estimate"] == pytest.approx(mean)
    assert "other" not in set(found["model_id"])


def test_seeds_with_pairs_of_their_own_are_a_t_over_seeds(make, own) -> None:
    """Areas 1, 3/4 and 1/2: mean 3/4, error 1/4 over root 3, 2 degrees of freedom."""
    margins, rewards, scores = [-1.0, -1.0, 1.0, 1.0], [], []
    for seed, score in enumerate(
        ([4.0, 3.0, 2.0, 1.0], [4.0, 2.0, 3.0, 1.0], [4.0, 1.0, 3.0, 2.0])
    ):
        frame = rewards_of(make, margins, model_id=f"s{seed}")
        frame["pair_id"] = [f"own{seed}-{i}" for i in range(4)]
        rewards.append(frame)
        scores.append(predictions_of(frame, conflict=score))
    found = run(
        pd.concat(rewards, ignore_index=True),
        pd.concat(scores, ignore_index=True),
        seeds=("s0", "s1", "s2"),
    ).findings
    row = own(found, "auc:conflict", model="seeds")
    assert (row["estimate"], row["n"]) == (pytest.approx(0.75), 12)
    logit, half = np.log(3.0), 4.302653 * 0.25 / np.sqrt(3.0) / (0.75 * 0.25)
    limits = 1 / (1 + np.exp(-(logit + np.array([-half, half]))))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(limits), rel=1e-6)


@pytest.mark.parametrize(("n_common", "n", "flag"), [(10, 400, ""), (100, 100, "200 scores")])
def test_a_few_common_pairs_do_not_stand_for_all(n_common, n, flag) -> None:
    """Two seeds of 200 pairs, some common; 10 of them are no reason to drop the other 190."""
    models = scored_seeds(np.random.default_rng(5), n_seeds=2, n_prompts=100)
    names = pd.Index([*models[1].pairs.index[:n_common], *(f"x{i}" for i in range(200 - n_common))])
    second = models[1]._replace(
        pairs=models[1].pairs.set_index(names), scores=models[1].scores.set_index(names)
    )
    found = mean_area([models[0], second], ["conflict"], [np.ones(200, bool)] * 2, 0.95)
    assert found.n == n
    assert found.flag.startswith(flag) and bool(found.flag) == bool(flag)


@pytest.mark.slow
def test_interval_over_seeds_covers_the_mean_area() -> None:
    """500 worlds of 3 seeds and 60 prompts; the truth from 40 seeds of 4,000 prompts."""
    big = np.random.default_rng(3)
    truths = []
    for _ in range(40):
        (model,) = scored_seeds(big, n_seeds=1, n_prompts=4000)
        outcome = model.pairs["margin"].to_numpy() < 0
        truths.append(auc(model.scores["conflict"].to_numpy(), outcome, np.arange(8000)).estimate)
    truth, generator, covered = float(np.mean(truths)), np.random.default_rng(4), 0
    for _ in range(500):
        models = scored_seeds(generator, n_seeds=3, n_prompts=60)
        area = mean_area(models, ["conflict"], [np.ones(120, bool)] * 3, 0.95)
        found = on_logit_scale(area, 0.95)
        covered += found.low <= truth <= found.high
    assert 0.93 <= covered / 500 <= 0.985


def test_local_theory_foresees_every_reversal_of_the_bandit(make, own) -> None:
    """At 1:1:10 DPO turns (a1, a2) and (a2, a3); margins from the bandit's own search."""
    first, second = np.array(bandit.PAIRS).T
    counts = Counts(1, 1, 10)
    population = bandit.comparisons(counts)

    def loss(thetas: np.ndarray) -> np.ndarray:
        logp = bandit.log_policy(thetas)
        margins = logp[:, population.chosen] - logp[:, population.rejected]
        return np.logaddexp(0.0, -margins) @ population.weight

    logp = bandit.log_policy(bandit.least(loss))
    preferred = np.where(bandit.GOLD[first] > bandit.GOLD[second], 1.0, -1.0)
    actual = preferred * (logp[first] - logp[second])
    kernel = pair_kernel(np.outer(bandit.FEATURES, bandit.FEATURES), first, second)
    n = np.array([counts.n_12, counts.n_23, counts.n_13])
    theory = dpo_solution(kernel, Population(n, bandit.preference(first, second), 1.0))
    rewards = rewards_of(make, actual)
    score = -preferred * theory.margins
    found = run(rewards, predictions_of(rewards, local_theory=score)).findings
    assert own(found, "reversal_rate")["estimate"] == pytest.approx(2 / 3)
    assert own(found, "auc:local_theory")["estimate"] == 1.0
    np.testing.assert_allclose(-score, actual, atol=1e-6)


def test_two_scores_of_one_pair_and_seeds_that_are_none_are_refused(make) -> None:
    rewards = rewards_of(make, [1.0, -1.0])
    scores = predictions_of(rewards, conflict=[0.0, 1.0])
    with pytest.raises(TableError, match="two scores of conflict"):
        run(rewards, pd.concat([scores, scores], ignore_index=True))
    with pytest.raises(TableError, match="seeds names nobody"):
        run(rewards, scores, seeds=("nobody",))
