"""Rectified cost on a fixed table of scored samples: what is left of RePO without sampling. Ours.

**Not the paper's algorithm**: RePO (``repo``) samples from the policy it trains; here all samples
were drawn once, by one policy, and nothing new is ever seen. It keeps two things of RePO: only the
positive part of a cost is penalised, per sample or per prompt, and the multiplier only grows.

The answers of a prompt are compared with each other. For sample k, with ``lr = log(policy/ref)``
and each quantity taken less the mean of the prompt's other samples,

    e_k = (A_R - lambda A_C - kappa A_lr) / (1 + lambda),     loss_k = e_k^2 / 2

so that the loss is zero where ``kappa lr = R - lambda [C]+`` up to a constant per prompt: the
optimum that RePO's problem has at this lambda, on the answers of the table. No importance ratio is
needed, whoever drew the samples. The multiplier does need one, since it must see the cost of the
policy of now: ``lambda`` grows by ``eta`` times the mean over prompts of ``sum_k w_k [C_k]+``,
``w`` the self-normalised ratios ``policy/behaviour`` of the prompt's samples.

By hand: rewards .9 and .5, costs .3 and -.1, lr 1 and 0, lambda 2, kappa .1. A_R = +-.4, A_C =
+-.3, A_lr = +-1; e = +-(.4 - .6 - .1) / 3 = -+.1; loss .005 each.

What this code cannot check: that the table holds answers worth moving to (the policy is told
nothing about others), that the starting model drew it (its log-probs are the behaviour's), and that
zero cost is where acceptable ends. With few samples the multiplier's weights rest on one of them.

Source: ours, after RePO, arXiv 2410.19933 (see ``repo`` on what of it is verified), for the cost;
regressing relative log-ratios on relative rewards is known from REBEL, arXiv 2404.16767 (from
memory, unverified). Needs: a table of samples with reward and cost, and the reference.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from dpo_diag.variants import _rectified
from dpo_diag.variants._base import (
    ArrayLike,
    Needs,
    SampleLogps,
    TrainingFacts,
    Variant,
)
from dpo_diag.variants._prompt_groups import groups, less_others, prompt_sums


@dataclass(frozen=True)
class RepoOffline(Variant):
    """Regression of relative log-ratios on relative reward less rectified cost.

    Attributes:
        kappa: reward units that one nat of log-ratio stands for; the smaller, the further the
            policy goes.
        rectify: ``sample`` or ``prompt``, what the positive part is taken of.
        lambda_init: multiplier before the first step.
        lambda_max: its cap.
        eta: growth of the multiplier per step and unit of rectified cost.
    """

    kappa: float = 0.05
    rectify: str = "sample"
    lambda_init: float = 1.0
    lambda_max: float = 10.0
    eta: float = 0.1

    needs: ClassVar[Needs] = Needs(reference=True, sample_table=True)
    source: ClassVar[str] = "ours, after RePO, arXiv 2410.19933; not the paper's algorithm"
    ranges: ClassVar[Mapping[str, str]] = _rectified.RANGES

    def __post_init__(self) -> None:
        _rectified.check(self)

    def sample_losses(self, batch: SampleLogps, state: Any = None) -> torch.Tensor:
        """``e^2 / 2`` of each sample, shape (N,), lower better; see the module.

        All samples of a prompt must be in one batch; a lone one has no loss.
        """
        multiplier = self.lambda_init if state is None else float(state["lambda"])
        index = batch.prompt_index
        wanted = less_others(batch.reward, index) - multiplier * _rectified.cost_advantages(
            batch.cost, index, self.rectify
        )
        implied = self.kappa * less_others(batch.policy - batch.ref, index)
        return 0.5 * ((wanted - implied) / (1.0 + multiplier)) ** 2

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """``kappa * (logp - ref_logp)``, shape (N,), reward units.

        What the loss fits to ``R - lambda [C]+``, up to a constant per prompt.
        """
        return self.kappa * (logp - ref_logp)

    def init_state(self, facts: TrainingFacts) -> dict[str, float]:
        """The multiplier before the first step, and no estimate of the cost yet."""
        return {"lambda": self.lambda_init, "policy_rectified_cost": float("nan")}

    def update_state(self, batch: SampleLogps, state: Any) -> dict[str, float]:
        """``lambda <- min(lambda_max, lambda + eta * rectified cost of the policy)``."""
        cost = self.rectified_cost(batch)
        return {
            "lambda": _rectified.grown(self, state["lambda"], cost),
            "policy_rectified_cost": cost,
        }

    def rectified_cost(self, batch: SampleLogps) -> float:
        """Mean over prompts of the policy's ``[C]+``, estimated from the samples, cost units.

        The samples of a prompt are weighted by ``policy/behaviour``, made to sum to one: biased,
        towards the table's own mean when they are few.
        """
        with torch.no_grad():
            index, cost = batch.prompt_index, batch.cost
            if self.rectify == "sample":
                cost = cost.clamp(min=0.0)
            expected = prompt_sums(_shares(batch.policy - batch.behaviour, index) * cost, index)
            return float(expected.clamp(min=0.0).mean())

    def sample_metrics(self, batch: SampleLogps) -> dict[str, torch.Tensor]:
        """The log-ratio to the reference, in nats."""
        return {"logratio": (batch.policy - batch.ref).detach()}

    def metrics(self, state: Any) -> dict[str, float]:
        """The multiplier and the estimate that it last grew by, once there is one."""
        return {key: value for key, value in state.items() if math.isfinite(value)}


def _shares(log_ratio: torch.Tensor, prompt_index: torch.Tensor) -> torch.Tensor:
    """``exp(log_ratio)`` over its sum within the prompt, (N,)."""
    group, size = groups(prompt_index)
    top = log_ratio.new_full((len(size),), -torch.inf)
    top = top.scatter_reduce(0, group, log_ratio, "amax")
    weights = (log_ratio - top[group]).exp()
    return weights / prompt_sums(weights, prompt_index)[group]


VARIANT = RepoOffline
