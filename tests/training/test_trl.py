"""``dpo`` against TRL's own DPOTrainer: same pairs, same weights, same loss, same gradient."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpo_diag.pairs import PairSet
from dpo_diag.store import RowStore
from dpo_diag.training.pair_data import PairData
from dpo_diag.training.policy import load_policy
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.steps import PairSteps, Schedule


def trl_loss(policy: Path, reference: Path, pairs: PairSet, out: Path) -> tuple[float, Any, Any]:
    """Loss, gradients and metrics of TRL's trainer on all training pairs in one batch."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    frame = pairs.frame[pairs.frame["split"] == "train"]
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32),
        ref_model=AutoModelForCausalLM.from_pretrained(reference, dtype=torch.float32),
        args=DPOConfig(
            output_dir=str(out),
            beta=0.1,
            per_device_train_batch_size=len(frame),
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(frame[["prompt", "chosen", "rejected"]].to_dict("records")),
        processing_class=AutoTokenizer.from_pretrained(policy),
    )
    trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    grads = {name: p.grad for name, p in trainer.model.named_parameters()}
    metrics = {key: values[0] for key, values in trainer._metrics["train"].items()}
    return loss.item(), grads, metrics


@pytest.fixture
def both(
    prepared: Callable[..., PairData],
    tmp_path: Path,
    base: Path,
    moved: Path,
    pairs: PairSet,
    recipe: Callable[..., Recipe],
) -> tuple[tuple[float, Any, Any], tuple[float, Any, Any]]:
    """(Loss, gradients, metrics) of TRL and of our loop's material; ``moved`` against ``base``."""
    made = recipe(model=str(moved), reference=str(base), beta=0.1)
    policy, variant = load_policy(made, tmp_path), made.build_variant()
    frame = pairs.frame[pairs.frame["split"] == "train"]
    data = prepared(frame, policy, variant, RowStore(tmp_path))
    result = PairSteps(policy.model, data, variant, Schedule(0, 8)).loss(np.arange(8), 8)
    result.loss.backward()
    ours = (
        result.loss.item(),
        {name: p.grad for name, p in policy.model.named_parameters()},
        {key: float(value) / 8 for key, value in result.sums.items()},
    )
    return trl_loss(moved, base, pairs, tmp_path / "trl"), ours


def test_loss_gradient_and_metrics_equal_trls(
    both: tuple[tuple[float, Any, Any], tuple[float, Any, Any]],
) -> None:
    """Float32 on both sides, sums in another order: 1e-5 nats per sequence."""
    (their_loss, their_grads, their_metrics), (loss, grads, metrics) = both
    assert abs(their_loss - np.log(2)) > 1e-3  # the policy is not the reference
    assert loss == pytest.approx(their_loss, abs=1e-6)
    assert grads.keys() == their_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, their_grads[name], rtol=1e-3, atol=1e-6)
    shared = metrics.keys() & their_metrics.keys()
    assert {"rewards/chosen", "rewards/accuracies", "logps/rejected"} <= shared
    for key in shared:
        assert metrics[key] == pytest.approx(their_metrics[key], abs=1e-4), key
