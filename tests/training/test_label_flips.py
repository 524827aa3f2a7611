"""Label noise by recipe: which labels are flipped, and that the run record says so."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from dpo_diag.checkpoints import resolve_checkpoint
from dpo_diag.pairs import PairSet
from dpo_diag.training.loop import train
from dpo_diag.training.pair_data import flips
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.recipe_file import load_recipe
from tests.training.conftest import make_pairs

MakeRecipe = Callable[..., Recipe]


def counts_of(run: Path) -> dict[str, int]:
    return json.loads((run / "trainer_state.json").read_text(encoding="utf-8"))["pair_counts"]


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.4])
def test_a_recipe_with_flips_trains_and_counts_them(
    tmp_path: Path, recipe: MakeRecipe, rate: float
) -> None:
    """The count is that of the training pairs' ids; the recipe beside the run repeats the rate."""
    pairs = make_pairs(8, 2)
    ids = pairs.frame.loc[pairs.frame["split"] == "train", "pair_id"].tolist()
    run = train(recipe(flip_labels=rate, max_steps=3), pairs, out=tmp_path / "run")
    expected = int(flips(ids, rate, 0).sum())
    assert counts_of(run) == {"pairs": 8, "truncated": 0, "flipped": expected}
    assert load_recipe(run / "recipe.toml").data.flip_labels == rate
    state = json.loads((run / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["global_step"] == 3


def test_a_run_without_flips_counts_none(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    assert "flipped" not in counts_of(train(recipe(max_steps=1), pairs, out=tmp_path / "run"))


def test_training_on_flipped_labels_is_training_on_the_exchanged_table(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    """Bit for bit, the ids in the log aside; and not what the labels as given lead to."""
    frame = pairs.frame.copy()
    is_train = (frame["split"] == "train").to_numpy()
    turned = flips(frame["pair_id"].tolist(), 0.4, 1) & is_train
    assert 0 < turned.sum() < is_train.sum()
    frame["chosen"] = pairs.frame["chosen"].where(~turned, pairs.frame["rejected"])
    frame["rejected"] = pairs.frame["rejected"].where(~turned, pairs.frame["chosen"])
    exchanged = dataclasses.replace(pairs, frame=frame)
    runs = {
        "flipped": (recipe(flip_labels=0.4, flip_seed=1, max_steps=3), pairs),
        "exchanged": (recipe(max_steps=3), exchanged),
        "given": (recipe(max_steps=3), pairs),
    }
    weights = {
        name: load_file(train(made, data, out=tmp_path / name) / "model.safetensors")
        for name, (made, data) in runs.items()
    }
    key = "model.embed_tokens.weight"
    assert (weights["flipped"][key] == weights["exchanged"][key]).all()
    assert (weights["flipped"][key] != weights["given"][key]).any()


def test_flips_come_before_safedpo_reorders(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    """Safety bits go with the answers, so nothing more is dropped.

    2 of 8 pairs are unsafe/safe and 2 safe/unsafe; the flipped among these four change sides.
    """
    made = recipe("safedpo", delta=1.0, flip_labels=0.4, max_steps=1)
    counts = counts_of(train(made, pairs, out=tmp_path / "run"))
    ids = pairs.frame["pair_id"].tolist()[:8]
    turned = flips(ids, 0.4, 0)
    n_swapped = sum(bool(turned[i]) != (i % 4 == 2) for i in range(8) if i % 4 in (2, 3))
    assert counts["flipped"] == turned.sum() > 0
    assert (counts["swapped"], counts["dropped"]) == (n_swapped, 0)


def test_what_became_of_the_pairs_is_found_with_the_checkpoint(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    """Six kept and two swapped of eight; counts of 0 are not said."""
    run = train(recipe("safedpo", delta=1.0, save_every=1), pairs, out=tmp_path / "run")
    line = "pair counts: 8 pairs, 6 kept, 2 swapped (trainer_state.json)"
    assert line in resolve_checkpoint(run).found
    assert line in resolve_checkpoint(run / "checkpoint-1").found
