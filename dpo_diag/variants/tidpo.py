"""TI-DPO: DPO whose tokens count unequally, and a pull of the chosen answer to a sampled one.

Claim: DPO gives every token the same say, so noise in unimportant tokens drives the update.
Weighting a token's log-ratio by how strongly its embedding moves the model's most confident next
logit, blended with a bump in the middle of the answer, spends the update on the tokens that
matter; a triplet term draws a sampled answer's token log-ratios to the chosen answer's and away
from the rejected one's. For one answer of T tokens, t from 0:

    I_t = || d max_v L[v] / d e_t ||_1          L: logits at the last input, e_t: input embedding
    P_t = exp(-((t - (T-1)/2) / s)^2 / 2)       s = prior_width * T
    w   = lam * I / sum(I) + (1 - lam) * P      normalised, no gradient, each answer by itself
    loss = -log sigmoid(beta * (sum w_c l_c - sum w_r l_r))
           + gamma * [sum (d - b)^2 - sum (c - d)^2 + margin]+

``l`` are token log-ratios of policy to reference, and ``b, c, d`` those of the chosen, the
rejected and the sampled answer.

By hand: a chosen answer with l = (1, -.2) and I = (3, 1), a rejected one with l = (.2, -.4) and
I = (1, 1). Of two tokens both have the same P, so the chosen's mix is .7 (.75, .25) + .3 (.5, .5)
= (.675, .325), times two tokens (1.35, .65); the rejected's weights are 1. The margin is
1.22 + .2 = 1.42, the first term log(1 + exp(-.142)) = .62466. A sampled answer of one token with
d = .5 is compared as (.5, 0): .29 - .25 + .01 = .05, the loss with gamma .1 is .62966.

Where the paper speaks of a whole sequence we take the answer: only its tokens have log-ratios, so
t counts, and I is normalised over, the answer's tokens. The last answer token is predicted but
never an input; its I is 0, and its weight is what the prior gives it. The paper's sums and shapes:

- ``normalise``. Read literally, I sums to 1 while P peaks at 1, so the prior drowns the
  attribution (``literal``). The authors' code, as far as a copy of it was read, brings P to the
  sum 1, mixes, and multiplies by T: the mean weight is 1 (``mean_one``, the default, against our
  rule that the paper's form is the default: the literal form is not the method described). The
  case studies' tables show weights up to 1; how they were scaled is not said, and ``max_one``
  divides the mix by its largest.
- ``prior_width`` is the paper's 1/4; the copy of the code has 1/8.
- The triplet term compares by position in the answer; the shorter answer is filled up with zeros,
  as the copy of the code does and the paper does not say.
- ``beta`` stands inside the sigmoid as in the paper's algorithm 1; its equation 12 drops it.
- The paper's table of settings lists a "TDPO KL weight" and the code is built on the TDPO2 loss,
  whose per-position KL term the paper's loss (its equation 14) does not have. It is not offered
  here: it needs the reference's whole distribution at every position of every pass.
- The paper samples in every step, we once per ``anchor_every`` steps for all pairs of those
  steps. The copy of the code samples 64 tokens at temperature 0.8 and top-p 0.95 (and top-k 50,
  not offered); our default is the policy itself.

What this code cannot check: that the weights mean importance for the preference. The target is the
largest logit at the end of the answer, whatever was preferred; treat maps of them as heuristics.
The variance claim assumes weights of unimportant tokens below 1, which mean 1 gives on average
only. ``rewards`` is DPO's: analyses see sums over answers, not tokens and gradients.

Source: arXiv 2505.19653 (version 3, read with its appendix), equations 5 to 14 and algorithm 1;
the authors' repository was not read, a copy and a derivative were. Learning rate, batch size and
the triplet's margin are not given in the paper; the margin here is that of the copy's run script.
Needs: the reference, token log-probs, attributions, sampled anchors.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from dpo_diag.variants._base import ArrayLike, Needs, PairLogps, Variant, require

NORMALISATIONS = ("mean_one", "literal", "max_one")


@dataclass(frozen=True)
class TiDpo(Variant):
    """TI-DPO with attribution weights and a triplet term on a sampled anchor.

    Attributes:
        beta: strength of the pull to the reference, per nat of weighted log-ratio.
        gamma: weight of the triplet term; 0 leaves it out, and then nothing is sampled.
        lam: share of the attribution in the weights, the rest is the position prior's.
        margin: of the triplet term, in squared nats; the paper's alpha.
        normalise: ``mean_one``, ``literal`` or ``max_one``.
        prior_width: standard deviation of the position prior as a share of the answer's length.
        anchor_every: steps between two samplings of anchors.
        anchor_tokens: longest anchor.
        anchor_temperature, anchor_top_p: how anchors are sampled; 1 and 1 is the policy itself.
    """

    beta: float = 0.1
    gamma: float = 0.1
    lam: float = 0.7
    margin: float = 0.01
    normalise: str = "mean_one"
    prior_width: float = 0.25
    anchor_every: int = 16
    anchor_tokens: int = 64
    anchor_temperature: float = 1.0
    anchor_top_p: float = 1.0

    needs: ClassVar[Needs] = Needs(reference=True, token_logps=True, attribution=True, anchors=True)
    source: ClassVar[str] = "TI-DPO, arXiv 2505.19653 (v3), equations 5 to 14 and algorithm 1"
    ranges: ClassVar[Mapping[str, str]] = {
        "beta": "greater than 0, usually 0.01 to 0.5",
        "gamma": "0 or more; the paper's 0.1",
        "lam": "0 to 1; the paper's 0.7, said to be stable from 0.3",
        "margin": "0 or more, squared nats",
        "normalise": "mean_one, literal or max_one",
        "prior_width": "greater than 0; the paper's 0.25, its code's 0.125",
        "anchor_every": "1 or more steps; 1 is the paper's",
        "anchor_tokens": "1 or more",
        "anchor_temperature": "greater than 0; the code's 0.8",
        "anchor_top_p": "above 0, up to 1; the code's 0.95",
    }
    exceptions: ClassVar[Mapping[str, str]] = {
        "direction": "the triplet term draws token log-ratios to the anchor's, from either side",
    }

    def __post_init__(self) -> None:
        for name in ("beta", "prior_width", "anchor_temperature"):
            value = getattr(self, name)
            is_good = math.isfinite(value) and value > 0
            require(is_good, f"tidpo: {name} must be greater than 0, got {value}.")
        for name in ("gamma", "margin"):
            value = getattr(self, name)
            is_good = math.isfinite(value) and value >= 0
            require(is_good, f"tidpo: {name} must be 0 or more, got {value}.")
        for name in ("anchor_every", "anchor_tokens"):
            value = getattr(self, name)
            require(value >= 1, f"tidpo: {name} must be 1 or more, got {value}.")
        require(0 <= self.lam <= 1, f"tidpo: lam must be from 0 to 1, got {self.lam}.")
        require(
            self.normalise in NORMALISATIONS,
            f"tidpo: normalise must be {', '.join(NORMALISATIONS)}, got {self.normalise!r}.",
        )
        require(
            0 < self.anchor_top_p <= 1,
            f"tidpo: anchor_top_p must be above 0 and at most 1, got {self.anchor_top_p}.",
        )

    @property
    def wants_anchors(self) -> bool:
        """Whether the loss reads sampled answers at all."""
        return self.gamma > 0

    def losses(self, batch: PairLogps, state: Any = None) -> torch.Tensor:
        """Weighted DPO plus ``gamma`` times the triplet term, shape (B,)."""
        chosen = batch.token_logps_chosen - batch.ref_token_logps_chosen  # (B, T)
        rejected = batch.token_logps_rejected - batch.ref_token_logps_rejected
        on_chosen = self.token_weights(batch.attribution_chosen, batch.mask_chosen)
        on_rejected = self.token_weights(batch.attribution_rejected, batch.mask_rejected)
        margin = (on_chosen.to(chosen) * chosen).sum(1) - (on_rejected.to(chosen) * rejected).sum(1)
        losses = -F.logsigmoid(self.beta * margin)
        if not self.wants_anchors:
            return losses
        anchor = batch.anchor_token_logps - batch.ref_anchor_token_logps
        return losses + self.gamma * self.triplet(chosen, rejected, anchor)

    @torch.no_grad()
    def token_weights(self, attribution: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """How much each token of an answer counts, (B, T), 0 on padding, no gradient.

        Args:
            attribution: (B, T), 0 or more. An answer whose attributions are all 0 (one token, say)
                takes them for equal.
            mask: (B, T) bool, true on tokens, at least one per row.
        """
        n = mask.sum(1, keepdim=True).to(attribution.dtype)  # (B, 1)
        counted = attribution * mask
        total = counted.sum(1, keepdim=True)
        importance = torch.where(total > 0, counted / total, mask / n)
        places = torch.arange(mask.shape[1], device=mask.device, dtype=attribution.dtype)
        prior = torch.exp(-(((places - (n - 1) / 2) / (self.prior_width * n)) ** 2) / 2) * mask
        if self.normalise == "literal":
            return self.lam * importance + (1 - self.lam) * prior
        prior = prior / prior.sum(1, keepdim=True)
        mixed = self.lam * importance + (1 - self.lam) * prior  # sums to 1
        if self.normalise == "max_one":
            return mixed / mixed.amax(1, keepdim=True)
        return mixed / mixed.sum(1, keepdim=True) * n

    def triplet(
        self, chosen: torch.Tensor, rejected: torch.Tensor, anchor: torch.Tensor
    ) -> torch.Tensor:
        """``[sum (d - b)^2 - sum (c - d)^2 + margin]+`` of each pair, (B,), squared nats.

        Args:
            chosen: (B, T) token log-ratios, 0 on padding.
            rejected: (B, T) likewise.
            anchor: (B, T') likewise; the narrower is filled up with zeros.
        """
        width = max(chosen.shape[1], rejected.shape[1], anchor.shape[1])
        near, far, middle = (
            F.pad(side, (0, width - side.shape[1])) for side in (chosen, rejected, anchor)
        )
        pulled = ((middle - near) ** 2).sum(1) - ((far - middle) ** 2).sum(1)
        return (pulled + self.margin).clamp(min=0.0)

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """``beta * (logp - ref_logp)``, shape (N,): every token counts once, see the module."""
        return self.beta * (logp - ref_logp)


VARIANT = TiDpo
