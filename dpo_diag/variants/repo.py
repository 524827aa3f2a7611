"""RePO: on-policy reward maximisation in which only positive cost is penalised, at every prompt.

Claim: bounding the expected cost lets very safe prompts pay for unsafe ones; penalising
``[C(x, y)]+`` does not, since a cost below zero earns nothing. The problem is

    max over policy, min over lambda >= 0:  E[R - kappa log(policy/ref)] - lambda E[C]+

with ``[C]+`` taken per sample (``rectify="sample"``, the later version of the paper as far as
known) or of the mean cost over a prompt's samples (``"prompt"``, as the first version is
recalled). lambda grows by ``eta * mean [C]+`` after each optimiser step; since ``[C]+ >= 0`` it
never falls, hence the cap.

Unverified: no full text of the paper and no author code could be read. The rectified objective and
the use of a clipped surrogate are confirmed in outline; the update of lambda, the division by
``1 + lambda`` (as in Safe-RLHF) and every number here are a reconstruction. Three choices are ours
and stated: an answer is one action, so the importance ratio is that of whole sequences; instead
of learned critics, the baseline of a sample is the mean of the prompt's other samples, taken
separately for reward and for rectified cost (unbiased, since neither depends on the sample); the
pull to the reference is part of the reward (``R - kappa * log(behaviour/ref)``), not a loss term.

What this code cannot check: that zero cost is where acceptable ends. A wrong threshold moves the
constraint. Costs are never normalised, which would move the zero.

Source: RePO, arXiv 2410.19933 (rectified policy optimisation). Needs: on-policy samples with
reward and cost, and the reference.
"""

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
    require,
)
from dpo_diag.variants._prompt_groups import less_others, prompt_means

# exp of the log-ratio overflows float32 near 88; the surrogate is flat long before
_MAX_LOG_RATIO = 20.0


@dataclass(frozen=True)
class Repo(Variant):
    """RePO with a sequence-level clipped surrogate and leave-one-out baselines.

    Attributes:
        kappa: price of a nat of log-ratio to the reference, in reward units.
        rectify: ``sample`` or ``prompt``, what the positive part is taken of.
        clip: half-width of the trust region of the importance ratio.
        lambda_init: multiplier before the first step.
        lambda_max: its cap.
        eta: growth of the multiplier per step and unit of mean rectified cost.
    """

    kappa: float = 0.05
    rectify: str = "sample"
    clip: float = 0.2
    lambda_init: float = 1.0
    lambda_max: float = 10.0
    eta: float = 0.1

    needs: ClassVar[Needs] = Needs(reference=True, online_samples=True)
    source: ClassVar[str] = "RePO, arXiv 2410.19933; details reconstructed, see the module"
    ranges: ClassVar[Mapping[str, str]] = {
        **_rectified.RANGES,
        "clip": "between 0 and 1, exclusive",
    }

    def __post_init__(self) -> None:
        _rectified.check(self)
        require(0 < self.clip < 1, f"repo: clip must be between 0 and 1, got {self.clip}.")

    def sample_losses(self, batch: SampleLogps, state: Any = None) -> torch.Tensor:
        """Clipped surrogate loss of each sample, shape (N,), lower better.

        ``-min(ratio * A, clip(ratio) * A)`` with ``A = (A_R - lambda * A_C) / (1 + lambda)``.
        All samples of a prompt must be in one batch.
        """
        multiplier = self.lambda_init if state is None else float(state["lambda"])
        advantage = self.advantages(batch, multiplier)
        log_ratio = batch.policy - batch.behaviour
        ratio = log_ratio.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp()
        clipped = ratio.clamp(1.0 - self.clip, 1.0 + self.clip)
        return -torch.minimum(ratio * advantage, clipped * advantage)

    def advantages(self, batch: SampleLogps, multiplier: float) -> torch.Tensor:
        """``(A_R - lambda * A_C) / (1 + lambda)``, shape (N,), reward units, no gradient."""
        with torch.no_grad():
            regularised = batch.reward - self.kappa * (batch.behaviour - batch.ref)
            reward = less_others(regularised, batch.prompt_index)
            cost = _rectified.cost_advantages(batch.cost, batch.prompt_index, self.rectify)
            return (reward - multiplier * cost) / (1.0 + multiplier)

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """``kappa * (logp - ref_logp)``, shape (N,), reward units.

        The reward that the policy would be the KL-regularised optimum of: at that optimum it is
        ``R - lambda [C]+`` up to a constant per prompt. RePO trains on samples, not on this
        quantity, so it says what the policy implies, not what was fitted.
        """
        return self.kappa * (logp - ref_logp)

    def init_state(self, facts: TrainingFacts) -> dict[str, float]:
        """The multiplier before the first step."""
        return {"lambda": self.lambda_init}

    def update_state(self, batch: SampleLogps, state: Any) -> dict[str, float]:
        """``lambda <- min(lambda_max, lambda + eta * mean [C]+)``."""
        return {"lambda": _rectified.grown(self, state["lambda"], self.rectified_cost(batch))}

    def rectified_cost(self, batch: SampleLogps) -> float:
        """Mean over the batch of ``[C]+``, per sample or of each prompt's mean; cost units."""
        cost = batch.cost
        if self.rectify == "prompt":
            cost = prompt_means(cost, batch.prompt_index)
        return float(cost.clamp(min=0.0).mean())

    def metrics(self, state: Any) -> dict[str, float]:
        """The multiplier, as ``lambda``."""
        return {"lambda": state["lambda"]}


VARIANT = Repo
