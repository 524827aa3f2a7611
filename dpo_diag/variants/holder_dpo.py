"""Hölder-DPO: a bounded loss that forgets very wrong pairs, and an estimate of how many there are.

Claim: with ``p = sigmoid(beta m)`` and ``g > 0`` the loss is ``-(1 + g) p^g + g p^(1 + g)``. Its
gradient in ``beta m``, ``-g (1 + g) p^g (1 - p)^2``, vanishes as the margin goes to minus infinity
("redescending"), so mislabelled pairs stop pulling once the model disagrees with them; the paper
shows that DPO, cDPO, rDPO and Dr. DPO lack this. From the same p comes an estimate of the share
of labels that are right, and one minus it is logged as ``mislabelled_share``.

What this code cannot check: that a very wrong pair is mislabelled rather than hard. The loss is
not a proper score: at g = 2, ``l(s) + l(-s) = -1``, so for labels drawn from a Bradley-Terry model
the optimum is always full certainty of the majority's order, however narrow the majority.
At the reference p is 1/2 everywhere: the gradient weight is 3/8 at g = 2 (DPO's is 1/2), and the
estimate is 0. It says something only once the policy tells pairs apart.

By hand, g = 2 and beta m = 0: -3/4 + 2/8 = -1/2. The estimate for p = 1, 1, 1, 0: mean p = 3/4,
sum p^2 / sum p^3 = 1, so 1 - 3/4 = 1/4 of the labels look wrong.

Source: Fujisawa et al. 2025, arXiv 2505.17859 (abstract read; the loss is that of the README of
``ma921/HolderDPO``; the estimator is second-hand and partly from memory). Needs: the reference.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from dpo_diag.variants._base import (
    ArrayLike,
    Needs,
    PairLogps,
    TrainingFacts,
    Variant,
    require,
)
from dpo_diag.variants._margins import logratio_margin

# a mean over about ten steps; one batch alone is too small to estimate a share from
_DECAY = 0.9


def mislabelled_share(margins: torch.Tensor, g: float = 2.0) -> float:
    """Estimate of the share of labels that are wrong, ``1 - mean(p) * sum p^g / sum p^(1 + g)``.

    With p = 1 on right labels and 0 on wrong ones it is the share of wrong ones. It cannot tell a
    wrong label from a right one that the policy gets wrong, and it is 0 for equal p, whatever
    their value: a policy that tells nothing apart sees no noise.

    Args:
        margins: (n,) ``beta * m``, chosen minus rejected.
        g: the loss's shape, greater than 0.

    Returns:
        A share in [0, 1]; NaN without pairs.

    Source: arXiv 2505.17859, second-hand and partly from memory.
    """
    if not len(margins):
        return float("nan")
    return _share(_powers(margins, g))


def _powers(margins: torch.Tensor, g: float) -> tuple[float, float, float]:
    """Means of ``p``, ``p^g`` and ``p^(1 + g)``."""
    p = torch.sigmoid(margins.detach().double())
    return float(p.mean()), float((p**g).mean()), float((p ** (1.0 + g)).mean())


def _share(powers: tuple[float, float, float]) -> float:
    first, low, high = powers
    # high is 0 only where every p is: all labels look wrong. Rounding may leave [0, 1].
    right = first * low / high if high > 0 else 0.0
    return min(1.0, max(0.0, 1.0 - right))


@dataclass(frozen=True)
class HolderDpo(Variant):
    """Hölder-DPO on summed response log-probs.

    Attributes:
        beta: strength of the pull to the reference, per nat of log-ratio.
        g: shape of the divergence, the paper's gamma; larger forgets sooner.
    """

    beta: float = 0.1
    g: float = 2.0

    needs: ClassVar[Needs] = Needs(reference=True)
    source: ClassVar[str] = "Fujisawa et al. 2025, arXiv 2505.17859, Hölder-DPO loss"
    ranges: ClassVar[Mapping[str, str]] = {
        "beta": "greater than 0, usually 0.01 to 0.5",
        "g": "greater than 0, the paper's gamma; 2 is its default",
    }

    def __post_init__(self) -> None:
        require(self.beta > 0, f"holder_dpo: beta must be greater than 0, got {self.beta}.")
        require(self.g > 0, f"holder_dpo: g must be greater than 0, got {self.g}.")

    def losses(self, batch: PairLogps, state: Any = None) -> torch.Tensor:
        """``-(1 + g) p^g + g p^(1 + g)``, ``p = sigmoid(beta m)``, shape (B,), from -1 to 0."""
        # by the logarithm: p^g with g < 1 has an infinite derivative where p underflows
        log_p = F.logsigmoid(self.beta * logratio_margin(batch))
        return -(1.0 + self.g) * (self.g * log_p).exp() + self.g * ((1.0 + self.g) * log_p).exp()

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """``beta * (logp - ref_logp)``, shape (N,)."""
        return self.beta * (logp - ref_logp)

    def init_state(self, facts: TrainingFacts) -> dict[str, float]:
        """Running sums of the powers of p; ``weight`` is how much they hold."""
        return {"weight": 0.0, "p": 0.0, "p_g": 0.0, "p_1_g": 0.0}

    def update_state(self, batch: PairLogps, state: Any) -> dict[str, float]:
        """The powers of the step's pairs taken into the running means."""
        powers = _powers(self.beta * logratio_margin(batch), self.g)
        new = dict(zip(("weight", "p", "p_g", "p_1_g"), (1.0, *powers), strict=True))
        return {key: _DECAY * state[key] + (1.0 - _DECAY) * value for key, value in new.items()}

    def metrics(self, state: Any) -> dict[str, float]:
        """``mislabelled_share`` of about the last ten steps."""
        if not state["weight"]:
            return {}
        p, low, high = (state[key] / state["weight"] for key in ("p", "p_g", "p_1_g"))
        return {"mislabelled_share": _share((p, low, high))}


VARIANT = HolderDpo
