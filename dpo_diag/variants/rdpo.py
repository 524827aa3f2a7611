"""Robust DPO: DPO's loss corrected so that known random flips of the labels leave it unbiased.

Claim: if each label is turned round with probability ``epsilon`` < 1/2, independently of the
pair, the mean over flips of

    [(1 - epsilon) l(s) - epsilon l(-s)] / (1 - 2 epsilon),   l(s) = -log sigmoid(s), s = beta m

is the loss ``l(s)`` of the true label. What this code cannot check: the true ``epsilon``, which
must be known, and that flips are symmetric. The price is variance, growing without bound towards
1/2, and a loss **unbounded below**: as s grows it falls with slope -epsilon / (1 - 2 epsilon), so a
pair that the model can memorise is rewarded for ever. Stop early, or set ``margin_clip``, which the
paper does not have: s enters as min(s, margin_clip), which bounds the loss, and takes the
unbiasedness away beyond that margin only.

By hand: margin 5, beta .1, epsilon .1: (.9 * .474077 - .1 * .974077) / .8 = .411577.

Source: Chowdhury, Kini and Natarajan 2024, arXiv 2403.00409 (abstract read; the loss was read in
TRL 1.16, ``loss_type="robust"``). Needs: the reference.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from dpo_diag.variants._base import ArrayLike, Needs, PairLogps, Variant, require
from dpo_diag.variants._margins import logratio_margin


@dataclass(frozen=True)
class Rdpo(Variant):
    """Robust DPO on summed response log-probs.

    Attributes:
        beta: strength of the pull to the reference, per nat of log-ratio.
        epsilon: true probability that a label is turned round.
        margin_clip: largest ``beta * m`` that the loss sees; 0 sets no limit.
    """

    beta: float = 0.1
    epsilon: float = 0.1
    margin_clip: float = 0.0

    needs: ClassVar[Needs] = Needs(reference=True)
    source: ClassVar[str] = "Chowdhury et al. 2024, arXiv 2403.00409, unbiased loss of rDPO"
    ranges: ClassVar[Mapping[str, str]] = {
        "beta": "greater than 0, usually 0.01 to 0.5",
        "epsilon": "0 (DPO) up to but not 0.5, the true probability of a flip",
        "margin_clip": "0 (no limit, the paper) or the largest beta * margin that the loss sees",
    }

    def __post_init__(self) -> None:
        require(self.beta > 0, f"rdpo: beta must be greater than 0, got {self.beta}.")
        require(
            0 <= self.epsilon < 0.5,
            f"rdpo: epsilon must be at least 0 and below 0.5, got {self.epsilon}.",
        )
        require(
            self.margin_clip >= 0, f"rdpo: margin_clip must be 0 or more, got {self.margin_clip}."
        )

    def losses(self, batch: PairLogps, state: Any = None) -> torch.Tensor:
        """The unbiased loss of each pair, shape (B,); may be negative."""
        s = self.beta * logratio_margin(batch)
        if self.margin_clip:
            s = s.clamp(max=self.margin_clip)
        clean, flipped = -F.logsigmoid(s), -F.logsigmoid(-s)
        return ((1.0 - self.epsilon) * clean - self.epsilon * flipped) / (1.0 - 2.0 * self.epsilon)

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """``beta * (logp - ref_logp)``, shape (N,)."""
        return self.beta * (logp - ref_logp)


VARIANT = Rdpo
