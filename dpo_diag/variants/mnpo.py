"""MNPO: the policy plays a weighted mixture of opponents: past policies, or other players.

Claim: with several opponents a policy is less likely to overfit one of them. Time-dependent form:
with opponents ``pi_t, pi_{t-1} ...`` (the latest first; where a run has fewer, the reference stands
in) the margin

    h = Dlog pi - ratio Dlog ref - (1 - ratio) sum_j w_j Dlog opponent_j,   D = chosen - rejected,

is fitted to ``target / eta`` on pairs sampled from the current policy. The paper counts the
reference among the opponents, which is the same with its weight called ``ratio``. With folders in
``online.opponents`` the opponents are other checkpoints; with the recipe's ``[players]`` each of
several policies answers to an oracle of its own (heterogeneous form): no convergence or Nash
guarantee is claimed for that game, by the paper or here.

Worked by hand: eta = 0.5, ratio = 0.5, weights (0.75, 0.25), chosen and rejected at (-1, -4) under
the policy, (-2, -3) under the reference, (-1, -2) and (-1, -4) under the opponents: the mixture's
D is 0.75 * 1 + 0.25 * 3 = 1.5, h = 3 - 0.5 * 1 - 0.5 * 1.5 = 1.75, the target 0.5 / 0.5 = 1, the
squared loss 0.75^2 = 0.5625. As Bernoulli divergence: p = sigmoid(0.5) = 0.62246 against
sigmoid(0.5 * 1.75) = 0.70578 is 0.62246 ln(0.62246 / 0.70578) + 0.37754 ln(0.37754 / 0.29422) =
0.01595.

Special cases (methods with the same loss; the pairs differ): weights (1) and ratio tau/eta is INPO;
ratio 1 is IPO with tau = eta; ratio 1, ``bernoulli_kl`` and target inf is DPO with beta = eta.

Paper and code: theory is about summed log-probs, the default. The authors' code averages over
tokens (``average = true``): the target of 66.7 nats at eta = 0.0075 is then out of reach, the
gradient nearly constant, and the loss a linear push on the margin. In that code ``beta`` enters the
logged rewards only, and the key ``weights`` of its recipes is never read (uniform weights are
taken); here ``history_weights`` is read and must sum to one.

What this code cannot check: that the policy fits the target; whether anything converges in the few
rounds of a run. The statements about an average of policies are not about the last one, which is
what is saved. A policy that no other beats under pooled preferences may serve the majority alone.

Source: MNPO, arXiv 2509.23102 v3, text and the authors' trainer (smiles724/MNPO) as noted in the
dossier. The order of the Bernoulli divergence and its scale are ours: the paper's could not be
checked. Needs: an oracle of preferences, on-policy pairs, opponents, the reference.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from dpo_diag.variants._base import ArrayLike, Needs, PairLogps, Variant, require

DIVERGENCES = ("squared", "bernoulli_kl")


@dataclass(frozen=True)
class Mnpo(Variant):
    """MNPO against past policies of the run, checkpoints, or other players.

    Attributes:
        eta: inverse step size; the target margin is ``target / eta`` nats.
        ratio: share of the reference among the opponents.
        history_weights: of the other opponents, the latest first; empty plays the reference alone.
        average: log-probs are means over tokens, as in the authors' code, instead of sums.
        divergence: ``squared``, or ``bernoulli_kl`` between sigmoids of eta times the margins.
        target: margin to reach in units of ``1 / eta``; 1/2 is the step of mirror descent.
    """

    eta: float = 0.0075
    ratio: float = 1.0 / 3.0
    history_weights: tuple[float, ...] = (0.5, 0.5)
    average: bool = False
    divergence: str = "squared"
    target: float = 0.5

    needs: ClassVar[Needs] = Needs(reference=True, online_pairs=True, history=True)
    plays_folders: ClassVar[bool] = True
    may_be_infinite: ClassVar[tuple[str, ...]] = ("target",)
    source: ClassVar[str] = "MNPO, arXiv 2509.23102 v3; divergence's scale ours, see the module"
    ranges: ClassVar[Mapping[str, str]] = {
        "eta": "greater than 0, usually 0.002 to 0.1",
        "ratio": "above 0, 1 at most; the authors' code has 1/3",
        "history_weights": "each 0 or more, sum 1; empty only with ratio 1",
        "average": "true or false; false is the theory, true the authors' code",
        "divergence": "squared or bernoulli_kl",
        "target": "greater than 0; inf with bernoulli_kl only",
    }

    def __post_init__(self) -> None:
        require(self.eta > 0, f"mnpo: eta must be greater than 0, got {self.eta}.")
        require(
            0 < self.ratio <= 1,
            f"mnpo: ratio must be above 0 and at most 1, got {self.ratio}; without the reference "
            "nothing holds the policy, and its implicit reward would be 0.",
        )
        require(
            self.divergence in DIVERGENCES,
            f"mnpo: divergence must be one of {', '.join(DIVERGENCES)}, got {self.divergence!r}.",
        )
        # a run record gives a list
        object.__setattr__(self, "history_weights", tuple(self.history_weights))
        _check_weights(self.history_weights, self.ratio)
        require(self.target > 0, f"mnpo: target must be greater than 0, got {self.target}.")
        require(
            math.isfinite(self.target) or self.divergence == "bernoulli_kl",
            "mnpo: target inf needs divergence bernoulli_kl; no margin is infinite.",
        )

    @property
    def n_history(self) -> int:
        """As many opponents as there are weights."""
        return len(self.history_weights)

    @property
    def kl_price(self) -> float:
        """``ratio * eta``, which is INPO's tau."""
        return self.ratio * self.eta

    def losses(self, batch: PairLogps, state: Any = None) -> torch.Tensor:
        """Divergence of the margin over the opponents from the target, shape (B,)."""
        margin = self.margin(batch)
        if self.divergence == "squared":
            return (margin - self.target / self.eta) ** 2
        logit = self.eta * margin
        p = 1.0 / (1.0 + math.exp(-self.target))
        # the target's own entropy, so that the minimum is 0; none where the target is certain
        floor = p * math.log(p) + (1.0 - p) * math.log(1.0 - p) if p < 1.0 else 0.0
        return floor - p * F.logsigmoid(logit) - (1.0 - p) * F.logsigmoid(-logit)

    def margin(self, batch: PairLogps) -> torch.Tensor:
        """``h``: the policy's margin over the mixture of its opponents, shape (B,), nats."""
        chosen, rejected = batch.n_tokens_chosen, batch.n_tokens_rejected

        def difference(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            return one / chosen - other / rejected if self.average else one - other

        margin = difference(batch.policy_chosen, batch.policy_rejected)
        margin = margin - self.ratio * difference(batch.ref_chosen, batch.ref_rejected)
        for j, weight in enumerate(self.history_weights):
            past = difference(batch.history_chosen[j], batch.history_rejected[j])
            margin = margin - (1.0 - self.ratio) * weight * past
        return margin

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """``ratio * eta * (logp - ref_logp)``, shape (N,), per token with ``average``.

        With sums it is in units of win probability up to a constant per prompt, for a policy that
        a round leaves where it is, as for ``inpo``.
        """
        logratio = logp - ref_logp
        return self.kl_price * (logratio / n_tokens if self.average else logratio)


def _check_weights(weights: tuple[float, ...], ratio: float) -> None:
    require(
        all(weight >= 0 for weight in weights),
        f"mnpo: history_weights must each be 0 or more, got {list(weights)}.",
    )
    if not weights:
        require(
            ratio == 1,
            f"mnpo: history_weights is empty, which needs ratio 1, got {ratio}; or give weights "
            "that sum to 1.",
        )
        return
    require(
        abs(sum(weights) - 1.0) <= 1e-6,
        f"mnpo: history_weights must sum to 1, got {list(weights)} with sum {sum(weights):g}.",
    )


VARIANT = Mnpo
