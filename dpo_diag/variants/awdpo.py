"""AW-DPO: DPO on reasoning and answer apart, weighted by where the pair differs more in harm.

Claim: a model that thinks before it answers can think safely and answer unsafely, or the other way
round, and one loss on the whole output cannot say which half is at fault. The output is split at
the tag that ends the reasoning (the tag itself counts as reasoning), and

    L = w_r * -log sigmoid(phi_r(chosen) - phi_r(rejected)) + w_a * (the same of the answer),
    phi_seg(y) = beta * sum over the segment's tokens of log policy/ref.

``w_seg`` is the rejected segment's harm less the chosen one's, cut off at 0 and normalised to sum
1; the other way round, or without the cut, a more harmful segment would be pushed *up*. Where
neither half of the chosen is less harmful, both count one half.

Ours, since the sources leave it open: a pair in which either output lacks the tag has no two
reasonings to compare, so both outputs count as answer alone, which makes it DPO
(``missing_tag="answer"``), or it is dropped (``"drop"``). ``alpha`` scales the whole loss; what the
notes say is that a scaling of this name is stable between .05 and .5, not what it scales.

What this code cannot check: the harm scores. A judge who sees half an output judges it less
surely, reasoning least of all. And the halves of one output are not independent: an answer is
drawn from its reasoning.

By hand: log-ratios of the chosen 1, 1 | 3, of the rejected -1 | -2, 0, split at the bar; beta .1;
harm of the reasonings .2 and .5, of the answers 0 and .9 (chosen, rejected): differences .3 and
.9, weights .25 and .75, loss .25 * -log sigmoid(.3) + .75 * -log sigmoid(.5) = .138589 + .355558
= .494147.

Source: AW-DPO, arXiv 2602.21346 (abstract read; equations second-hand, 3 and 4 not read; authors'
code is not out). Needs: the reference, log-probs per token, segments, and four harm columns.
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
    PairActions,
    PairLogps,
    TrainingFacts,
    Variant,
    require,
)

SEGMENTS = ("reasoning", "answer")
MISSING = ("answer", "drop")


@dataclass(frozen=True)
class AwDpo(Variant):
    """AW-DPO with segments split at a tag.

    Attributes:
        beta: strength of the pull to the reference, per nat of log-ratio; the paper's gamma.
        tag: text that ends the reasoning; its first occurrence splits.
        missing_tag: what becomes of a pair without it: ``answer`` or ``drop``.
        alpha: factor of the whole loss.
    """

    beta: float = 0.1
    tag: str = "</think>"
    missing_tag: str = "answer"
    alpha: float = 1.0

    needs: ClassVar[Needs] = Needs(
        reference=True,
        token_logps=True,
        segments=True,
        columns=tuple(
            f"harm_{part}_{side}" for part in SEGMENTS for side in ("chosen", "rejected")
        ),
    )
    source: ClassVar[str] = "AW-DPO, arXiv 2602.21346, segment-weighted loss as reviews describe it"
    ranges: ClassVar[Mapping[str, str]] = {
        "beta": "greater than 0, usually 0.01 to 0.5",
        "tag": "text that ends the reasoning, not empty",
        "missing_tag": "answer (the whole output counts as answer) or drop",
        "alpha": "greater than 0; notes speak of 0.05 to 0.5",
    }

    def __post_init__(self) -> None:
        for name in ("beta", "alpha"):
            value = getattr(self, name)
            require(value > 0, f"awdpo: {name} must be greater than 0, got {value}.")
        require(bool(self.tag.strip()), "awdpo: tag must be text that is not empty.")
        require(
            self.missing_tag in MISSING,
            f"awdpo: missing_tag must be one of {', '.join(MISSING)}, got {self.missing_tag!r}.",
        )

    @property
    def segment_tag(self) -> str:
        """The tag."""
        return self.tag

    def losses(self, batch: PairLogps, state: Any = None) -> torch.Tensor:
        """``alpha * (w_r * l(reasoning) + w_a * l(answer))`` of each pair, shape (B,)."""
        if batch.is_reasoning_chosen is None or batch.is_reasoning_rejected is None:
            raise DataError(f"awdpo needs to know which tokens come before the tag {self.tag!r}.")
        is_split = batch.is_reasoning_chosen.any(1) & batch.is_reasoning_rejected.any(1)
        reasoning = _segment_margin(batch, is_split)
        answer = _whole_margin(batch) - reasoning
        weights = torch.where(is_split, self.reasoning_weights(batch), 0.0)
        loss = -weights * F.logsigmoid(self.beta * reasoning)
        return self.alpha * (loss - (1.0 - weights) * F.logsigmoid(self.beta * answer))

    def reasoning_weights(self, batch: PairLogps) -> torch.Tensor:
        """``w_r`` of pairs with both segments, shape (B,), in [0, 1]; ``w_a`` is the rest."""
        reasoning, answer = (_harm_difference(batch, part) for part in SEGMENTS)
        total = reasoning + answer
        weights = torch.where(total > 0, reasoning / total.clamp(min=1e-12), 0.5)
        return weights.to(batch.policy_chosen.dtype)

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """``beta * (logp - ref_logp)``, shape (N,), of the whole output: weights are a pair's."""
        return self.beta * (logp - ref_logp)

    def relabel(self, labels: Mapping[str, torch.Tensor]) -> PairActions | None:
        """With ``missing_tag="drop"``, drop pairs of which either output lacks the tag."""
        if self.missing_tag != "drop":
            return None
        keep = labels["has_tag_chosen"] & labels["has_tag_rejected"]
        return PairActions(keep=keep, swap=torch.zeros_like(keep))

    def init_state(self, facts: TrainingFacts) -> dict[str, float]:
        """Share of the last step's pairs in which no half of the chosen is less harmful."""
        return {"equal_weights_rate": math.nan}

    def update_state(self, batch: PairLogps, state: Any) -> dict[str, float]:
        """That share of the step's pairs."""
        total = sum(_harm_difference(batch, part) for part in SEGMENTS)
        return {"equal_weights_rate": float((total <= 0).float().mean())}

    def metrics(self, state: Any) -> dict[str, float]:
        """``equal_weights_rate``: the weights are the fallback's, and say nothing."""
        return {key: value for key, value in state.items() if not math.isnan(value)}


def _harm_difference(batch: PairLogps, part: str) -> torch.Tensor:
    """Harm of the rejected segment less that of the chosen one, at least 0, shape (B,)."""
    rejected, chosen = (batch.extra[f"harm_{part}_{side}"] for side in ("rejected", "chosen"))
    return (rejected - chosen).clamp(min=0.0)


def _segment_margin(batch: PairLogps, is_split: torch.Tensor) -> torch.Tensor:
    """Margin of the reasoning tokens, nats, shape (B,); 0 where the pair is not split."""
    sums = []
    for side in ("chosen", "rejected"):
        policy, reference, is_reasoning = (
            getattr(batch, f"{name}_{side}")
            for name in ("token_logps", "ref_token_logps", "is_reasoning")
        )
        is_counted = is_reasoning & is_split[:, None]
        sums.append(torch.where(is_counted, policy - reference, 0.0).sum(1))
    return sums[0] - sums[1]


def _whole_margin(batch: PairLogps) -> torch.Tensor:
    """Margin of all tokens, nats, shape (B,), summed as the reasoning's is."""
    chosen, rejected = (
        (getattr(batch, f"token_logps_{side}") - getattr(batch, f"ref_token_logps_{side}")).sum(1)
        for side in ("chosen", "rejected")
    )
    return chosen - rejected


VARIANT = AwDpo
