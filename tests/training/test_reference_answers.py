"""Runs of refalign: what they log, learn and lack, that they resume and are diagnosed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from dpo_diag.errors import CheckpointError, DataError, RecipeError
from dpo_diag.pairs import PairSet, PromptSet
from dpo_diag.training.inputs import Inputs
from dpo_diag.training.loop import train
from dpo_diag.training.policy import Policy
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.recipe_file import load_recipe
from tests.conftest import Ended
from tests.training.conftest import STEPS, make_pairs
from tests.training.test_loop import Stop, log_of, stop_after
from tests.training.test_sample_table import make_samples

RECIPES = Path(__file__).parents[2] / "train" / "recipes"
MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def refalign(recipe: MakeRecipe) -> MakeRecipe:
    """Makes recipes of refalign over the tiny model with chrF."""

    def make(**options) -> Recipe:
        defaults = {
            "similarity": "chrf",
            "prompts_per_round": 4,
            "samples_per_prompt": 4,
            "batch_size": 4,
            "max_new_tokens": 8,
            "max_steps": 4,
        }
        return recipe("refalign", **{**defaults, **options})

    return make


def with_answers(n: int = 8, column: str = "reference_answer") -> PromptSet:
    frame = make_pairs(n, 0).frame.drop(columns=["chosen", "rejected"])
    answers = [STEPS[i % 3] for i in range(n)]
    return PromptSet(frame.assign(**{column: answers}), "p", (), {}, "0" * 64)


def test_log_has_raw_and_adjusted_similarity_and_its_length_bias(
    refalign: MakeRecipe, pairs: PairSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No copy of a reference is made: there is none. Adjusted lies between 1 and 1.1 times raw."""
    monkeypatch.setattr(Policy, "freeze_reference", lambda self: pytest.fail("a copy was made"))
    made, prompts = refalign(max_steps=2, max_new_tokens=40), with_answers()
    run = train(made, pairs, out=tmp_path / "run", inputs=Inputs(prompts=prompts))
    rows = [row for row in log_of(run) if "loss" in row]
    for row in rows:
        assert 0 < row["reward"] < row["reward_length_adjusted"] < 1.1 * row["reward"]
        assert 0 < abs(row["reward_length_correlation"]) <= 1
        assert row["abstained_rate"] == row["advantage_clipped"] == 0.0
        assert row["completions/mean_length"] > 1
        assert not {"cost", "kl", "rectified_cost", "violation_rate"} & row.keys()
    last = log_of(run)[-1]
    assert "eval_rewards/accuracies" in last and "eval_loss" not in last
    state = json.loads((run / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["pair_counts"] == {"prompts": 8}


def test_prompts_without_an_answer_are_counted(
    refalign: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    prompts = with_answers()
    prompts.frame.loc[2, "reference_answer"] = None
    made = refalign(max_steps=1)
    run = train(made, pairs, out=tmp_path / "run", inputs=Inputs(prompts=prompts))
    state = json.loads((run / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["pair_counts"] == {"prompts": 7, "prompts_without_reference_answer": 1}


def test_answers_may_be_a_column_of_the_pairs(
    refalign: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    frame = pairs.frame.assign(reference_answer=pairs.frame["chosen"])
    run = train(refalign(max_steps=1), replace(pairs, frame=frame), out=tmp_path / "run")
    assert (run / "model.safetensors").is_file()


def test_without_the_column_the_run_says_what_carries_it(
    refalign: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    for inputs in (Inputs(), Inputs(prompts=with_answers(column="answer"))):
        with pytest.raises(DataError, match=r"needs the column reference_answer.*sandbox"):
            train(refalign(), pairs, out=tmp_path / "run", inputs=inputs)


def test_a_recipe_without_a_similarity_is_refused(refalign: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match=r"refalign needs online\.similarity"):
        refalign(similarity="")


def test_resume_is_exact_and_refuses_other_answers(
    refalign: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    made = refalign(save_every=1, learning_rate=1e-2, passes=2)
    inputs, others = Inputs(prompts=with_answers()), with_answers()
    whole = train(made, pairs, out=tmp_path / "whole", inputs=inputs)
    with pytest.raises(Stop):
        train(made, pairs, out=tmp_path / "parts", progress=stop_after(3), inputs=inputs)
    others.frame["reference_answer"] = "x ."
    with pytest.raises(CheckpointError, match="started with other prompts"):
        train(made, pairs, out=tmp_path / "parts", resume=True, inputs=Inputs(prompts=others))
    parts = train(made, pairs, out=tmp_path / "parts", resume=True, inputs=inputs)
    one, two = (load_file(run / "model.safetensors") for run in (whole, parts))
    assert all(torch.equal(one[key], two[key]) for key in one)
    for key in ("reward", "reward_length_correlation"):
        assert [r.get(key) for r in log_of(whole)] == [r.get(key) for r in log_of(parts)]


@pytest.mark.slow
def test_answers_grow_more_similar_to_the_reference(
    refalign: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    made = refalign(
        max_steps=60,
        learning_rate=1e-2,
        samples_per_prompt=8,
        prompts_per_round=8,
        batch_size=8,
        schedule="constant",
    )
    run = train(made, pairs, out=tmp_path / "run", inputs=Inputs(prompts=with_answers()))
    values = [row["reward"] for row in log_of(run) if "reward" in row]
    assert np.mean(values[-4:]) > 1.5 * np.mean(values[:4])


def test_a_run_is_diagnosed_by_its_own_reward_without_a_reference(
    refalign: MakeRecipe, tmp_path: Path, cli: Callable[..., Ended], world
) -> None:
    made = refalign(max_steps=1, model=str(world.base))
    inputs = Inputs(prompts=with_answers())
    run = train(made, make_pairs(), out=tmp_path / "run", inputs=inputs)
    ended = cli(
        *("reversals", run, "--pairs", world.pairs, "--json"),
        *("--store", tmp_path / "store", "--engine", "hf"),
    )
    assert ended.status == 0, ended.err
    assert "refalign" in ended.err + ended.out


@pytest.mark.parametrize("name", ["refalign", "repo_offline"])
def test_committed_recipe_trains_three_steps(
    name: str, base: Path, pairs: PairSet, tmp_path: Path
) -> None:
    """Everything as committed but for what a tiny model has no room for."""
    made = load_recipe(RECIPES / f"{name}.toml").with_run(model=str(base))
    few = replace(made.optimizer, max_steps=3, batch_size=4, micro_batch_size=2)
    small = {"max_new_tokens": 8, "prompts_per_round": 4, "engine": "hf"}
    online = replace(made.online, **small) if made.online else None
    made = replace(made, optimizer=few, online=online)
    inputs = Inputs(prompts=with_answers(), samples=pd.DataFrame(make_samples()))
    run = train(made, pairs, out=tmp_path / "run", inputs=inputs)
    state = json.loads((run / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["global_step"] == 3
