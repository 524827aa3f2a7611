"""Variants on doubtful labels: their recipes train, and what they learn survives a stop."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from dpo_diag.errors import DataError
from dpo_diag.pairs import PairSet
from dpo_diag.training.inputs import Inputs
from dpo_diag.training.loop import train
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.recipe_file import load_recipe
from tests.training.conftest import STEPS
from tests.training.test_loop import Stop, stop_after
from tests.training.test_round_margins import log_of

RECIPES = Path(__file__).parents[2] / "train" / "recipes"
NAMES = ("re_po", "semidpo_port", "sspo", "awdpo")
MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def rich(pairs: PairSet) -> PairSet:
    """The pairs with every column that these variants read; "c" judged validation pairs only."""
    n = len(pairs.frame)
    harms = {
        f"harm_{part}_{side}": np.linspace(0, 1, n)
        for part in ("reasoning", "answer")
        for side in ("chosen", "rejected")
    }
    is_train = pairs.frame["split"] == "train"
    frame = pairs.frame.assign(
        annotator=np.where(is_train, np.where(np.arange(n) % 2, "a", "b"), "c"),
        judge_agreement=np.where(np.arange(n) % 2, 1.0, 0.4),
        **harms,
    )
    return dataclasses.replace(pairs, frame=frame)


@pytest.fixture
def inputs() -> Inputs:
    """Three answers without preferences."""
    rows = {"prompt": ["how do i clean the stove ?"] * 3, "response": list(STEPS)}
    return Inputs(unlabelled=pd.DataFrame(rows))


@pytest.mark.parametrize("name", NAMES)
def test_recipe_trains_three_steps(
    name: str, tmp_path: Path, base: Path, rich: PairSet, inputs: Inputs
) -> None:
    """The committed recipe as it is, but for the model and a length that fits eight pairs."""
    made = load_recipe(RECIPES / f"{name}.toml").with_run(model=str(base))
    optimizer = dataclasses.replace(
        made.optimizer, batch_size=4, micro_batch_size=0, max_steps=3, learning_rate=1e-3
    )
    log = dataclasses.replace(made.log, log_every=1)
    data = dataclasses.replace(made.data, max_length=0, truncate="error")
    made = dataclasses.replace(made, optimizer=optimizer, log=log, data=data)
    run = train(made, rich, out=tmp_path / "run", inputs=inputs)
    rows = log_of(run)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 3
    assert np.isfinite([*losses, rows[-1]["eval_loss"]]).all()
    assert any(row["grad_norm"] > 0 for row in rows if "grad_norm" in row)


@pytest.mark.parametrize(("name", "micro"), [("re_po", 1), ("awdpo", 2)])
def test_state_does_not_depend_on_passes_and_survives_a_stop(
    tmp_path: Path, recipe: MakeRecipe, rich: PairSet, name: str, micro: int
) -> None:
    made = recipe(name, max_steps=4, save_every=1, micro_batch_size=micro)
    whole = train(made, rich, out=tmp_path / "whole")
    with pytest.raises(Stop):
        train(made, rich, out=tmp_path / "run", progress=stop_after(2))
    run = train(made, rich, out=tmp_path / "run", resume=True)
    assert log_of(run) == log_of(whole)
    one, two = (load_file(folder / "model.safetensors") for folder in (run, whole))
    assert all(torch.equal(one[key], two[key]) for key in one)
    at_once = train(recipe(name, max_steps=1), rich, out=tmp_path / "once")
    keys = [k for k in log_of(at_once)[0] if k.startswith(("reliab", "label", "equal"))]
    assert keys
    for key in keys:
        assert log_of(at_once)[0][key] == pytest.approx(log_of(whole)[0][key], abs=1e-6)


def test_each_annotator_has_a_reliability_of_their_own_in_the_log(
    tmp_path: Path, recipe: MakeRecipe, rich: PairSet
) -> None:
    """Two judged training pairs; the third of the validation pairs has none."""
    row = log_of(train(recipe("re_po", max_steps=2), rich, out=tmp_path / "run"))[1]
    assert {"reliability/0", "reliability/1", "label_weight"} <= row.keys()
    assert "reliability/2" not in row


def test_without_attribution_the_column_may_be_missing(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    with pytest.raises(DataError, match="re_po needs the column annotator, which the pairs lack"):
        train(recipe("re_po"), pairs, out=tmp_path / "refused")
    run = train(recipe("re_po", attributed=False, max_steps=1), pairs, out=tmp_path / "run")
    assert "reliability/0" in log_of(run)[0]
    parameters = json.loads((run / "dpo_diag.json").read_text(encoding="utf-8"))["parameters"]
    assert parameters == {"beta": 0.1, "eta_init": 0.9, "momentum": 0.1, "attributed": False}
