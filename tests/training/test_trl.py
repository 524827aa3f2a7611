"""Our losses against TRL's own trainers: same pairs, same weights, same loss, same gradient."""

from collections.abc import Callable, Mapping
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

Result = tuple[float, Mapping[str, torch.Tensor], Mapping[str, float]]  # loss, gradients, metrics
OPTIONS = {
    "report_to": [],
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
}


def model_of(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def result_of(trainer: Any) -> Result:
    """What a trainer of TRL makes of its first batch."""
    trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    grads = {name: p.grad for name, p in trainer.model.named_parameters()}
    logged = getattr(trainer, "_metrics", {"train": {}})["train"]  # CPOTrainer keeps its elsewhere
    return loss.item(), grads, {key: values[0] for key, values in logged.items()}


@pytest.fixture
def rows(pairs: PairSet) -> list[dict[str, str]]:
    """The training pairs as TRL wants them."""
    frame = pairs.frame[pairs.frame["split"] == "train"]
    return frame[["prompt", "chosen", "rejected"]].to_dict("records")


@pytest.fixture
def trl_dpo(
    tmp_path: Path, base: Path, moved: Path, rows: list[dict[str, str]]
) -> Callable[..., Result]:
    """TRL's DPOTrainer on all training pairs in one batch, with options of its config."""

    def run(**options: Any) -> Result:
        from datasets import Dataset
        from transformers import AutoTokenizer
        from trl import DPOConfig, DPOTrainer

        arguments = {"beta": 0.1, "per_device_train_batch_size": len(rows), **OPTIONS, **options}
        trainer = DPOTrainer(
            model=model_of(moved),
            ref_model=model_of(base),
            args=DPOConfig(output_dir=str(tmp_path / "trl"), **arguments),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(moved),
        )
        return result_of(trainer)

    return run


@pytest.fixture
def trl_simpo(tmp_path: Path, moved: Path, rows: list[dict[str, str]]) -> Callable[..., Result]:
    """TRL's CPOTrainer with SimPO's loss and without the cloning term."""

    def run(beta: float, gamma: float) -> Result:
        from datasets import Dataset
        from transformers import AutoTokenizer
        from trl.experimental.cpo import CPOConfig, CPOTrainer

        arguments = {"per_device_train_batch_size": len(rows), "remove_unused_columns": False}
        trainer = CPOTrainer(
            model=model_of(moved),
            args=CPOConfig(
                output_dir=str(tmp_path / "trl"),
                loss_type="simpo",
                cpo_alpha=0.0,
                beta=beta,
                simpo_gamma=gamma,
                **arguments,
                **OPTIONS,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(moved),
        )
        return result_of(trainer)

    return run


@pytest.fixture
def ours(
    prepared: Callable[..., PairData],
    tmp_path: Path,
    base: Path,
    moved: Path,
    pairs: PairSet,
    recipe: Callable[..., Recipe],
) -> Callable[..., Result]:
    """Our loop's loss on the same pairs; ``moved`` against ``base``."""

    def run(variant_name: str, **options: Any) -> Result:
        made = recipe(variant_name, model=str(moved), reference=str(base), **options)
        policy, variant = load_policy(made, tmp_path), made.build_variant()
        frame = pairs.frame[pairs.frame["split"] == "train"]
        data = prepared(frame, policy, variant, RowStore(tmp_path))
        result = PairSteps(policy.model, data, variant, Schedule(0, 8)).loss(np.arange(8), 8)
        result.loss.backward()
        return (
            result.loss.item(),
            {name: p.grad for name, p in policy.model.named_parameters()},
            {key: float(value) / 8 for key, value in result.sums.items()},
        )

    return run


def require_same(one: Result, other: Result) -> None:
    """Float32 on both sides, sums in another order: 1e-5 nats per sequence."""
    assert one[0] == pytest.approx(other[0], rel=2e-6, abs=1e-6)
    assert one[1].keys() == other[1].keys()
    for name, grad in one[1].items():
        torch.testing.assert_close(grad, other[1][name], rtol=1e-3, atol=1e-6)


def test_dpo_has_trls_loss_gradient_and_metrics(
    trl_dpo: Callable[..., Result], ours: Callable[..., Result]
) -> None:
    theirs, mine = trl_dpo(), ours("dpo", beta=0.1)
    assert abs(theirs[0] - np.log(2)) > 1e-3  # the policy is not the reference
    require_same(mine, theirs)
    shared = mine[2].keys() & theirs[2].keys()
    assert {"rewards/chosen", "rewards/accuracies", "logps/rejected"} <= shared
    for key in shared:
        assert mine[2][key] == pytest.approx(theirs[2][key], abs=1e-4), key


def test_rdpo_has_trls_robust_loss_and_gradient(
    trl_dpo: Callable[..., Result], ours: Callable[..., Result]
) -> None:
    theirs = trl_dpo(loss_type="robust", label_smoothing=0.2)
    require_same(ours("rdpo", beta=0.1, epsilon=0.2), theirs)


def test_averaged_ipo_has_trls_loss_and_gradient_and_the_papers_sums_have_not(
    trl_dpo: Callable[..., Result], ours: Callable[..., Result]
) -> None:
    """TRL's ipo is per token, with tau under the name beta; the default here is the paper's."""
    theirs = trl_dpo(loss_type="ipo", beta=0.1)
    require_same(ours("ipo", tau=0.1, average=True), theirs)
    assert abs(ours("ipo", tau=0.1)[0] - theirs[0]) > 0.1


def test_trls_sigmoid_loss_ignores_label_smoothing_so_cdpo_has_no_peer_there(
    trl_dpo: Callable[..., Result], ours: Callable[..., Result]
) -> None:
    theirs = trl_dpo(label_smoothing=0.2)
    require_same(ours("cdpo", beta=0.1, epsilon=0.0), theirs)
    assert abs(ours("cdpo", beta=0.1, epsilon=0.2)[0] - theirs[0]) > 1e-3


def test_simpo_has_the_loss_and_gradient_of_trls_cpo_trainer(
    trl_simpo: Callable[..., Result], ours: Callable[..., Result]
) -> None:
    require_same(ours("simpo", beta=2.0, gamma=1.0), trl_simpo(beta=2.0, gamma=1.0))
