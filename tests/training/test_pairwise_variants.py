"""Base and robust losses in the loop: their recipes train, and what they need of it they get."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dpo_diag.errors import RecipeError
from dpo_diag.pairs import PairSet
from dpo_diag.store import RowStore
from dpo_diag.training.loop import train
from dpo_diag.training.pair_data import PairData, pair_logps
from dpo_diag.training.policy import load_policy
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.recipe_file import load_recipe
from dpo_diag.training.steps import PairSteps, Schedule
from dpo_diag.variants.dpo import Dpo

RECIPES = Path(__file__).parents[2] / "train" / "recipes"
NAMES = ("ipo", "simpo", "dpop", "cdpo", "rdpo", "drdpo", "holder_dpo")
MakeRecipe = Callable[..., Recipe]


@pytest.mark.parametrize("name", NAMES)
def test_recipe_trains_three_steps(name: str, tmp_path: Path, base: Path, pairs: PairSet) -> None:
    """The committed recipe as it is, but for the model and a length that fits eight pairs."""
    made = load_recipe(RECIPES / f"{name}.toml").with_run(model=str(base))
    optimizer = dataclasses.replace(
        made.optimizer, batch_size=4, micro_batch_size=0, max_steps=3, learning_rate=1e-3
    )
    log = dataclasses.replace(made.log, log_every=1)
    made = dataclasses.replace(made, optimizer=optimizer, log=log)
    run = train(made, pairs, out=tmp_path / "run")
    rows = json.loads((run / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 3
    assert np.isfinite(losses).all()
    before, after = (load_file(folder / "model.safetensors") for folder in (base, run))
    assert not all(torch.equal(before[key], after[key]) for key in before)


def test_drdpo_in_the_loop_is_the_soft_minimum_over_the_steps_pairs(
    prepared: Callable[..., PairData],
    recipe: MakeRecipe,
    pairs: PairSet,
    base: Path,
    moved: Path,
    tmp_path: Path,
) -> None:
    """Value -b log mean exp(-l/b) and gradient sum_i softmax(-l/b)_i grad l_i, pair by pair."""
    made = recipe("drdpo", model=str(moved), reference=str(base), beta=1.0, temperature=0.5)
    policy, variant = load_policy(made, tmp_path), made.build_variant()
    frame = pairs.frame[pairs.frame["split"] == "train"]
    data = prepared(frame, policy, variant, RowStore(tmp_path))
    steps = PairSteps(policy.model, data, variant, Schedule(0, 8))
    loss = steps.loss(np.arange(8), 8).loss
    loss.backward()
    grads = {name: p.grad.clone() for name, p in policy.model.named_parameters()}
    policy.model.zero_grad()

    singles = [
        Dpo(beta=1.0).losses(pair_logps(policy.model, data, np.array([i])))[0] for i in range(8)
    ]
    values = torch.stack([single.detach() for single in singles]).double()
    assert loss.item() == pytest.approx(-0.5 * (-values / 0.5).exp().mean().log().item(), abs=1e-5)
    assert loss.item() < values.mean() - 1e-2
    for weight, single in zip(torch.softmax(-values / 0.5, 0), singles, strict=True):
        (weight * single).backward()
    for name, p in policy.model.named_parameters():
        torch.testing.assert_close(grads[name], p.grad, rtol=1e-3, atol=1e-6)


def test_drdpo_with_passes_smaller_than_the_batch_is_refused(recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match="couples the pairs of a batch: micro_batch_size"):
        recipe("drdpo", batch_size=4, micro_batch_size=2)
    recipe("drdpo", batch_size=4, micro_batch_size=4)


def test_holder_dpos_share_is_logged_from_the_first_step_on(
    recipe: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    made = recipe("holder_dpo", beta=1.0, learning_rate=5e-3, max_steps=4)
    run = train(made, pairs, out=tmp_path / "run")
    rows = json.loads((run / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    shares = [row["mislabelled_share"] for row in rows if "mislabelled_share" in row]
    assert len(shares) == 4
    assert shares[0] == pytest.approx(0.0, abs=1e-6)  # the policy is the reference
    assert all(0 <= share <= 1 for share in shares) and shares[-1] > 1e-4
