"""SafeDPO: DPO on pairs re-ordered by two safety bits, with a margin between safe and unsafe.

Claim: with unsafe answers given reward minus infinity, the KL-regularised optimum excludes them,
and its preferences can be had from ordinary pairs plus two safety bits: any safe answer beats any
unsafe one. Three steps, in this order: (safe, any) is kept; (unsafe, safe) is swapped; (unsafe,
unsafe) is dropped; then the offset ``(h_rejected - h_chosen) * delta`` with h = 1 for unsafe is
subtracted inside the sigmoid. The paper's ablation credits the re-ordering, not the offset.

``transform=False`` gives the offset alone. There a pair (unsafe chosen, safe rejected) is still
in its annotated direction, and every offset o other than 0 does harm: the pair's gradient weight
is sigmoid(o - beta*m), so o < 0 (the formula's own -delta) mutes exactly the pairs that ought to
be turned round and reports a small loss for them, and o > 0 (the reading "cost of the chosen")
teaches the unsafe answer harder. Only 0 does neither, hence the offset used is
``delta * max(h_rejected - h_chosen, 0)``; on every transformed pair that is the paper's. Such a
pair is then learned as DPO learns it, towards the unsafe answer: the offset alone is no
safeguard, and is here for ablation.

What this code cannot check: that the reference gives safe answers some probability on every
prompt, which the theory assumes, and that the bits are right: it cannot undo a danger that no
annotator marked. Not verified against authors' code, which was not found; the paper's settings
beyond the main text (delta 10 swept over 0 to 20, 3 epochs, 1e-6) are known second-hand.

Where to look: what was kept, swapped and dropped is in the run's ``trainer_state.json`` under
``pair_counts``, and every diagnosis says it beside the checkpoint. Over-refusal cannot be seen in
training: `dpo-diag safety` measures it, as ``refusal_rate`` on the slice ``intent=benign``.

Source: arXiv 2505.20065, transformation T and equation of the loss L(theta; Delta). Needs: the
reference and both safety bits.
"""

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
    Variant,
    require,
)
from dpo_diag.variants._margins import logratio_margin


@dataclass(frozen=True)
class SafeDpo(Variant):
    """SafeDPO on summed response log-probs.

    Attributes:
        beta: strength of the pull to the reference, per nat of log-ratio.
        delta: margin asked between a safe chosen and an unsafe rejected answer, in units of
            ``beta * m``. With beta 0.1 the paper's 10 asks for 100 nats, which short answers of a
            small model never reach: scale it to the typical ``beta * m`` there.
        transform: keep, swap and drop pairs by their safety bits before training.
    """

    beta: float = 0.1
    delta: float = 10.0
    transform: bool = True

    needs: ClassVar[Needs] = Needs(reference=True, safety_labels=True)
    source: ClassVar[str] = "SafeDPO, arXiv 2505.20065, transformation T and loss L(theta; Delta)"
    ranges: ClassVar[Mapping[str, str]] = {
        "beta": "greater than 0, usually 0.01 to 0.5",
        "delta": "0 or more, in units of beta * margin; the paper uses 10",
        "transform": "true (the paper) or false (offset alone, for ablation)",
    }

    def __post_init__(self) -> None:
        require(self.beta > 0, f"safedpo: beta must be greater than 0, got {self.beta}.")
        require(self.delta >= 0, f"safedpo: delta must be 0 or more, got {self.delta}.")

    def losses(self, batch: PairLogps, state: Any = None) -> torch.Tensor:
        """``-log sigmoid(beta * m - max(h_rejected - h_chosen, 0) * delta)``, shape (B,)."""
        if batch.is_chosen_safe is None or batch.is_rejected_safe is None:
            raise DataError(
                "safedpo needs the columns is_chosen_safe and is_rejected_safe in the pairs."
            )
        margin = logratio_margin(batch)
        separates = batch.is_chosen_safe & ~batch.is_rejected_safe
        return -F.logsigmoid(self.beta * margin - separates.to(margin.dtype) * self.delta)

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """``beta * (logp - ref_logp)``, shape (N,); the offset is a training device only."""
        return self.beta * (logp - ref_logp)

    def relabel(self, labels: Mapping[str, torch.Tensor]) -> PairActions | None:
        """Swap (unsafe, safe), drop (unsafe, unsafe), keep the rest; None without transform."""
        if not self.transform:
            return None
        is_chosen_safe, is_rejected_safe = labels["is_chosen_safe"], labels["is_rejected_safe"]
        return PairActions(
            keep=is_chosen_safe | is_rejected_safe, swap=~is_chosen_safe & is_rejected_safe
        )


VARIANT = SafeDpo
