"""Every recipe in train/recipes parses and trains three steps, on a tiny model and rich data."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dpo_diag import registry
from dpo_diag.pairs import PairSet
from dpo_diag.training.inputs import Inputs
from dpo_diag.training.loop import train
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.recipe_file import load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "train" / "recipes").glob("*.toml"))
COLUMNS = (
    "harm_reasoning_chosen",
    "harm_reasoning_rejected",
    "harm_answer_chosen",
    "harm_answer_rejected",
)


@pytest.fixture
def rich(pairs: PairSet) -> PairSet:
    """The pairs with every column that some variant reads."""
    rng, n = np.random.default_rng(0), len(pairs.frame)
    columns: dict[str, Any] = {name: rng.random(n) for name in COLUMNS}
    columns["annotator"] = ["ann", "bob"] * (n // 2)
    columns["judge_agreement"] = rng.choice([1.0, 0.6], n)
    columns["reference_answer"] = pairs.frame["chosen"]
    return dataclasses.replace(pairs, frame=pairs.frame.assign(**columns))


@pytest.fixture
def inputs(pairs: PairSet) -> Inputs:
    """Answers without labels, and two scored samples of each prompt."""
    frame = pairs.frame
    unlabelled = frame[["prompt_id", "prompt"]].assign(response=frame["chosen"])
    named = frame[["prompt_id", "prompt"]]
    sides = [named.assign(response=frame[side]) for side in ("chosen", "rejected")]
    samples = pd.concat(sides, ignore_index=True)
    scores = np.random.default_rng(1).random((2, len(samples)))
    return Inputs(None, unlabelled, samples.assign(reward=scores[0], cost=scores[1] - 0.5))


def shortened(recipe: Recipe, base: Path) -> Recipe:
    """The recipe on the tiny model: three steps of four units, scorers that need no model."""
    changes: dict[str, Any] = {
        "optimizer": dataclasses.replace(
            recipe.optimizer, batch_size=4, micro_batch_size=0, max_steps=3
        ),
        "log": dataclasses.replace(recipe.log, log_every=1, eval_every=0, save_every=0),
        "data": dataclasses.replace(recipe.data, max_length=0, truncate="error"),
        "players": None,
    }
    if recipe.online is not None:
        online, short = recipe.online, {"prompts_per_round": 4, "max_new_tokens": 8}
        scorers = {
            "reward": ("sandbox_unhelpfulness", "reward_parameters", {}),
            "cost": ("sandbox_harm", "cost_parameters", {}),
            "oracle": ("sandbox_group", "oracle_parameters", {"group": "helpful"}),
        }
        for key, (name, parameters, values) in scorers.items():
            if getattr(online, key):
                short |= {key: name, parameters: values}
        changes["online"] = dataclasses.replace(online, engine="hf", **short)
    recipe = dataclasses.replace(recipe, **changes)
    return recipe.with_run(model=str(base), precision="float32")


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_trains_three_steps(
    path: Path, base: Path, rich: PairSet, inputs: Inputs, tmp_path: Path
) -> None:
    run = train(shortened(load_recipe(path), base), rich, out=tmp_path / "run", inputs=inputs)
    state = json.loads((run / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["global_step"] == 3
    losses = [row["loss"] for row in state["log_history"] if "loss" in row]
    assert len(losses) == 3
    assert np.isfinite(losses).all()


def test_every_variant_has_a_recipe() -> None:
    assert set(registry.names("variants")) <= {path.stem for path in RECIPES}
