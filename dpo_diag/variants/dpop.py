"""DPO-Positive: DPO with a penalty, inside the sigmoid, where the chosen response loses mass.

Claim: on pairs that differ in a few tokens DPO lowers the log-prob of both responses, as long as
the rejected falls faster; subtracting ``lam * max(0, -lr(chosen))`` from the margin makes such a
fall cost more than the margin can gain, so the chosen response keeps the mass that the reference
gave it. The loss is never below DPO's and equals it where the chosen response has not fallen.

The penalty is *inside* the sigmoid. A public port subtracts it from the loss outside, which
rewards the fall; another adds it outside, which is a different method. What this code cannot
check: that the chosen response deserved its mass. Where the better answer is the one that is
not in the pair, the penalty holds on to both.

By hand: log-ratios -2 and -3, beta .3, lam 5: -log sigmoid(.3 * (-2 + 3 - 5 * 2)) =
log(1 + exp(2.7)) = 2.765; DPO's loss is log(1 + exp(-.3)) = .554.

Source: Pal et al. 2024, arXiv 2402.13228 (second-hand, and two third-party ports; the authors'
repository holds no code). Needs: the reference.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from dpo_diag.variants._base import ArrayLike, Needs, PairLogps, Variant, require
from dpo_diag.variants._margins import logratio_margin


@dataclass(frozen=True)
class Dpop(Variant):
    """DPO-Positive on summed response log-probs.

    Attributes:
        beta: strength of the pull to the reference, per nat of log-ratio.
        lam: margin taken away per nat that the chosen response has lost.
    """

    beta: float = 0.3
    lam: float = 50.0

    needs: ClassVar[Needs] = Needs(reference=True)
    source: ClassVar[str] = "Pal et al. 2024, arXiv 2402.13228, loss of DPO-Positive"
    ranges: ClassVar[Mapping[str, str]] = {
        "beta": "greater than 0, usually 0.01 to 0.5; the paper uses 0.3",
        "lam": "0 (DPO) or more; the paper uses 50 and finds 5 to 500 alike",
    }

    def __post_init__(self) -> None:
        require(self.beta > 0, f"dpop: beta must be greater than 0, got {self.beta}.")
        require(self.lam >= 0, f"dpop: lam must be 0 or more, got {self.lam}.")

    def losses(self, batch: PairLogps, state: Any = None) -> torch.Tensor:
        """``-log sigmoid(beta * (m - lam * max(0, -lr(chosen))))`` of each pair, shape (B,)."""
        fall = F.relu(batch.ref_chosen - batch.policy_chosen)
        return -F.logsigmoid(self.beta * (logratio_margin(batch) - self.lam * fall))

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """``beta * (logp - ref_logp)``, shape (N,); the penalty is a training device only."""
        return self.beta * (logp - ref_logp)


VARIANT = Dpop
