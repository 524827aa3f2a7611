"""The loop on a tiny model: layout, log, resume, accumulation, adapters, what it refuses."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dpo_diag import registry
from dpo_diag.checkpoints import fingerprint, read_manifest, resolve_checkpoint
from dpo_diag.errors import CheckpointError, DataError, EngineError, RecipeError, TrainingError
from dpo_diag.pairs import PairSet
from dpo_diag.training import loop
from dpo_diag.training.loop import TrainProgress, train
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.recipe_file import load_recipe, recipe_table
from tests.training.conftest import make_pairs, write_tiny_model

MakeRecipe = Callable[..., Recipe]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def log_of(folder: Path) -> list[dict[str, Any]]:
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    return state["log_history"]


class Stop(Exception):
    """Ends a run from its progress callback, as Ctrl-C would."""


def stop_after(step: int) -> Callable[[TrainProgress], None]:
    def progress(state: TrainProgress) -> None:
        if state.step == step:
            raise Stop

    return progress


def test_run_folder_has_the_layout_that_transformers_reads(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = train(recipe(save_every=2), pairs, out=tmp_path / "run")
    for folder in (run, run / "checkpoint-2"):
        names = {path.name for path in folder.iterdir()}
        assert {"config.json", "generation_config.json", "model.safetensors"} <= names
        assert {"tokenizer.json", "trainer_state.json", "dpo_diag.json"} <= names
        AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert torch.isfinite(model(torch.tensor([[3, 4]])).logits).all()


def test_log_has_trls_names(tmp_path: Path, recipe: MakeRecipe, pairs: PairSet) -> None:
    run = train(recipe(eval_every=2), pairs, out=tmp_path / "run")
    rows = log_of(run)
    names = {"rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"}
    names |= {"logps/chosen", "logps/rejected", "loss"}
    training = [row for row in rows if "loss" in row]
    evaluation = [row for row in rows if "eval_loss" in row]
    assert len(training) == 4
    assert [row["step"] for row in evaluation] == [2, 4]
    assert names | {"grad_norm", "learning_rate", "epoch", "step"} <= training[0].keys()
    assert {f"eval_{name}" for name in names} <= evaluation[0].keys()


def test_first_row_is_the_reference_itself(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    """Policy = reference: loss log 2, margin 0; every pair a tie up to float32's last digits."""
    row = log_of(train(recipe(), pairs, out=tmp_path / "run"))[0]
    assert row["loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert row["rewards/margins"] == pytest.approx(0.0, abs=1e-5)


def test_a_tie_is_wrong_for_trl_and_one_half_for_us() -> None:
    from dpo_diag.training.steps import pair_metrics
    from dpo_diag.variants._base import PairLogps
    from dpo_diag.variants.dpo import Dpo

    zero, n = torch.zeros(2), torch.ones(2, dtype=torch.int64)
    batch = PairLogps(torch.tensor([0.0, 1.0]), zero, zero, zero, n, n, torch.arange(2))
    sums = pair_metrics(batch, Dpo())  # one tie, one win
    assert float(sums["rewards/accuracies"]) == 1.0
    assert float(sums["rewards/accuracies_ties_half"]) == 1.5


def test_manifest_says_what_was_trained_from_what(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet, base: Path
) -> None:
    run = train(recipe(beta=0.3, seed=5), pairs, out=tmp_path / "run")
    manifest = read_manifest(run)
    assert (manifest.variant, manifest.parameters, manifest.seed) == ("dpo", {"beta": 0.3}, 5)
    assert manifest.base.fingerprint == manifest.reference.fingerprint == fingerprint(base)
    assert manifest.pairs.content_hash == pairs.content_hash
    checkpoint = resolve_checkpoint(run)
    assert (checkpoint.variant, checkpoint.beta) == ("dpo", 0.3)
    assert checkpoint.reference.path.resolve() == base.resolve()


def test_parsed_recipe_is_saved_with_the_run(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    made = recipe(beta=0.3)
    run = train(made, pairs, out=tmp_path / "run")
    assert recipe_table(load_recipe(run / "recipe.toml")) == recipe_table(made)


@pytest.mark.parametrize("rank", [0, 4])
def test_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet, rank: int
) -> None:
    made = recipe(max_steps=20, save_every=5, rank=rank, dropout=0.1 if rank else None)
    whole = train(made, pairs, out=tmp_path / "whole")
    with pytest.raises(Stop):
        train(made, pairs, out=tmp_path / "parts", progress=stop_after(12))
    parts = train(made, pairs, out=tmp_path / "parts", resume=True)
    file = "adapter_model.safetensors" if rank else "model.safetensors"
    assert same(load_file(whole / file), load_file(parts / file))
    assert _without_times(log_of(whole)) == _without_times(log_of(parts))


def _without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds_per_step"} for row in rows]


def test_resume_with_dropout_in_the_model_is_exact(tmp_path: Path, pairs: PairSet) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from dpo_diag.training.recipe_file import parse_recipe

    folder = write_tiny_model(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(folder, attention_dropout=0.2)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    made = parse_recipe(
        {
            "run": {"model": str(folder), "dropout": True},
            "variant": {"name": "dpo"},
            "optimizer": {"learning_rate": 1e-3, "batch_size": 4, "max_steps": 6},
            "log": {"save_every": 2},
        }
    )
    whole = train(made, pairs, out=tmp_path / "whole")
    with pytest.raises(Stop):
        train(made, pairs, out=tmp_path / "parts", progress=stop_after(3))
    parts = train(made, pairs, out=tmp_path / "parts", resume=True)
    assert same(weights(whole), weights(parts))
    still = train(
        dataclasses.replace(made, run=dataclasses.replace(made.run, dropout=False)),
        pairs,
        out=tmp_path / "still",
    )
    assert not same(weights(whole), weights(still))


def test_eight_accumulated_passes_equal_one_of_eight(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    """Equal up to the order of float32 sums: after one step, 1e-6 of AdamW's step of 1e-3."""
    one = train(recipe(batch_size=8, max_steps=1), pairs, out=tmp_path / "one")
    many = train(
        recipe(batch_size=8, micro_batch_size=1, max_steps=1), pairs, out=tmp_path / "many"
    )
    rows = log_of(one)[0], log_of(many)[0]
    for key in ("loss", "grad_norm", "rewards/margins", "logps/chosen"):
        assert rows[0][key] == pytest.approx(rows[1][key], rel=1e-4, abs=1e-6)
    a, b = weights(one), weights(many)
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=0, atol=2e-5)


def test_gradient_checkpointing_changes_nothing(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    plain = train(recipe(max_steps=2), pairs, out=tmp_path / "plain")
    saving = train(recipe(max_steps=2, gradient_checkpointing=True), pairs, out=tmp_path / "saving")
    assert same(weights(plain), weights(saving))


def test_lora_trains_the_adapter_and_leaves_the_base(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet, base: Path
) -> None:
    before = fingerprint(base)
    run = train(
        recipe(rank=4, gradient_checkpointing=True, learning_rate=1e-2), pairs, out=tmp_path / "run"
    )
    assert (run / "adapter_config.json").is_file()
    assert not (run / "model.safetensors").exists()
    assert fingerprint(base) == before
    checkpoint = resolve_checkpoint(run)
    assert checkpoint.model.adapter == run
    assert checkpoint.reference.fingerprint == before
    assert log_of(run)[-1]["eval_rewards/margins"] != 0.0


def test_bfloat16_keeps_float32_weights(tmp_path: Path, recipe: MakeRecipe, pairs: PairSet) -> None:
    run = train(recipe(precision="bfloat16", max_steps=2), pairs, out=tmp_path / "run")
    assert {t.dtype for t in weights(run).values()} == {torch.float32}
    assert abs(log_of(run)[0]["rewards/margins"]) < 0.05


def test_safedpo_counts_what_it_did_to_the_pairs(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    """Of eight training pairs i = 2, 6 are unsafe/safe and 3, 7 safe/unsafe: 6 kept, 2 swapped."""
    run = train(recipe("safedpo", delta=1.0), pairs, out=tmp_path / "run")
    state = json.loads((run / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["pair_counts"] == {
        "pairs": 8,
        "truncated": 0,
        "kept": 6,
        "swapped": 2,
        "dropped": 0,
    }


def test_reference_other_than_the_start_gives_rewards_at_once(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet, moved: Path
) -> None:
    run = train(recipe(reference=str(moved), max_steps=1), pairs, out=tmp_path / "run")
    assert abs(log_of(run)[0]["rewards/chosen"]) > 1e-3
    assert read_manifest(run).reference.fingerprint == fingerprint(moved)


def test_seed_decides_the_run(tmp_path: Path, recipe: MakeRecipe, pairs: PairSet) -> None:
    runs = [
        train(recipe(seed=seed, max_steps=2), pairs, out=tmp_path / str(i))
        for i, seed in enumerate((1, 1, 2))
    ]
    first, again, other = (weights(run) for run in runs)
    assert same(first, again)
    assert not same(first, other)


def test_callers_random_state_is_given_back(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    state = torch.get_rng_state()
    train(recipe(max_steps=1), pairs, out=tmp_path / "run")
    assert torch.equal(state, torch.get_rng_state())


def test_finished_run_is_not_overwritten_and_resume_leaves_it(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    run = train(recipe(max_steps=1), pairs, out=tmp_path / "run")
    before = fingerprint(run)
    with pytest.raises(CheckpointError, match="already holds a run; take another --out"):
        train(recipe(max_steps=1), pairs, out=run)
    assert train(recipe(max_steps=1), pairs, out=run, resume=True) == run
    assert fingerprint(run) == before


def test_finished_run_is_not_taken_for_one_of_another_recipe(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    run = train(recipe(max_steps=1), pairs, out=tmp_path / "run")
    with pytest.raises(CheckpointError, match="differs from this run's recipe"):
        train(recipe(max_steps=2), pairs, out=run, resume=True)


def test_stopped_run_asks_for_resume_and_for_its_own_recipe(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    made = recipe(max_steps=6, save_every=2)
    with pytest.raises(Stop):
        train(made, pairs, out=tmp_path / "run", progress=stop_after(3))
    with pytest.raises(CheckpointError, match="holds a stopped run; give --resume"):
        train(made, pairs, out=tmp_path / "run")
    with pytest.raises(CheckpointError, match="differs from this run's recipe"):
        train(recipe(max_steps=7, save_every=2), pairs, out=tmp_path / "run", resume=True)


def test_stopped_run_refuses_other_pairs(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    made = recipe(max_steps=6, save_every=2)
    with pytest.raises(Stop):
        train(made, pairs, out=tmp_path / "run", progress=stop_after(3))
    with pytest.raises(CheckpointError, match="other pairs"):
        train(made, make_pairs(7), out=tmp_path / "run", resume=True)


def test_damaged_checkpoint_is_named(tmp_path: Path, recipe: MakeRecipe, pairs: PairSet) -> None:
    made = recipe(max_steps=4, save_every=2)
    with pytest.raises(Stop):
        train(made, pairs, out=tmp_path / "run", progress=stop_after(3))
    (tmp_path / "run" / "checkpoint-2" / "training_state.pt").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match=r"checkpoint-2: cannot be resumed from"):
        train(made, pairs, out=tmp_path / "run", resume=True)


def test_loss_that_is_not_finite_stops_with_step_and_pairs(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    dpo = registry.load("variants", "dpo")
    bad = pairs.frame["pair_id"].iloc[0]

    def losses(self: Any, batch: Any, state: Any = None) -> torch.Tensor:
        values = batch.policy_chosen - batch.policy_rejected
        return torch.where(batch.pair_index == 0, torch.nan, values)

    monkeypatch.setattr(dpo, "losses", losses)
    with pytest.raises(TrainingError, match=rf"the loss is nan at step \d, on {bad}; lower"):
        train(recipe(micro_batch_size=1), pairs, out=tmp_path / "run")


def test_the_last_good_checkpoint_is_named_when_a_loss_is_not_finite(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third step fails; with a checkpoint at each step the second is the last good one."""
    dpo, calls = registry.load("variants", "dpo"), []

    def losses(self: Any, batch: Any, state: Any = None) -> torch.Tensor:
        calls.append(1)
        values = batch.policy_chosen - batch.policy_rejected
        return values if len(calls) < 3 else values * torch.nan

    monkeypatch.setattr(dpo, "losses", losses)
    with pytest.raises(
        TrainingError, match=r"at step 3.*The last good checkpoint is .*checkpoint-2\."
    ):
        train(recipe(save_every=1), pairs, out=tmp_path / "run")
    calls.clear()
    with pytest.raises(TrainingError, match="There is no checkpoint before it"):
        train(recipe(), pairs, out=tmp_path / "bare")


def test_out_of_memory_halves_the_pass_and_says_so_once(
    tmp_path: Path,
    recipe: MakeRecipe,
    pairs: PairSet,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A device that holds two pairs: batches of 4 become passes of 2, the result stays."""
    fine = train(recipe(max_steps=2, micro_batch_size=2), pairs, out=tmp_path / "fine")
    whole = loop._Run.backward

    def backward(self: Any, units: np.ndarray, n_units: int) -> Any:
        if len(units) > 2:
            raise torch.OutOfMemoryError("too small")
        return whole(self, units, n_units)

    monkeypatch.setattr(loop._Run, "backward", backward)
    run = train(recipe(max_steps=2), pairs, out=tmp_path / "run")
    assert same(weights(run), weights(fine))
    messages = [r.message for r in caplog.records if "out of memory" in r.message]
    assert messages == ["out of memory: going on with 2 units per pass"]


def test_no_memory_for_a_single_pair_is_an_error(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backward(self: Any, units: np.ndarray, n_units: int) -> Any:
        raise torch.OutOfMemoryError("too small")

    monkeypatch.setattr(loop._Run, "backward", backward)
    with pytest.raises(TrainingError, match="out of memory at step 1 with 1 units in a pass"):
        train(recipe(), pairs, out=tmp_path / "run")


def test_missing_safety_labels_are_named(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    bare = dataclasses.replace(pairs, frame=pairs.frame.drop(columns="is_rejected_safe"))
    with pytest.raises(DataError, match="safedpo needs the column is_rejected_safe"):
        train(recipe("safedpo"), bare, out=tmp_path / "run")


def test_pairs_without_training_rows_are_refused(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    held_out = dataclasses.replace(pairs, frame=pairs.frame[pairs.frame["split"] != "train"])
    with pytest.raises(DataError, match=r"no rows with split train \(found: validation\)"):
        train(recipe(), held_out, out=tmp_path / "run")


def test_all_pairs_dropped_is_said(tmp_path: Path, recipe: MakeRecipe, pairs: PairSet) -> None:
    unsafe = pairs.frame.assign(is_chosen_safe=False, is_rejected_safe=False)
    with pytest.raises(DataError, match="safedpo dropped all 8 of them"):
        train(recipe("safedpo"), dataclasses.replace(pairs, frame=unsafe), out=tmp_path / "run")


def test_no_model_names_the_option(tmp_path: Path, recipe: MakeRecipe, pairs: PairSet) -> None:
    with pytest.raises(RecipeError, match="give --model"):
        train(recipe(model=""), pairs, out=tmp_path / "run")


def test_nan_weights_are_refused(tmp_path: Path, recipe: MakeRecipe, pairs: PairSet) -> None:
    folder = write_tiny_model(tmp_path / "nan", noise=float("nan"))
    with pytest.raises(EngineError, match="NaN or infinite"):
        train(recipe(model=str(folder)), pairs, out=tmp_path / "run")


def test_reference_with_another_vocabulary_is_refused(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet, base: Path
) -> None:
    from transformers import AutoTokenizer

    other = write_tiny_model(tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["newword"])
    tokenizer.save_pretrained(other)
    with pytest.raises(CheckpointError, match="another vocabulary"):
        train(recipe(reference=str(other)), pairs, out=tmp_path / "run")


def test_pair_longer_than_the_window_is_named(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    with pytest.raises(DataError, match=r"pair [0-9a-f]{16}: "):
        train(recipe(max_length=12), pairs, out=tmp_path / "run")
    run = train(recipe(max_length=12, truncate="response"), pairs, out=tmp_path / "cut")
    state = json.loads((run / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["pair_counts"]["truncated"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpo", "safedpo"])
def test_eight_planted_pairs_are_learned_within_sixty_steps(
    tmp_path: Path, recipe: MakeRecipe, name: str
) -> None:
    pairs = make_pairs(8, 0)
    safe = dataclasses.replace(
        pairs, frame=pairs.frame.assign(is_chosen_safe=True, is_rejected_safe=True)
    )
    made = recipe(name, batch_size=8, max_steps=60, learning_rate=5e-3, schedule="constant")
    rows = log_of(train(made, safe, out=tmp_path / "run"))
    assert rows[-1]["rewards/accuracies"] == 1.0
    assert rows[-1]["rewards/margins"] > 0.2
