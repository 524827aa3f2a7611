"""INPO: self-play in which each round regresses the policy onto one step of mirror descent.

Claim: where preferences are no ranking (they may be cyclic), the thing to ask for is a policy that
no other beats. In the game of two players with value

    J(p, q) = E[P(y > y')] - tau KL(p || ref) + tau KL(q || ref)

the mirror-descent step from the policy ``pi_t`` of round t has ``log pi(y) = (tau/eta) log ref(y) +
(1 - tau/eta) log pi_t(y) + P(y > pi_t) / eta + const``, and the loss

    (Dlog pi - (tau/eta) Dlog ref - (1 - tau/eta) Dlog pi_t - 1/(2 eta))^2,   D = chosen - rejected,

has that step as its minimum without an estimate of any win rate, if the pairs are drawn from
``pi_t`` itself and each is labelled by a draw from the oracle (``online.pairing = "sampled"``).
The authors' experiments took the best and the worst of 8 answers (``"best_worst"``, the default
here), for which that statement is not proved.

Worked by hand: eta = 0.5, tau = 0.25, chosen and rejected at (-1, -4) under the policy, (-2, -3)
under the reference and (-2, -2.5) under ``pi_t``: h = 3 - 0.5 * 1 - 0.5 * 0.5 = 2.25, the target is
1 / (2 * 0.5) = 1, the loss 1.25^2 = 1.5625.

What this code cannot check: that the policy can represent the step and that the loss was minimised;
without both the theory says nothing. Convergence is in the number of rounds, and a run has few.
The loss grows again beyond its target: a margin can be too large.

Source: INPO, arXiv 2407.00617 (ICLR 2025), read through a summary and the table of MNPO, arXiv
2509.23102, only. That table prints the target as 1/(2 tau); the summary, and the update above,
give 1/(2 eta), which is used. Needs: an oracle of preferences, on-policy pairs, the reference.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from dpo_diag.variants._base import ArrayLike, Needs, PairLogps, Variant, require


@dataclass(frozen=True)
class Inpo(Variant):
    """INPO on summed log-probs, against the policy that drew the samples.

    Attributes:
        eta: inverse step size; the target margin is ``1 / (2 eta)`` nats.
        tau: price of a nat of divergence from the reference, in win probability.
    """

    eta: float = 0.0075
    tau: float = 0.0025

    needs: ClassVar[Needs] = Needs(reference=True, online_pairs=True, history=True)
    source: ClassVar[str] = "INPO, arXiv 2407.00617; read second-hand, see the module"
    ranges: ClassVar[Mapping[str, str]] = {
        "eta": "greater than 0, usually 0.002 to 0.1",
        "tau": "greater than 0, eta at most; the authors took eta / 3",
    }

    def __post_init__(self) -> None:
        require(self.eta > 0, f"inpo: eta must be greater than 0, got {self.eta}.")
        require(
            0 < self.tau <= self.eta,
            f"inpo: tau must be above 0 and at most eta ({self.eta}), got {self.tau}.",
        )

    @property
    def n_history(self) -> int:
        """One opponent: the policy that drew the samples."""
        return 1

    @property
    def kl_price(self) -> float:
        """``tau``."""
        return self.tau

    def losses(self, batch: PairLogps, state: Any = None) -> torch.Tensor:
        """Squared distance of the margin over both opponents from ``1 / (2 eta)``, shape (B,)."""
        share = self.tau / self.eta
        policy = batch.policy_chosen - batch.policy_rejected
        ref = batch.ref_chosen - batch.ref_rejected
        past = batch.history_chosen[0] - batch.history_rejected[0]
        margin = policy - share * ref - (1.0 - share) * past
        return (margin - 1.0 / (2.0 * self.eta)) ** 2

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """``tau * (logp - ref_logp)``, shape (N,), win probability up to a constant per prompt.

        A policy that the step leaves where it is (``pi = pi_t``) has this equal to
        ``P(y > pi) + const``. A policy on its way does not: read it as what the policy implies.
        """
        return self.tau * (logp - ref_logp)


VARIANT = Inpo
