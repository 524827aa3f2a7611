"""RefAlign: a sample's reward is its similarity to one good answer; REINFORCE, no reference model.

Claim: similarity to a reference answer can stand in for preference pairs and a reward model. K
answers to a prompt are drawn from the policy and

    R_k = (1 + 1 / (C + |y_k|)) Sim(y_k, y*)
    A_k = clip(R_k - baseline_k, -eps, +eps)
    loss_k = -A_k log policy(y_k | x)

where the baseline is the mean of the prompt's samples (``group_mean``, the paper's form as far as
known) or of the *other* samples (``leave_one_out``, unbiased; larger by K / (K - 1)). With two
samples and ``group_mean`` the advantages are ``+-(R_1 - R_2) / 2``. By hand, C = 8 and lengths 2
and 12 tokens, similarities .6 and .5: R = 1.1 * .6 = .66 and 1.05 * .5 = .525; A = +-.0675.

Unverified: the formulas come from a review of the paper, not from its text; ``C`` and ``eps`` were
not found, so the defaults are ours, and so is counting ``|y|`` in tokens. The safety and
confidence variants of the paper are not here: their formulas were not found.

What this code cannot check: that the reference answer is good and that the similarity sees what
makes it so. Similarities are biased towards a length (and a style); the run logs the correlation of
raw similarity with length within prompts, ``reward_length_correlation``, and raw and
length-adjusted reward apart. Learning from answers of a stronger model is close to distillation:
it gives the policy information that methods on pairs lack. There is no pull to a reference; watch
the samples collapse onto ``y*``.

REINFORCE is on-policy. Later steps of a round (``online.prompts_per_round`` above the batch size,
or ``passes`` above 1) use samples of an older policy without correction.

Source: RefAlign, arXiv 2504.09895 (its ICLR 2026 submission was withdrawn). Needs: prompts with one
reference answer each, on-policy samples, a similarity.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from dpo_diag.variants._base import ArrayLike, Needs, SampleLogps, Variant, require
from dpo_diag.variants._prompt_groups import less_others, prompt_means


@dataclass(frozen=True)
class Refalign(Variant):
    """REINFORCE on similarity to a reference answer.

    Attributes:
        length_constant: C, in tokens: the smaller, the larger the bonus for short answers.
        eps: advantages are clipped to this, in units of the similarity.
        baseline: ``group_mean`` or ``leave_one_out``.
    """

    length_constant: float = 10.0
    eps: float = 0.5
    baseline: str = "group_mean"

    needs: ClassVar[Needs] = Needs(reference=False, online_samples=True, reference_answers=True)
    source: ClassVar[str] = "RefAlign, arXiv 2504.09895; formulas second-hand, see the module"
    ranges: ClassVar[Mapping[str, str]] = {
        "length_constant": "greater than 0, in tokens",
        "eps": "greater than 0, in units of the similarity",
        "baseline": "group_mean or leave_one_out",
    }

    def __post_init__(self) -> None:
        require(
            self.length_constant > 0,
            f"refalign: length_constant must be above 0, got {self.length_constant}.",
        )
        require(self.eps > 0, f"refalign: eps must be greater than 0, got {self.eps}.")
        require(
            self.baseline in ("group_mean", "leave_one_out"),
            f"refalign: baseline must be group_mean or leave_one_out, got {self.baseline!r}.",
        )

    def sample_losses(self, batch: SampleLogps, state: Any = None) -> torch.Tensor:
        """``-A * log policy`` of each sample, shape (N,), lower better.

        All samples of a prompt must be in one batch; a lone one has no advantage.
        """
        return -self.advantages(batch) * batch.policy

    def advantages(self, batch: SampleLogps) -> torch.Tensor:
        """Clipped advantage of each sample, shape (N,), units of the similarity, no gradient."""
        with torch.no_grad():
            return self._unclipped(batch).clamp(-self.eps, self.eps)

    def adjusted(self, batch: SampleLogps) -> torch.Tensor:
        """``(1 + 1 / (C + |y|)) * similarity``, shape (N,); short answers gain a little."""
        n_tokens = batch.n_tokens.to(batch.reward.dtype)
        return (1.0 + 1.0 / (self.length_constant + n_tokens)) * batch.reward

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """``logp``, the summed log-prob of each response, shape (N,), nats.

        Without a reference and a KL term no formula ties the policy to a reward. What the loss
        raises and lowers is the summed log-prob, so that is how the policy ranks answers; under
        an entropy bonus it would be the reward up to scale and a constant per prompt. It disfavours
        long answers whatever their worth: compare with the starting model under the same rule,
        not with a method whose reward is a log-ratio.
        """
        return logp

    def sample_metrics(self, batch: SampleLogps) -> dict[str, torch.Tensor]:
        """The length-adjusted reward and the share of clipped advantages."""
        with torch.no_grad():
            clipped = self._unclipped(batch).abs() > self.eps
            return {
                "reward_length_adjusted": self.adjusted(batch),
                "advantage_clipped": clipped.to(batch.reward.dtype),
            }

    def _unclipped(self, batch: SampleLogps) -> torch.Tensor:
        reward = self.adjusted(batch)
        if self.baseline == "leave_one_out":
            return less_others(reward, batch.prompt_index)
        return reward - prompt_means(reward, batch.prompt_index)


VARIANT = Refalign
