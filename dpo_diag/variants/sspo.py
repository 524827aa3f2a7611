"""SSPO: few labelled pairs, and many unpaired answers that a reward threshold labels.

Claim: the labelled pairs pull apart the rewards of winners and losers; a threshold between them
tells which unpaired answers are good enough to count as winners, and learning from those too makes
up for labels. The reward needs no reference: ``r = (beta / |y|) log policy(y|x)``.

    labelled    R_L = -log sigmoid(r_w - r_l - margin)
    threshold   d = argmin P1 F_w(d) + (1 - P1)(1 - F_l(d)),  s = 1 where r_u > d, else 0
    unlabelled  R_U = mean of P(s) * -log sigmoid((2s - 1)(r_u - d))
    together    g R_L + (1 - g) R_U,  g = max(g_min, g_init exp(-decay * step))

F_w and F_l are Gaussian kernel estimates over the batch's winners and losers; P1 is the prior that
an unpaired answer is a winner, P(1) = P1 and P(0) = 1 - P1. d is smoothed over the steps.

The code that goes with the paper, as far as read, has no kernel estimate: its threshold is the
least normalised chosen log-prob of the batch, which calls nearly everything a winner once those
spread (``threshold="min_chosen"``; watch ``pseudo_winner_rate``). Its running z-scores of the
log-probs are not copied, nor the gradient that it lets through the threshold: here d is held
fixed. Ours, since no source gives them: the bandwidth, each side's own by Silverman's rule
(``bandwidth`` sets one for both); d is sought between the least and the greatest reward of the
batch, because winners that do not score above losers would send it to infinity.

What this code cannot check: that the unpaired answers have winners and losers in the share P1, and
that rewards of other prompts are comparable, which implicit rewards are not in general.

By hand: one winner at reward 1, one loser at 0, bandwidth .5, P1 = .6: the densities balance where
.6 exp(-(d-1)^2 / .5) = .4 exp(-d^2 / .5), so d = .5 - .25 log(.6/.4) = .398634. An unpaired answer
at reward .9 is a winner and costs .6 * -log sigmoid(.501366) = .6 * .473561 = .284137.

Source: SSPO, arXiv 2511.00040 (second-hand; a trainer that goes with it was read). Needs: answers
without preferences; no reference.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from dpo_diag.errors import DataError
from dpo_diag.variants._base import (
    ArrayLike,
    Needs,
    PairLogps,
    TrainingFacts,
    Variant,
    require,
)

_THRESHOLDS = ("kde", "min_chosen")
_N_GRID = 257  # points per pass; two passes place d to 3e-5 of the rewards' range


@dataclass(frozen=True)
class Sspo(Variant):
    """SSPO on length-normalised log-probs.

    Attributes:
        beta: reward units per nat of mean log-prob.
        margin: reward that a winner should have above its loser.
        prior: P1, share of winners among the unpaired answers.
        threshold: ``kde`` (the paper) or ``min_chosen`` (the code).
        bandwidth: of the kernels, reward units; 0 takes Silverman's rule on each side.
        smoothing: share of the former threshold kept at each step.
        g_init: weight of the labelled loss at the first step.
        g_min: its least weight; 0 takes n_L / (n_L + n_U), labelled pairs and unpaired answers.
        decay: of g, per optimiser step.
        unlabelled_per_batch: unpaired answers in each batch.
    """

    beta: float = 10.0
    margin: float = 2.0
    prior: float = 0.5
    threshold: str = "kde"
    bandwidth: float = 0.0
    smoothing: float = 0.95
    g_init: float = 1.0
    g_min: float = 0.0
    decay: float = 0.001
    unlabelled_per_batch: int = 32

    needs: ClassVar[Needs] = Needs(reference=False, unlabelled=True, couples_batch=True)
    source: ClassVar[str] = "SSPO, arXiv 2511.00040, losses R_L and R_U; threshold also as in code"
    ranges: ClassVar[Mapping[str, str]] = {
        "beta": "greater than 0; the authors' scripts have 10 and 2",
        "margin": "0 or more, in reward units; the authors' scripts have 2",
        "prior": "between 0 and 1, exclusive; the paper uses 0.5",
        "threshold": "kde (the paper) or min_chosen (the code)",
        "bandwidth": "0 (Silverman's rule) or the kernels' width in reward units",
        "smoothing": "0 (none) up to but not 1; the paper uses 0.95",
        "g_init": "greater than 0, up to 1; the paper uses 1",
        "g_min": "0 (the share of labelled pairs, the paper) or up to g_init",
        "decay": "0 or more, per step; the paper uses 0.001",
        "unlabelled_per_batch": "1 or more",
    }

    def __post_init__(self) -> None:
        for name in ("beta", "g_init"):
            value = getattr(self, name)
            require(value > 0, f"sspo: {name} must be greater than 0, got {value}.")
        for name in ("margin", "bandwidth", "g_min", "decay"):
            value = getattr(self, name)
            require(value >= 0, f"sspo: {name} must be 0 or more, got {value}.")
        require(self.g_init <= 1, f"sspo: g_init must be 1 or less, got {self.g_init}.")
        require(
            self.g_min <= self.g_init,
            f"sspo: g_min is {self.g_min}, above g_init {self.g_init}, where g begins to fall.",
        )
        require(
            0 < self.prior < 1, f"sspo: prior must be between 0 and 1, exclusive, got {self.prior}."
        )
        require(
            self.threshold in _THRESHOLDS,
            f"sspo: threshold must be one of {', '.join(_THRESHOLDS)}, got {self.threshold!r}.",
        )
        require(
            0 <= self.smoothing < 1,
            f"sspo: smoothing must be at least 0 and below 1, got {self.smoothing}.",
        )
        require(
            self.unlabelled_per_batch >= 1,
            f"sspo: unlabelled_per_batch must be 1 or more, got {self.unlabelled_per_batch}.",
        )

    def losses(self, batch: PairLogps, state: Any = None) -> torch.Tensor:
        """``g * -log sigmoid(r_w - r_l - margin)`` of each pair, shape (B,).

        Held-out pairs count fully: a loss that g shrinks from step to step compares with nothing.
        """
        chosen, rejected = self._pair_rewards(batch)
        weight = self.g_init if state is None else state["labelled_weight"]
        weights = torch.where(batch.pair_index < 0, 1.0, weight).to(chosen.dtype)
        return -weights * F.logsigmoid(chosen - rejected - self.margin)

    def penalty(self, batch: PairLogps, state: Any) -> torch.Tensor:
        """``(1 - g) * R_U``, a scalar, the threshold held fixed.

        Raises:
            DataError: the batch has no answers without preferences.
        """
        reward = self._unlabelled_rewards(batch)
        threshold = self._smoothed(batch, state)
        is_winner = reward.detach() > threshold
        share = torch.where(is_winner, self.prior, 1.0 - self.prior)
        sign = torch.where(is_winner, 1.0, -1.0)
        terms = -share * F.logsigmoid(sign * (reward - threshold))
        return (1.0 - state["labelled_weight"]) * terms.mean()

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """``beta * logp / n_tokens``, shape (N,): no reference in it."""
        return self.beta * logp / n_tokens

    def init_state(self, facts: TrainingFacts) -> dict[str, float]:
        """The step, the labelled loss's weight g and its least value; no threshold yet (NaN)."""
        least = self.g_min or facts.n_pairs / (facts.n_pairs + facts.n_unlabelled)
        return {
            "step": 0,
            "least_weight": least,
            "labelled_weight": max(least, self.g_init),
            "threshold": math.nan,
            "pseudo_winner_rate": math.nan,
        }

    def update_state(self, batch: PairLogps, state: Any) -> dict[str, float]:
        """The next step's g, the smoothed threshold, and the pseudo-winners of this step."""
        threshold, step = self._smoothed(batch, state), state["step"] + 1
        is_winner = self._unlabelled_rewards(batch) > threshold
        return {
            **state,
            "step": step,
            "labelled_weight": max(
                state["least_weight"], self.g_init * math.exp(-self.decay * step)
            ),
            "threshold": threshold,
            "pseudo_winner_rate": float(is_winner.float().mean()),
        }

    def metrics(self, state: Any) -> dict[str, float]:
        """g, the threshold (reward units) and the share of pseudo-winners of the last step."""
        keys = ("labelled_weight", "threshold", "pseudo_winner_rate")
        return {key: state[key] for key in keys if not math.isnan(state[key])}

    def _pair_rewards(self, batch: PairLogps) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = self.beta * batch.policy_chosen / batch.n_tokens_chosen
        return chosen, self.beta * batch.policy_rejected / batch.n_tokens_rejected

    def _unlabelled_rewards(self, batch: PairLogps) -> torch.Tensor:
        if batch.unlabelled_policy is None or batch.unlabelled_n_tokens is None:
            raise DataError("sspo needs answers without preferences in the batch: --unlabelled.")
        return self.beta * batch.unlabelled_policy / batch.unlabelled_n_tokens

    def _smoothed(self, batch: PairLogps, state: Any) -> float:
        """The batch's threshold averaged into the former ones."""
        with torch.no_grad():
            winners, losers = self._pair_rewards(batch)
            if self.threshold == "kde":
                now = kde_threshold(winners, losers, prior=self.prior, bandwidth=self.bandwidth)
            else:
                now = float(winners.min())
        before = state["threshold"]
        kept = 0.0 if math.isnan(before) else self.smoothing
        return now if kept == 0.0 else kept * before + (1.0 - kept) * now


def kde_threshold(
    winners: torch.Tensor, losers: torch.Tensor, *, prior: float, bandwidth: float = 0.0
) -> float:
    """Where ``prior * F_w(d) + (1 - prior) * (1 - F_l(d))`` is least, between least and greatest.

    Args:
        winners: (B,) rewards of the chosen answers, B at least 1.
        losers: (B,) of the rejected.
        prior: weight of the winners' error, in (0, 1).
        bandwidth: of both kernels; 0 takes Silverman's rule on each side.
    """
    sides = [values.double() for values in (winners, losers)]
    everything = torch.cat(sides)
    low, high = float(everything.min()), float(everything.max())
    if high <= low:
        return low
    widths = [bandwidth or silverman(side, floor=0.01 * (high - low)) for side in sides]

    def risk(points: torch.Tensor) -> torch.Tensor:
        shares = [
            torch.special.ndtr((points[:, None] - side) / width).mean(1)
            for side, width in zip(sides, widths, strict=True)
        ]
        return prior * shares[0] + (1.0 - prior) * (1.0 - shares[1])

    step = (high - low) / (_N_GRID - 1)
    grid = torch.linspace(low, high, _N_GRID, dtype=torch.float64, device=everything.device)
    best = float(grid[risk(grid).argmin()])
    fine = torch.linspace(-step, step, _N_GRID, dtype=torch.float64, device=everything.device)
    near = (best + fine).clamp(low, high)
    return float(near[risk(near).argmin()])


def silverman(values: torch.Tensor, *, floor: float) -> float:
    """``.9 min(s, IQR / 1.34) n^(-1/5)``, at least ``floor``: kernels must have some width.

    Args:
        values: (n,); s is 0 for n = 1, and an IQR of 0 leaves s alone.
        floor: in the values' unit, greater than 0.
    """
    n = len(values)
    spread = float(values.std()) if n > 1 else 0.0
    ends = torch.quantile(values, torch.tensor([0.25, 0.75], dtype=values.dtype).to(values))
    quartiles = float(ends[1] - ends[0]) / 1.34
    return max(floor, 0.9 * (min(spread, quartiles) if quartiles > 0 else spread) * n**-0.2)


VARIANT = Sspo
