"""Removal: numbers of an arm worked by hand, and what counts as an effect."""

import numpy as np
import pandas as pd
import pytest

from dpo_diag.analyzers.removal import Parameters, Removal, seed_numbers

COLUMNS = ["model_id", "seed", "pair_id", "prompt_id", "margin", "is_target", "n_left_out"]


def outcomes(arm: str, margins: dict[int, list[float]], n_targets: int = 2) -> pd.DataFrame:
    """The first pairs of each seed are its targets."""
    rows = [
        (arm, seed, f"{seed}-{i}", f"q{seed}-{i}", margin, i < n_targets, 3)
        for seed, own in margins.items()
        for i, margin in enumerate(own)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def found(frame: pd.DataFrame, baseline: str = "") -> pd.DataFrame:
    result = Removal().run(
        {"RemovalOutcomes": frame}, Parameters(baseline_id=baseline), np.random.default_rng(0)
    )
    return result.findings


def test_numbers_of_a_seed_by_hand() -> None:
    """Targets -1 and 3: half still reversed, mean 1. All: -1, 3, 0, 2: accuracy (0+1+.5+1)/4."""
    numbers = seed_numbers(outcomes("full", {0: [-1.0, 3.0, 0.0, 2.0]})).loc[0]
    assert numbers["still_reversed"] == 0.5
    assert numbers["target_margin"] == 1.0
    assert numbers["reversal_rate"] == 0.25
    assert numbers["reward_accuracy"] == 0.625


def test_interval_is_students_t_over_the_seeds() -> None:
    """Seeds 0, .5 and 1: mean .5, se .5 / sqrt(3), t(.975, 2) = 4.3027: beyond [0, 1], cut."""
    frame = outcomes("arm", {0: [1.0, 1.0], 1: [-1.0, 1.0], 2: [-1.0, -1.0]})
    row = found(frame).set_index("statistic").loc["still_reversed"]
    assert row["estimate"] == 0.5
    assert (row["ci_low"], row["ci_high"]) == (0.0, 1.0)
    margin = found(frame).set_index("statistic").loc["target_margin"]
    half = 4.302652729749464 * 1.0 / np.sqrt(3.0)  # seed means 1, 0, -1: sd 1
    assert margin["ci_high"] == pytest.approx(half, rel=1e-9)
    assert (margin["n"], margin["n_clusters"]) == (6, 3)


def test_an_effect_is_the_difference_from_the_random_arm_seed_by_seed() -> None:
    """Each seed's share falls by .5, .5, .5, .25 (four targets): mean .4375."""
    base = {s: [-1.0] * 4 for s in range(4)}
    less = {s: [1.0, 1.0, -1.0, -1.0] for s in range(3)} | {3: [1.0, -1.0, -1.0, -1.0]}
    frame = pd.concat([outcomes("random", base, 4), outcomes("conflict", less, 4)])
    rows = found(frame, "random")
    row = rows[(rows["baseline_id"] == "random") & (rows["statistic"] == "still_reversed")].iloc[0]
    assert row["estimate"] == pytest.approx(-0.4375)
    se = np.std([0.5, 0.5, 0.5, 0.25], ddof=1) / 2.0
    assert row["ci_low"] == pytest.approx(-0.4375 - 3.182446305284263 * se)
    assert row["n_clusters"] == 4
    assert row["verdict"] == "better"


def test_a_seed_without_targets_is_left_out_of_their_number_only() -> None:
    frame = pd.concat([outcomes("a", {0: [1.0, -1.0]}, 0), outcomes("a", {1: [-1.0, 1.0]}, 1)])
    rows = found(frame).set_index("statistic")
    assert rows.loc["still_reversed", "estimate"] == 1.0
    assert rows.loc["still_reversed", "n"] == 1
    assert rows.loc["reversal_rate", "estimate"] == 0.5
