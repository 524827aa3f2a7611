"""SimPO: a logistic loss on mean log-probs per token, without a reference, with a target margin.

Claim: the mean log-prob per token is what ranks continuations in generation, so it is the better
implicit reward, and a target margin ``gamma`` replaces the reference. What this code cannot
check: that the policy stays near anything. Nothing pulls it back but the learning rate; the
authors say that 1e-5 gives gibberish on models of 7B.

``gamma`` is in reward units, as in the loss below; the authors tune the ratio gamma / beta, 0.3 to
0.8. Since rewards are per token, their size does not compare with DPO's: a reward of this variant
is a mean, and a displacement of the whole response shows as its length times more nats.

By hand: chosen -6 nats over 3 tokens, rejected -12 over 4, beta 2, gamma 1: rewards -4 and -6,
-log sigmoid(-4 + 6 - 1) = -log sigmoid(1) = .313262.

Source: Meng et al. 2024, arXiv 2405.14734, equation 6 (second-hand); settings read in the README of
``princeton-nlp/SimPO``; the same loss was read in TRL 1.16 (``trl.experimental.cpo``, ``simpo``).
Needs: pairs only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from dpo_diag.variants._base import ArrayLike, Needs, PairLogps, Variant, require


@dataclass(frozen=True)
class Simpo(Variant):
    """SimPO on mean response log-probs.

    Attributes:
        beta: reward units per nat per token.
        gamma: margin asked for, in reward units.
    """

    beta: float = 2.0
    gamma: float = 1.0

    needs: ClassVar[Needs] = Needs(reference=False)
    source: ClassVar[str] = "Meng et al. 2024, arXiv 2405.14734, equation 6"
    ranges: ClassVar[Mapping[str, str]] = {
        "beta": "greater than 0, usually 2 to 2.5, 10 for newer models",
        "gamma": "0 or more, in reward units; 0.3 to 0.8 of beta",
    }

    def __post_init__(self) -> None:
        require(self.beta > 0, f"simpo: beta must be greater than 0, got {self.beta}.")
        require(self.gamma >= 0, f"simpo: gamma must be 0 or more, got {self.gamma}.")

    def losses(self, batch: PairLogps, state: Any = None) -> torch.Tensor:
        """``-log sigmoid(r(chosen) - r(rejected) - gamma)`` of each pair, shape (B,)."""
        chosen = batch.policy_chosen / batch.n_tokens_chosen
        rejected = batch.policy_rejected / batch.n_tokens_rejected
        return -F.logsigmoid(self.beta * (chosen - rejected) - self.gamma)

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """``beta * logp / n_tokens``, shape (N,); the reference plays no part."""
        return self.beta * (logp / n_tokens)


VARIANT = Simpo
