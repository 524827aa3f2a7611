"""Rounds of sample, score, learn: what is drawn, that it learns, that it resumes."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from dpo_diag import registry
from dpo_diag.errors import CheckpointError, DataError
from dpo_diag.pairs import PairSet, PromptSet
from dpo_diag.store import RowStore
from dpo_diag.training.inputs import Inputs
from dpo_diag.training.loop import train
from dpo_diag.training.online import Round, SampleSteps
from dpo_diag.training.pair_data import Material
from dpo_diag.training.policy import load_policy
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.scorers import CostScorer
from tests.training.conftest import make_pairs
from tests.training.test_loop import Stop, log_of, stop_after

MakeRecipe = Callable[..., Recipe]


def make_steps(made: Recipe, pairs: PairSet, cache: Path) -> SampleSteps:
    policy, variant = load_policy(made, cache), made.build_variant()
    material = Material(policy, variant, made, RowStore(cache / "rows"), Inputs(), cache)
    return SampleSteps(pairs.frame[pairs.frame["split"] == "train"], material)


def prefer(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    """Make the two sandbox costs count a word: reward 1 with it, cost 1 - threshold without."""

    def cost(self: Any, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        return np.array([float(word not in text.split()) for text in responses])

    for name in ("sandbox_unhelpfulness", "sandbox_harm"):
        monkeypatch.setattr(registry.load("costs", name), "cost", cost)


def test_a_round_holds_k_samples_per_prompt_with_their_log_probs(
    online: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    steps = make_steps(online(), pairs, tmp_path)
    steps.begin(0)
    drawn = steps._now
    assert sorted(drawn.prompts.tolist()) == list(range(8))
    assert len(drawn.responses) == len(drawn.reward) == 32
    # nothing was learned yet: policy = behaviour = reference
    np.testing.assert_allclose(drawn.behaviour, drawn.ref, atol=1e-4)
    loss = steps.loss(np.arange(4), 4)
    np.testing.assert_allclose(loss.batch.policy.numpy(), loss.batch.behaviour.numpy(), atol=1e-4)
    assert loss.batch.prompt_index.tolist() == [i for i in range(4) for _ in range(4)]


def test_rounds_follow_passes_and_prompts(
    online: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    """8 prompts, 4 per step, 2 passes: 4 steps per round; each pass takes every prompt once."""
    steps = make_steps(online(), pairs, tmp_path)
    units = []
    for step in range(4):
        steps.begin(step)
        assert steps._round_number == 0
        units.append(steps.units(step).tolist())
    assert sorted(units[0] + units[1]) == sorted(units[2] + units[3]) == list(range(8))
    steps.begin(4)
    assert steps._round_number == 1
    assert steps.n_per_epoch == 4


def abstain(monkeypatch: pytest.MonkeyPatch, where: Callable[[np.ndarray], np.ndarray]) -> None:
    """Make the cost abstain on the samples of a round that ``where`` says."""
    monkeypatch.setattr(
        CostScorer, "cost", lambda self, p, r: np.where(where(np.arange(len(r))), np.nan, 0.1)
    )


def test_samples_that_a_cost_abstains_on_are_left_out(
    online: MakeRecipe, pairs: PairSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of four samples of each prompt has no cost; the means are over the other three."""
    steps = make_steps(online(), pairs, tmp_path)
    abstain(monkeypatch, lambda i: i % 4 == 0)
    steps.begin(0)
    found = steps.loss(steps.units(0), 4)
    assert len(found.batch.policy) == 12
    assert float(found.sums["cost"]) / found.n == pytest.approx(0.1)
    assert float(found.sums["abstained_rate"]) / found.n == pytest.approx(0.25)


def test_a_pass_without_scores_is_skipped_and_a_step_without_any_stops(
    online: MakeRecipe, pairs: PairSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first four prompts of the round have no score: 16 of 32 samples."""
    steps = make_steps(online(), pairs, tmp_path)
    abstain(monkeypatch, lambda i: i < 16)
    steps.begin(0)
    empty = steps.loss(np.array([0, 1]), 4)
    empty.loss.backward()
    weights = [p for p in steps._policy.model.parameters() if p.grad is not None]
    assert (empty.loss.item(), empty.n, len(empty.batch.policy)) == (0.0, 0, 0)
    assert all((p.grad == 0).all() for p in weights)
    other = steps.loss(np.array([6, 7]), 4)
    assert other.n == 2
    steps.finish([empty, other])
    assert steps.state["lambda"] == pytest.approx(1.0 + 0.1 * 0.1)
    monkeypatch.setattr("dpo_diag.training.round_plan.step_units", lambda *a, **k: np.arange(4))
    with pytest.raises(DataError, match="abstained on every sample of"):
        steps.units(0)


def test_a_run_goes_on_over_a_pass_without_scores(
    online: MakeRecipe, pairs: PairSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    abstain(monkeypatch, lambda i: i % 8 < 4)  # every second prompt
    made = online(micro_batch_size=1, batch_size=8, max_steps=2)
    rows = log_of(train(made, pairs, out=tmp_path / "run"))
    assert rows[0]["abstained_rate"] == pytest.approx(0.5)
    assert rows[0]["cost"] == pytest.approx(0.1)


def test_length_correlation_is_taken_within_prompts() -> None:
    """Rewards .1 .2 .4 of lengths 3 5 4 and, without a cost, one more: ranks 1 2 3 and 1 3 2.

    Spearman: 1 - 6 * (0 + 1 + 1) / (3 * 8) = .5; the one that abstained does not count.
    """
    drawn = Round(
        prompts=np.array([4]),
        responses=((1,) * 3, (1,) * 5, (1,) * 4, (1,) * 50),
        behaviour=np.zeros(4),
        ref=np.zeros(4),
        reward=np.array([0.1, 0.2, 0.4, 0.0]),
        cost=np.array([0.0, 0.0, 0.0, np.nan]),
    )
    facts = drawn.facts()
    assert facts["reward_length_correlation"] == pytest.approx(0.5)
    assert facts["abstained_rate"] == 0.25


def test_log_has_reward_cost_multiplier_and_pair_rewards(
    online: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    rows = log_of(train(online(lambda_init=1.0), pairs, out=tmp_path / "run"))
    names = {"reward", "cost", "rectified_cost", "violation_rate", "kl", "lambda"}
    assert names | {"completions/mean_length", "loss", "grad_norm"} <= rows[0].keys()
    values = [row["lambda"] for row in rows if "lambda" in row]
    assert values == sorted(values)
    assert "eval_rewards/accuracies" in rows[-1]
    assert "eval_loss" not in rows[-1]


@pytest.mark.parametrize("stop", [2, 5])
def test_resume_within_a_round_is_exact(
    online: MakeRecipe, pairs: PairSet, tmp_path: Path, stop: int
) -> None:
    """Steps 2 and 5 lie within the rounds of steps 0-3 and 4-7."""
    made = online(save_every=1, max_steps=7, learning_rate=1e-2)
    whole = train(made, pairs, out=tmp_path / "whole")
    with pytest.raises(Stop):
        train(made, pairs, out=tmp_path / "parts", progress=stop_after(stop))
    parts = train(made, pairs, out=tmp_path / "parts", resume=True)
    one, other = (load_file(run / "model.safetensors") for run in (whole, parts))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert [r.get("lambda") for r in log_of(whole)] == [r.get("lambda") for r in log_of(parts)]


def test_accumulated_passes_equal_one(online: MakeRecipe, pairs: PairSet, tmp_path: Path) -> None:
    one = log_of(train(online(max_steps=1), pairs, out=tmp_path / "one"))[0]
    many = log_of(train(online(max_steps=1, micro_batch_size=1), pairs, out=tmp_path / "many"))[0]
    for key in ("loss", "grad_norm", "reward", "cost", "kl", "lambda"):
        assert one[key] == pytest.approx(many[key], rel=1e-4, abs=1e-6)


def test_lora_uses_its_own_base_as_reference(
    online: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    run = train(online(rank=4, learning_rate=5e-2), pairs, out=tmp_path / "run")
    assert (run / "adapter_model.safetensors").is_file()
    kl = [row["kl"] for row in log_of(run) if "kl" in row]
    assert kl[0] == pytest.approx(0.0, abs=1e-4)
    assert abs(kl[-1]) > 1e-3


def test_prompts_are_taken_once_from_the_training_rows(online: MakeRecipe, tmp_path: Path) -> None:
    pairs = make_pairs(8, 2)
    twice = pd.concat([pairs.frame, pairs.frame])
    steps = make_steps(online(), PairSet(twice, "dpo_diag", "x", (), {}, "0" * 64), tmp_path)
    assert len(steps._ids) == 8


def test_prompts_given_apart_replace_the_pairs_prompts(
    online: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    """Of ten prompts eight have split train; in a set without that split all ten are taken."""
    frame = make_pairs(8, 2).frame.drop(columns=["chosen", "rejected"])
    for split, n in ((frame["split"], 8), ("test", 10)):
        prompts = PromptSet(frame.assign(split=split), "p", (), {}, "0" * 64)
        run = train(
            online(max_steps=1), pairs, out=tmp_path / str(n), inputs=Inputs(prompts=prompts)
        )
        state = json.loads((run / "trainer_state.json").read_text(encoding="utf-8"))
        assert state["pair_counts"] == {"prompts": n}


def test_resume_refuses_other_prompts(online: MakeRecipe, pairs: PairSet, tmp_path: Path) -> None:
    made = online(save_every=1, max_steps=4)
    with pytest.raises(Stop):
        train(made, pairs, out=tmp_path / "run", progress=stop_after(2))
    other = PromptSet(pairs.frame.iloc[:5], "p", (), {}, "0" * 64)
    with pytest.raises(CheckpointError, match="started with other prompts"):
        train(made, pairs, out=tmp_path / "run", resume=True, inputs=Inputs(prompts=other))


@pytest.mark.slow
def test_a_rewarded_word_is_learned(
    online: MakeRecipe, pairs: PairSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefer(monkeypatch, "the")
    made = online(
        max_steps=60, learning_rate=1e-2, samples_per_prompt=8, kappa=0.01, schedule="constant"
    )
    run = train(made, pairs, out=tmp_path / "run")
    rows = [row for row in log_of(run) if "reward" in row]
    first = np.mean([row["reward"] for row in rows[:4]])
    last = np.mean([row["reward"] for row in rows[-4:]])
    assert first < 0.5 < 0.9 < last
    assert json.loads((run / "trainer_state.json").read_text())["global_step"] == 60
