"""IPO: a squared loss that asks each pair for one finite margin, ``1 / (2 tau)`` nats.

Claim: DPO's logistic loss pushes the margin of a pair that is always labelled one way to
infinity, whatever ``beta``; a squared distance to a finite margin keeps the pull to the
reference. For preferences drawn with probability p the optimal margin is ``(p - 1/2) / tau``,
linear in p.

Two forms under one name. ``average=False`` is the paper's equation: log-ratios are sums over the
response. ``average=True`` is TRL's ``loss_type="ipo"``: each side's log-ratio is divided by its
own number of tokens; TRL's comment says that the authors confirmed this form. They are different
methods: at equal ``tau`` the averaged one asks for about the response's length times more, so
``tau`` has to be chosen anew, larger by about that factor for the same margin in sums.

What this code cannot check: that a reached margin means a right order. Where the reference
prefers the rejected response by more than ``1 / (2 tau)`` nats, a pair at loss 0 is still ranked
wrongly by the policy (arXiv 2405.19534, proposition A.7).

By hand: log-ratios 2 and -3, tau .1: margin 5, asked for 5, loss 0. At tau .05 the margin asked
for is 10: (5 - 10)^2 = 25. Averaged over 4 and 3 tokens, tau .1: 2/4 - (-3)/3 = 1.5,
(1.5 - 5)^2 = 12.25.

Source: Azar et al. 2023, arXiv 2310.12036, equation 17 (second-hand, as TRL's and the Dr. DPO
code quote it); the averaged form was read in TRL 1.16, ``trl/trainer/dpo_trainer.py``. Needs: the
reference.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from dpo_diag.variants._base import ArrayLike, Needs, PairLogps, Variant, require
from dpo_diag.variants._margins import logratio_margin


@dataclass(frozen=True)
class Ipo(Variant):
    """IPO on summed response log-probs, or on TRL's averages over tokens.

    Attributes:
        tau: strength of the pull to the reference; the margin asked for is ``1 / (2 tau)``.
        average: divide each log-ratio by its number of tokens, as TRL does.
    """

    tau: float = 0.1
    average: bool = False

    needs: ClassVar[Needs] = Needs(reference=True)
    source: ClassVar[str] = "Azar et al. 2023, arXiv 2310.12036, equation 17"
    ranges: ClassVar[Mapping[str, str]] = {
        "tau": "greater than 0; the margin asked for is 1 / (2 tau) nats, of the whole response "
        "or, with average, per token",
        "average": "false (the paper: sums over tokens) or true (TRL: means over tokens)",
    }

    def __post_init__(self) -> None:
        require(self.tau > 0, f"ipo: tau must be greater than 0, got {self.tau}.")

    def losses(self, batch: PairLogps, state: Any = None) -> torch.Tensor:
        """``(m - 1 / (2 tau))^2`` of each pair, shape (B,), nats squared."""
        if self.average:
            chosen = (batch.policy_chosen - batch.ref_chosen) / batch.n_tokens_chosen
            rejected = (batch.policy_rejected - batch.ref_rejected) / batch.n_tokens_rejected
            margin = chosen - rejected
        else:
            margin = logratio_margin(batch)
        return (margin - 1.0 / (2.0 * self.tau)) ** 2

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """``tau * (logp - ref_logp)``, per token with ``average``, shape (N,).

        A difference of 1/2 between two responses is the margin asked for.
        """
        reward = self.tau * (logp - ref_logp)
        return reward / n_tokens if self.average else reward


VARIANT = Ipo
