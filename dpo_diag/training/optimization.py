"""AdamW, the learning-rate schedule, precision: the arithmetic of an optimiser step.

The learning rate is a function of the step alone, so a resumed run needs no scheduler state.
Start reading at ``learning_rate``.
"""

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch

from dpo_diag.training.recipe import OptimizerSection


def learning_rate(section: OptimizerSection, step: int, n_steps: int) -> float:
    """Learning rate of one step, as transformers schedules it.

    Linear warm-up from 0 over ``warmup_steps``, then constant, linear to 0, or half a cosine to 0.

    Args:
        section: the recipe's.
        step: 0 for the first.
        n_steps: steps of the whole run.
    """
    if step < section.warmup_steps:
        return section.learning_rate * step / section.warmup_steps
    share = (step - section.warmup_steps) / max(1, n_steps - section.warmup_steps)
    factors = {
        "constant": 1.0,
        "linear": 1.0 - share,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * share)),
    }
    return section.learning_rate * factors[section.schedule]


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter],
    section: OptimizerSection,
    extra: Iterable[torch.Tensor] = (),
    extra_rate: float = 0.0,
) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: biases, norms and ``extra`` are left alone.

    Args:
        parameters: the model's; those that take no gradient are left out.
        section: the recipe's.
        extra: learned state of the variant beside the model.
        extra_rate: its peak learning rate; 0 takes the model's.
    """
    factor = extra_rate / section.learning_rate if extra_rate else 1.0
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": section.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        {"params": list(extra), "weight_decay": 0.0, "is_learned": True, "factor": factor},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=section.learning_rate,
        betas=(section.beta1, section.beta2),
        eps=section.epsilon,
        fused=True,
    )


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """bfloat16 autocast over float32 weights, or nothing for ``float32``."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
