"""Why pairs were reversed: pushes by hand on known gradients, and the command on a tiny run."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from dpo_diag import tables
from dpo_diag.pipeline import expressed, local_margins, pushes
from dpo_diag.pipeline.gradient_rows import GradientFeatures
from dpo_diag.pipeline.why import targets_of

IDS = np.array(["t0", "t1", "t2", "h0"])


def features(plain: np.ndarray) -> GradientFeatures:
    squares = np.sum(plain**2, axis=1)
    return GradientFeatures(
        pair_ids=IDS[: len(plain)],
        plain=plain.astype(np.float32),
        adam=None,
        squares=squares,
        adam_squares=None,
        kind="exact",
        n_parameters=plain.shape[1],
        space="all",
        seed=0,
        k=plain.shape[1],
    )


def frame(**columns: object) -> pd.DataFrame:
    splits = ["train", "train", "train", "test"]
    prompts = ["q0", "q1", "q2", "q3"]
    return pd.DataFrame({"pair_id": IDS, "prompt_id": prompts, "split": splits, **columns})


def rewards(margins: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "model_id": "run",
            "pair_id": IDS,
            "prompt_id": ["q0", "q1", "q2", "q3"],
            "domain": "in_domain",
            "split": ["train", "train", "train", "test"],
            "margin": margins,
            "logratio_chosen": np.array(margins) / 0.1,
            "logratio_rejected": 0.0,
        }
    )


# two training pairs along x, one along y; the held-out pair is minus x with a little y
PLAIN = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]])


@pytest.fixture
def products() -> pushes.Products:
    return pushes.products_of(features(PLAIN), frame(), max_train=10, seed=0)[0]


def test_products_are_inner_products_with_the_training_pairs(products) -> None:
    assert list(products.pair_ids[products.train]) == ["t0", "t1", "t2"]
    np.testing.assert_allclose(products.kernel["plain"], PLAIN @ PLAIN[:3].T)
    np.testing.assert_allclose(products.norms["plain"], [2, 1, 1, np.sqrt(1.25)])


def test_a_pair_that_training_pairs_pull_against_is_predicted_to_be_reversed(products) -> None:
    """Cosines of h0 with t0, t1, t2: -1, -1, .5 over sqrt(1.25): conflict 1.5 / 1.1180."""
    table = pushes.predictions(rewards([1, 1, 1, -1]), products, beta=0.1)
    score = table.set_index(["predictor", "pair_id"])["score"]
    assert score["conflict", "h0"] == pytest.approx(1.5 / np.sqrt(1.25), rel=1e-5)
    assert score["conflict", "t0"] == pytest.approx(-1.0)  # t1 alone agrees; itself is left out
    assert score["linearised_dpo", "h0"] > 0 > score["linearised_dpo", "t0"]
    assert score["negative_products", "h0"] == pytest.approx(3.0)


def test_the_prediction_stops_where_the_mean_training_reward_says(products) -> None:
    """Training margins of the linear model average FORESEEN_REWARD / beta."""
    table = pushes.predictions(rewards([1, 1, 1, -1]), products, beta=0.1)
    own = table[(table["predictor"] == "linearised_dpo") & (table["split"] == "train")]
    assert -own["score"].mean() == pytest.approx(pushes.FORESEEN_REWARD / 0.1, rel=1e-4)


def test_conflicts_name_who_pushed_a_reversed_pair_and_never_the_pair_itself(products) -> None:
    own = rewards([-0.1, 1, 1, -1])
    table = pushes.conflicts(own, products, beta=0.1, n_named=5)
    assert set(table["pair_id"]) == {"t0", "h0"}
    assert not (table["pair_id"] == table["train_pair_id"]).any()
    against = table[(table["pair_id"] == "h0") & (table["push"] < 0)]
    assert list(against["train_pair_id"]) == ["t0", "t1"]  # hardest first
    assert against["share"].sum() == pytest.approx(1.0)
    # the longer gradient pushes twice as hard with nearly the same weight
    assert against["push"].iloc[0] / against["push"].iloc[1] == pytest.approx(2.0, rel=0.2)


def test_a_descent_that_ends_short_of_the_run_says_so(products) -> None:
    """Two labels of one pair that contradict each other: their mean margin stays at 0."""
    own = rewards([1, 1, 1, -1])
    assert pushes.short_of("run", pushes.towards_run(own, products, 0.1), "the pushes") == ""
    turned = pushes.products_of(
        features(np.array([[1.0, 0], [-1.0, 0], [0, 1e-6], [1, 0]])), frame(), max_train=9, seed=0
    )[0]
    said = pushes.short_of("run", pushes.towards_run(own, turned, 0.1), "the pushes")
    assert said.startswith("run: the pushes rest on a descent that ended after 500 steps")


def test_sketches_are_said_to_leave_too_much_over() -> None:
    table = pd.DataFrame({"n": [3]})
    assert expressed.noise_of_sketch(features(PLAIN), table) == ""
    sketched = dataclasses.replace(features(PLAIN), kind="sketch")
    assert "2 columns for 3 pairs" in expressed.noise_of_sketch(sketched, table)


def test_most_opposed_names_only_pairs_that_push_against_and_never_a_target(products) -> None:
    alpha = np.ones(3)
    blamed = pushes.most_opposed(products, np.array(["h0"]), alpha, 10)
    assert list(blamed) == ["t0", "t1"]
    own = pushes.most_opposed(products, np.array(["h0", "t0"]), alpha, 10)
    assert "t0" not in own


def test_local_margins_are_those_of_the_bounded_optimum(products) -> None:
    """By hand: no direction but (a, b); the margins are the products with it, its length bounded.

    The optimum maximises the same likelihood as brute force over directions of that length.
    """
    own = rewards([1, 1, 1, -1])
    local, note = local_margins.local_margins("run", frame(), features(PLAIN), products, beta=0.1)
    norm = pushes.foreseen(products, "plain", 0.1).norm
    angles = np.linspace(0.0, 2.0 * np.pi, 200_001)
    points = norm * np.stack([np.cos(angles), np.sin(angles)])
    losses = np.log1p(np.exp(-0.1 * (PLAIN[:3] @ points))).sum(axis=0)
    best = points[:, np.argmin(losses)]
    np.testing.assert_allclose(local["margin"], PLAIN @ best, atol=1e-3)
    assert note == "" and (local["redraw_spread"] > 0).all()
    scores = local_margins.as_prediction(own, local).set_index("pair_id")["score"]
    assert scores["h0"] > 0 > scores["t0"]


def test_local_margins_draw_prompts_anew_not_pairs(products) -> None:
    """t0 and t1 pull alike: as pairs of one prompt they are one draw, and the spread is larger."""
    two = frame().assign(prompt_id=["q0", "q0", "q2", "q3"])
    apart, together = (
        local_margins.local_margins("run", pairs, features(PLAIN), products, beta=0.1)[0]
        for pairs in (frame(), two)
    )
    ratio = together["redraw_spread"] / apart["redraw_spread"]
    assert ratio.iloc[2] > 1.1  # of t2, which they both push against


def test_too_many_pairs_for_the_optimum_are_said(monkeypatch, products) -> None:
    monkeypatch.setattr(local_margins, "MAX_PAIRS", 3)
    local, note = local_margins.local_margins("run", frame(), features(PLAIN), products, beta=0.1)
    assert local.empty and "there are 4" in note


def test_training_pairs_beyond_the_limit_are_counted_aloud() -> None:
    products, note = pushes.products_of(features(PLAIN), frame(), max_train=2, seed=0)
    assert len(products.train) == 2
    assert note.startswith("Only 2 of 3 training pairs")


def test_targets_have_the_pattern_of_the_truth_and_the_size_of_the_run() -> None:
    """Gold 3, -4 and two unknown: rms 3.5355; the run's log-ratios 10, 10, -10, 10: rms 10."""
    own = rewards([1.0, 1.0, -1.0, 1.0])
    gold = frame(gold_margin=[3.0, -4.0, np.nan, np.nan])
    found = expressed.target_margins(own, gold)
    np.testing.assert_allclose(found[:2], np.array([3.0, -4.0]) * 10 / np.sqrt(12.5))
    assert np.isnan(found[2:]).all()
    np.testing.assert_allclose(expressed.target_margins(own, frame()), 10.0)


def test_what_one_direction_cannot_express_is_left_over() -> None:
    """t0 and t1 lie on one line with targets +c, -c: no change of any length fits both."""
    plain = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    gold = frame(gold_margin=[1.0, -1.0, 1.0, 1.0])
    table = expressed.expressed(
        rewards([1.0, -1.0, 1.0, 1.0]),
        gold,
        features(plain),
        moved_norm=1000.0,
        max_fitted=10,
        seed=0,
    )
    own = table[(table["space"] == "all") & (table["norm"] == 1000.0)].iloc[0]
    assert own["residual_share"] == pytest.approx(2 / 3, rel=1e-5)
    assert own["held_out_sign_errors"] == 0.0
    assert (own["n"], own["n_prompts"]) == (3, 3)


def test_targets_are_held_out_pairs_with_a_right_label_where_there_are_any() -> None:
    own = rewards([-1.0, 1.0, 1.0, -1.0])
    assert list(targets_of(own, frame())) == ["h0"]
    assert list(targets_of(own, frame(gold_margin=[1.0, 1.0, 1.0, -1.0]))) == ["t0"]
    assert list(targets_of(rewards([1.0, 1.0, 1.0, -1.0]), frame())) == ["h0"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory, world, cli) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("why")
    ended = cli(
        *("why", world.dpo, "--pairs", world.pairs, "--engine", "hf", "--sketch", "64"),
        *("--store", root / "store", "--out", root / "out", "--workers", "1"),
        *("--write-without", root / "fewer.jsonl", "--leave-out", "3"),
    )
    return SimpleNamespace(root=root, ended=ended)


def test_the_command_explains_a_run_and_writes_its_tables(ran) -> None:
    assert ran.ended.status == 0, ran.ended.err
    rows = ran.root / "out" / "rows"
    for name in ("ReversalPredictions", "Expressible", "PairConflicts", "LocalMargins"):
        tables.read_table(rows / f"{name}.parquet", tables.SPECS[name])
    report = (ran.root / "out" / "report.md").read_text(encoding="utf-8")
    assert "## Misspecification" in report and "## Conflicts" in report
    assert "to first order at the reference" in report


def test_the_pairs_without_the_blamed_ones_can_be_trained_on(ran, world) -> None:
    lines = (ran.root / "fewer.jsonl").read_text(encoding="utf-8").splitlines()
    kept = {json.loads(line)["pair_id"] for line in lines}
    asked = [json.loads(line) for line in world.pairs.read_text(encoding="utf-8").splitlines()]
    training = {row["pair_id"] for row in asked if row["split"] == "train"}
    assert kept < training and len(training) - len(kept) <= 3
    assert "without the" in ran.ended.err


def test_pairs_without_a_training_split_are_refused_in_one_sentence(tmp_path, world, cli) -> None:
    ended = cli(
        *("why", world.dpo, "--pairs", world.shifted, "--engine", "hf"),
        *("--store", tmp_path / "store"),
    )
    assert "no pair of the split train" in ended.sentence()
