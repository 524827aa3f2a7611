"""Attributions in a run: fields, the weights it leaves behind, resume, adapters, evaluation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dpo_diag.engines.hf import HfEngine
from dpo_diag.errors import TableError
from dpo_diag.pairs import PairSet
from dpo_diag.store import RowStore
from dpo_diag.training.loop import TrainProgress, train
from dpo_diag.training.pair_data import PairData, pair_logps
from dpo_diag.training.policy import Policy, load_policy
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.sources import attribution
from dpo_diag.training.token_weights import read_token_weights
from dpo_diag.variants.tidpo import TiDpo

MakeRecipe = Callable[..., Recipe]
SHORT = {"anchor_tokens": 6, "anchor_every": 3, "gamma": 0.1}


class Stop(Exception):
    pass


def stop_at_seven(progress: TrainProgress) -> None:
    if progress.step == 7:
        raise Stop


@pytest.fixture
def policy(recipe: MakeRecipe, tmp_path: Path) -> Policy:
    return load_policy(recipe("tidpo"), tmp_path)


def test_loss_is_the_same_whether_prompts_are_shared_or_not(
    prepared: Callable[..., PairData], policy: Policy, pairs: PairSet, tmp_path: Path
) -> None:
    """Three packings of the same pairs: texts by themselves, shared prompts, and two to a row."""
    variant = TiDpo(anchor_tokens=6)
    data = prepared(pairs.frame.iloc[:8], policy, variant, RowStore(tmp_path), batch_size=8)
    data.sources["anchors"].begin(0)
    policy.model.double()
    index, results = np.arange(8), []
    for share in (False, True):
        policy.model.zero_grad()
        losses = variant.losses(pair_logps(policy.model, data, index, share_prompts=share))
        losses.sum().backward()
        results.append((losses.detach(), *(p.grad.clone() for p in policy.model.parameters())))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_fields_have_the_widths_that_the_reference_has(
    prepared: Callable[..., PairData], policy: Policy, pairs: PairSet, tmp_path: Path
) -> None:
    """Anchors may be longer than the answers, which must not widen the answers' fields."""
    data = prepared(pairs.frame.iloc[:8], policy, TiDpo(anchor_tokens=40), RowStore(tmp_path))
    data.sources["anchors"].begin(0)
    batch = pair_logps(policy.model, data, np.arange(4))
    for side in ("chosen", "rejected"):
        shape = getattr(batch, f"ref_token_logps_{side}").shape
        for name in ("token_logps", "mask", "attribution"):
            assert getattr(batch, f"{name}_{side}").shape == shape
    assert batch.anchor_token_logps.shape == batch.mask_anchor.shape
    assert batch.anchor_token_logps.shape == batch.ref_anchor_token_logps.shape
    assert batch.mask_anchor.any(0).all()


@pytest.mark.parametrize("rank", [0, 4])
def test_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet, rank: int
) -> None:
    """Stopped within a drawing of anchors; weights, log and token weights are the same."""
    made = recipe("tidpo", max_steps=10, save_every=5, rank=rank, **SHORT)
    whole = train(made, pairs, out=tmp_path / "whole")
    with pytest.raises(Stop):
        train(made, pairs, out=tmp_path / "parts", progress=stop_at_seven)
    parts = train(made, pairs, out=tmp_path / "parts", resume=True)
    file = "adapter_model.safetensors" if rank else "model.safetensors"
    one, other = load_file(whole / file), load_file(parts / file)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert log_of(whole) == log_of(parts)
    assert read_token_weights(whole).equals(read_token_weights(parts))


def log_of(folder: Path) -> list[dict[str, Any]]:
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    return [
        {key: value for key, value in row.items() if key != "seconds_per_step"}
        for row in state["log_history"]
    ]


def test_gradient_checkpointing_and_smaller_passes_change_nothing(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    logs = []
    for name, options in {
        "plain": {},
        "checkpointed": {"gradient_checkpointing": True},
        "parts": {"micro_batch_size": 1},
    }.items():
        made = recipe("tidpo", max_steps=2, **SHORT, **options)
        logs.append(log_of(train(made, pairs, out=tmp_path / name)))
    for log in logs[1:]:
        for key in ("loss", "grad_norm", "eval_loss"):
            values = [[row[key] for row in one if key in row] for one in (logs[0], log)]
            assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_run_leaves_the_weights_of_its_last_pairs(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight pairs in steps of four, the last five are kept: one of the first step's."""
    monkeypatch.setattr(attribution, "KEPT_PAIRS", 5)
    made = recipe("tidpo", max_steps=2, lam=0.5, **SHORT)
    frame = read_token_weights(train(made, pairs, out=tmp_path / "run"))
    assert frame["pair_id"].nunique() == 5
    texts = pairs.frame.set_index("pair_id")
    for (pair_id, side), rows in frame.groupby(["pair_id", "side"]):
        assert rows["position"].tolist() == list(range(len(rows)))
        assert (
            "".join(rows["token"])
            .replace(" ", "")
            .startswith(texts.loc[pair_id, side].replace(" ", ""))
        )
        assert rows["weight"].mean() == pytest.approx(1.0)
        assert rows["attribution"].iloc[-1] == 0
        assert (rows["attribution"].iloc[:-1] > 0).all()
        values = torch.tensor(rows["attribution"].to_numpy(copy=True))[None]
        mask = torch.ones_like(values, dtype=torch.bool)
        weights = TiDpo(lam=0.5).token_weights(values, mask)[0].numpy()
        np.testing.assert_allclose(rows["weight"], weights, rtol=1e-5)


def test_a_run_without_token_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"token_weights\.parquet"):
        read_token_weights(tmp_path)


def test_without_triplet_nothing_is_sampled(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("an answer was asked for")

    monkeypatch.setattr(HfEngine, "sample", refuse)
    monkeypatch.setattr(Policy, "freeze_reference", refuse)
    made = recipe("tidpo", max_steps=2, **{**SHORT, "gamma": 0.0})
    log = log_of(train(made, pairs, out=tmp_path / "run"))
    assert all(np.isfinite(row["loss"]) for row in log if "loss" in row)


def test_uniform_weights_without_triplet_train_as_dpo(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    uniform = {"gamma": 0.0, "lam": 0.0, "prior_width": 1e6}
    logs = [
        log_of(train(recipe(name, max_steps=4, **options), pairs, out=tmp_path / name))
        for name, options in (("dpo", {}), ("tidpo", uniform))
    ]
    for one, other in zip(*logs, strict=True):
        for key in one:
            assert one[key] == pytest.approx(other[key], rel=1e-4, abs=1e-5)


def test_nothing_is_left_before_the_first_pass(
    prepared: Callable[..., PairData], policy: Policy, pairs: PairSet, tmp_path: Path
) -> None:
    data = prepared(pairs.frame.iloc[:8], policy, TiDpo(gamma=0.0), RowStore(tmp_path))
    data.sources["attribution"].artefacts(tmp_path)
    assert not list(tmp_path.glob("*.parquet"))
