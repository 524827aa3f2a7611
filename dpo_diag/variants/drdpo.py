"""Dr. DPO: a soft minimum of DPO's losses over the batch, so that pairs that look wrong count less.

Claim: the worst case over pair distributions near the data is ``-b log mean exp(-l / b)`` of the
DPO losses l; pairs with a large loss, mislabelled ones among them, get weight proportional to
``exp(-l / b)``. As b grows it becomes DPO. What this code cannot check: that a large loss means a
wrong label; a right label that the reference finds surprising is muted all the same.

The loss is one number per batch, and a split batch gives another one. Here it is taken over all
pairs of the optimiser step, which is why passes may not be smaller than the batch. The official
code takes it over each pass of each device, so it compares fewer pairs than its batch size says.
The loss on validation pairs is a mean over passes and moves with their size.

``losses`` returns that number for each pair. Their mean is the loss and their gradient is
``softmax(-l / b)``-weighted, since each pair's number depends on all.

By hand: two pairs with DPO losses log 2 and log 4, b 1: mean of exp(-l) is (1/2 + 1/4) / 2 = 3/8,
the loss log(8/3) = .980829; weights 2/3 and 1/3.

Source: Wu et al. 2024, arXiv 2407.07880 (Dr. DPO); the loss was read in ``junkangwu/Dr_DPO``,
``trainers.py``. Needs: the reference, the whole batch in one pass.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from dpo_diag.variants._base import ArrayLike, Needs, PairLogps, Variant, require
from dpo_diag.variants._margins import logratio_margin


@dataclass(frozen=True)
class Drdpo(Variant):
    """Dr. DPO on summed response log-probs.

    Attributes:
        beta: strength of the pull to the reference, per nat of log-ratio.
        temperature: the paper's beta prime; small forgets pairs with large losses.
    """

    beta: float = 0.1
    temperature: float = 1.0

    needs: ClassVar[Needs] = Needs(reference=True, couples_batch=True)
    source: ClassVar[str] = "Wu et al. 2024, arXiv 2407.07880, loss of Dr. DPO"
    ranges: ClassVar[Mapping[str, str]] = {
        "beta": "greater than 0, usually 0.01 to 0.5",
        "temperature": "greater than 0, in units of the loss; 1 in the official code, large is DPO",
    }

    def __post_init__(self) -> None:
        require(self.beta > 0, f"drdpo: beta must be greater than 0, got {self.beta}.")
        require(
            self.temperature > 0,
            f"drdpo: temperature must be greater than 0, got {self.temperature}.",
        )

    def losses(self, batch: PairLogps, state: Any = None) -> torch.Tensor:
        """``-b log mean exp(-l / b)`` of the batch, repeated for each pair, shape (B,)."""
        pairs = -F.logsigmoid(self.beta * logratio_margin(batch))
        # Relative to the smallest loss, whose weight is then 1: neither does exp(-l / b) underflow
        # where the whole batch is very wrong, nor is a large b times a rounding error added.
        least = pairs.detach().min()
        excess = torch.expm1((least - pairs) / self.temperature).mean()
        return (least - self.temperature * torch.log1p(excess)).expand(len(pairs))

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """``beta * (logp - ref_logp)``, shape (N,)."""
        return self.beta * (logp - ref_logp)


VARIANT = Drdpo
