"""``dpo-diag timeline`` as a user types it: every step, per-pair turns, runs it cannot believe."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dpo_diag import tables


@pytest.fixture(scope="module")
def shown(world, cli: Callable, tmp_path_factory: pytest.TempPathFactory) -> tuple[object, Path]:
    """The command on a run of 15 steps with checkpoints 5 and 10."""
    root = tmp_path_factory.mktemp("timeline")
    ended = cli(
        *("timeline", world.dpo, "--pairs", world.pairs, "--store", root / "store"),
        *("--engine", "hf", "--out", root / "out"),
    )
    assert ended.status == 0, ended.err
    return ended, root / "out"


@pytest.fixture
def copy(world, tmp_path: Path) -> Path:
    """A copy of the run, which a test may spoil."""
    return Path(shutil.copytree(world.dpo, world.dpo.parent / f"spoilt-{tmp_path.name}" / "dpo"))


def test_every_step_is_on_the_axis_and_so_is_the_final_model(shown) -> None:
    ended, out = shown
    assert "final step: 15 (trainer_state.json)" in ended.err
    places = tables.read_table(out / "rows" / "RunSteps.parquet", tables.RUN_STEPS)
    assert sorted(places["step"]) == [0.0, 5.0, 10.0, 15.0]
    curves = tables.read_table(out / "curves.csv", tables.CURVES)
    steps = curves.query("curve == 'accuracy_by_step' and series == 'reward_accuracy'")["x"]
    assert steps.tolist() == [5.0, 10.0, 15.0]
    ranking = curves.query("curve == 'accuracy_by_step' and series == 'ranking_accuracy'")["x"]
    assert ranking.tolist() == [0.0, 5.0, 10.0, 15.0]


def test_turns_of_every_pair_are_those_of_the_rows(shown) -> None:
    """Counted anew from the rows on disk, without any analyzer."""
    _, out = shown
    rewards = pd.read_parquet(out / "rows" / "ImplicitRewards.parquet")
    wide = rewards.assign(step=rewards["step"].replace(-1, 15)).pivot(
        index="pair_id", columns="step", values="margin"
    )
    sign = np.sign(wide[[5, 10, 15]].to_numpy())
    assert (sign != 0).all()
    found = tables.read_table(out / "rows" / "PairTimelines.parquet", tables.PAIR_TIMELINES)
    found = found[found["order"] == "reward"].set_index("pair_id").loc[wide.index]
    assert found["n_flips"].tolist() == (np.diff(sign) > 0).sum(axis=1).tolist()
    assert found["n_flips_back"].tolist() == (np.diff(sign) < 0).sum(axis=1).tolist()
    forgotten = (sign > 0).any(axis=1) & (sign[:, -1] < 0)
    assert found["is_forgotten"].tolist() == forgotten.tolist()
    findings = tables.read_table(out / "findings.csv", tables.FINDINGS)
    rate = findings.query("statistic == 'forgotten_rate' and slice == 'all'")["estimate"]
    assert rate.tolist() == pytest.approx([forgotten.mean()])


def test_reversals_with_steps_includes_the_timeline(world, cli, shown, tmp_path) -> None:
    _, out = shown
    command = ("reversals", world.dpo, "--pairs", world.pairs, "--store", out.parent / "store")
    for options, expected in (((), False), (("--steps",), True)):
        ended = cli(*command, *options, "--engine", "hf", "--out", tmp_path / str(expected))
        assert ended.status == 0, ended.err
        found = tables.read_table(tmp_path / str(expected) / "findings.csv", tables.FINDINGS)
        assert ("timeline" in set(found["analyzer"])) is expected
    both = found[(found["statistic"] == "reversal_rate") & (found["slice"] == "all")]
    assert len(both) == 1  # of the final model alone


def test_a_run_without_checkpoints_is_one_sentence(world, cli, copy) -> None:
    for folder in copy.glob("checkpoint-*"):
        shutil.rmtree(folder)
    said = cli("timeline", copy, "--reference", world.base, "--pairs", world.pairs).sentence()
    assert "no checkpoint-* step beside a final model" in said and "save_steps" in said


def test_a_single_step_is_no_run(world, cli) -> None:
    said = cli("timeline", world.dpo / "checkpoint-5", "--pairs", world.pairs).sentence()
    assert "give the folder of a run" in said


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda run: shutil.copytree(run / "checkpoint-5", run / "checkpoint-05"),
            "are both step 5",
        ),
        (
            lambda run: (run / "checkpoint-5").rename(run / "checkpoint-12"),
            "says global_step 5, but the folder is named for step 12",
        ),
        (
            lambda run: (run / "trainer_state.json").write_text('{"global_step": 3}'),
            "the steps are out of order",
        ),
        (
            lambda run: (run / "trainer_state.json").write_text('{"global_step": 15,'),
            "trainer_state.json: cannot be read as JSON",
        ),
        (
            lambda run: (run / "checkpoint-10" / "trainer_state.json").write_text("[1]"),
            "expected a JSON object",
        ),
    ],
    ids=["step twice", "renamed step", "state behind", "broken state", "broken state of a step"],
)
def test_a_run_that_cannot_be_believed_is_one_sentence(world, cli, copy, spoil, words) -> None:
    spoil(copy)
    said = cli("timeline", copy, "--reference", world.base, "--pairs", world.pairs).sentence()
    assert words in said


def test_seeds_of_one_method_are_compared_without_steps(world, cli, tmp_path) -> None:
    """Two runs called ``same-0`` and ``same-1``: the trained model and its fifth step."""
    root = world.dpo.parent / f"seeds-{tmp_path.name}"
    for seed, source in enumerate((world.dpo, world.dpo / "checkpoint-5")):
        target = root / f"same-{seed}"
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("checkpoint-*"))
        manifest = json.loads((target / "dpo_diag.json").read_text())
        for key, path in (("base", world.base), ("reference", world.base), ("pairs", world.pairs)):
            manifest[key]["path"] = str(path)
        (target / "dpo_diag.json").write_text(json.dumps(manifest))
    out = tmp_path / "out"
    ended = cli(
        *("timeline", root / "same-0", root / "same-1", "--store", tmp_path / "store"),
        *("--engine", "hf", "--out", out),
    )
    assert ended.status == 0, ended.err
    findings = tables.read_table(out / "findings.csv", tables.FINDINGS)
    shared = findings[(findings["statistic"] == "seed_agreement") & (findings["slice"] == "all")]
    assert shared["model_id"].tolist() == ["same"] and shared["n"].tolist() == [20]
    rewards = pd.read_parquet(out / "rows" / "ImplicitRewards.parquet")
    wide = rewards.pivot(index="pair_id", columns="model_id", values="margin") > 0
    alike = (wide.iloc[:, 0] == wide.iloc[:, 1]).mean()
    assert shared["estimate"].tolist() == pytest.approx([alike])
