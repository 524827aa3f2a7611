"""What a batch of scored samples is to a variant, and what of it is logged.

Start reading at ``sample_logps``.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from dpo_diag.engines._base import ScoreRequest
from dpo_diag.training.batches import pack
from dpo_diag.training.forward import response_logps
from dpo_diag.training.policy import Policy
from dpo_diag.training.steps import MicroLoss, detached
from dpo_diag.variants._base import SampleLogps, Variant

COLUMNS = ("behaviour", "ref", "reward", "cost")


def sample_logps(
    policy: Policy,
    requests: Sequence[ScoreRequest],
    columns: Mapping[str, np.ndarray],
    prompt_index: np.ndarray,
) -> SampleLogps:
    """The policy's log-probs of N samples, with gradient, and what is known of them.

    Args:
        policy: the model in training.
        requests: prompts and answers as ids.
        columns: ``behaviour``, ``ref``, ``reward``, ``cost``, (N,) each.
        prompt_index: (N,), equal for samples of one prompt.
    """
    packed = pack(requests, policy.device)
    logps = response_logps(policy.model, packed).sums
    return SampleLogps(
        policy=logps,
        n_tokens=packed.n_tokens,
        prompt_index=torch.as_tensor(prompt_index, device=policy.device),
        **{
            name: torch.as_tensor(columns[name], dtype=logps.dtype, device=policy.device)
            for name in COLUMNS
        },
    )


def nothing_to_learn(policy: Policy) -> MicroLoss:
    """A pass in which no sample has a score: a loss of 0 that moves no weight."""
    trained = next(p for p in policy.model.parameters() if p.requires_grad)
    none = torch.zeros(0, device=trained.device)
    number = torch.zeros(0, dtype=torch.int64, device=trained.device)
    batch = SampleLogps(none, none, none, number, none, none, number)
    return MicroLoss(0.0 * trained.sum(), {}, 0, batch)


def micro_loss(
    batch: SampleLogps, losses: torch.Tensor, weight: torch.Tensor | float, variant: Variant
) -> MicroLoss:
    """A pass's loss and metrics.

    Args:
        batch: N samples.
        losses: (N,).
        weight: of each sample in the step's loss, (N,) or one number.
        variant: adds its own metrics.
    """
    n = len(torch.unique(batch.prompt_index))
    return MicroLoss((losses * weight).sum(), sample_sums(batch, variant), n, detached(batch))


def sample_sums(batch: SampleLogps, variant: Variant) -> dict[str, torch.Tensor]:
    """Sums over the prompts of the means over each prompt's samples, no gradient.

    ``reward`` is raw, as scored. What a variant has no use for (costs, the distance to a
    reference) is not logged for it.
    """
    needs = variant.needs
    values = {
        "reward": batch.reward,
        "completions/mean_length": batch.n_tokens.to(batch.reward.dtype),
        "ratio_deviation": (batch.policy.detach() - batch.behaviour).abs(),
    }
    if not needs.reference_answers:
        values |= {
            "cost": batch.cost,
            "rectified_cost": batch.cost.clamp(min=0),
            "violation_rate": (batch.cost > 0).to(batch.cost.dtype),
        }
    if needs.reference:
        values["kl"] = batch.behaviour - batch.ref
    values |= variant.sample_metrics(batch)
    _, group, size = torch.unique(batch.prompt_index, return_inverse=True, return_counts=True)
    share = 1.0 / size[group]
    return {name: (value * share).sum() for name, value in values.items()}
