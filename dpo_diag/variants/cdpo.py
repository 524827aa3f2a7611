"""Conservative DPO: DPO with smoothed labels, each taken to be wrong with probability ``epsilon``.

Claim: with a share ``epsilon`` of labels believed wrong, the loss is a mean of DPO's on the pair
and on the pair turned round, so that the margin of a pair that is always labelled one way stays
finite: ``beta * m = logit(1 - epsilon)``. It is a regulariser, not a correction: under real flips
of rate ``epsilon`` its expectation is *not* the clean loss (``rdpo`` is the one that corrects).

What this code cannot check: that ``epsilon`` is anything like the share of wrong labels. Beware
of TRL's ``sigmoid`` loss, which ignores ``label_smoothing``.

By hand: margin 5, beta .1, epsilon .1: .9 * .474077 + .1 * .974077 = .524077, since
-log sigmoid(.5) = .474077 and -log sigmoid(-.5) = .974077.

Source: Mitchell 2023, note "cDPO", equation 3, on the loss of arXiv 2305.18290 (second-hand; the
form was read in ``junkangwu/Dr_DPO``, ``trainers.py``). Needs: the reference.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from dpo_diag.variants._base import ArrayLike, Needs, PairLogps, Variant, require
from dpo_diag.variants._margins import logratio_margin


@dataclass(frozen=True)
class Cdpo(Variant):
    """Conservative DPO on summed response log-probs.

    Attributes:
        beta: strength of the pull to the reference, per nat of log-ratio.
        epsilon: share of labels taken to be wrong.
    """

    beta: float = 0.1
    epsilon: float = 0.1

    needs: ClassVar[Needs] = Needs(reference=True)
    source: ClassVar[str] = "Mitchell 2023, note on cDPO, equation 3, after arXiv 2305.18290"
    ranges: ClassVar[Mapping[str, str]] = {
        "beta": "greater than 0, usually 0.01 to 0.5",
        "epsilon": "0 (DPO) up to but not 0.5, the share of labels taken to be wrong",
    }

    def __post_init__(self) -> None:
        require(self.beta > 0, f"cdpo: beta must be greater than 0, got {self.beta}.")
        require(
            0 <= self.epsilon < 0.5,
            f"cdpo: epsilon must be at least 0 and below 0.5, got {self.epsilon}.",
        )

    def losses(self, batch: PairLogps, state: Any = None) -> torch.Tensor:
        """``-(1 - epsilon) log sigmoid(s) - epsilon log sigmoid(-s)``, ``s = beta m``, (B,)."""
        s = self.beta * logratio_margin(batch)
        return -(1.0 - self.epsilon) * F.logsigmoid(s) - self.epsilon * F.logsigmoid(-s)

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """``beta * (logp - ref_logp)``, shape (N,)."""
        return self.beta * (logp - ref_logp)


VARIANT = Cdpo
