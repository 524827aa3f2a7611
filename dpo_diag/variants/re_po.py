"""RE-PO: DPO that learns how far each annotator can be believed, by expectation-maximisation.

Not to be confused with ``repo``, rectified policy optimisation, which is about safety.

Claim: a label is the clean preference, turned round by annotator k with probability 1 - eta_k.
With ``p = sigmoid(beta m)`` for the model's own belief in the label, the E-step gives the chance
that the label is right,

    w = p eta_k / (p eta_k + (1 - p)(1 - eta_k)),

and the M-step lowers ``-w log p - (1 - w) log(1 - p)`` with w held fixed, while
``eta_k <- (1 - a) eta_k + a * mean w`` over annotator k's pairs in the batch. Held fixed, w makes
the gradient that of ``-log(eta p + (1 - eta)(1 - p))``, the likelihood of the label as given.

What this code cannot check: that the reference already ranks decently. Where model and label
disagree the model is believed more and more, so a model that is wrong relabels right pairs; watch
``label_weight``. Also, reliabilities are known only up to how sharp the preferences are: where
clean preferences are themselves uncertain, doubt about the pair and about the annotator look
alike. Ours: eta stays within .0001 of 0 and 1, else it could never come back; a held-out pair is
judged with the mean eta, since its annotator may have judged no training pair.

By hand: beta m = .5, so p = .622459; eta .9 gives w = .936863, loss
.936863 * .474077 + .063137 * .974077 = .505646. One such pair alone in the batch moves eta to
.9 * .9 + .1 * .936863 = .903686.

Source: Cao et al., ICLR 2026, arXiv 2509.24159 (abstract read; formulas second-hand, the defaults
of eta and a too). Needs: the reference, and who judged each pair unless ``attributed`` is false.
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
    PairLogps,
    TrainingFacts,
    Variant,
    require,
)
from dpo_diag.variants._margins import logratio_margin

_EDGE = 1e-4


class _NeedsByAttribution:
    """Annotators are needed, except by an instance that holds all labels to be of one."""

    def __get__(self, instance: "RePo | None", owner: type) -> Needs:
        return Needs(reference=True, annotators=instance is None or instance.attributed)


@dataclass(frozen=True)
class RePo(Variant):
    """RE-PO around DPO's loss, with a reliability per annotator.

    Attributes:
        beta: strength of the pull to the reference, per nat of log-ratio.
        eta_init: reliability of every annotator before the first step.
        momentum: share of the batch's mean w in the new reliability, the paper's a.
        attributed: whether labels say who gave them; false makes one virtual annotator of all.
    """

    beta: float = 0.1
    eta_init: float = 0.9
    momentum: float = 0.1
    attributed: bool = True

    needs: ClassVar[Needs] = _NeedsByAttribution()  # type: ignore[assignment]
    source: ClassVar[str] = "Cao et al., ICLR 2026, arXiv 2509.24159, E-step and M-step of RE-DPO"
    ranges: ClassVar[Mapping[str, str]] = {
        "beta": "greater than 0, usually 0.01 to 0.5",
        "eta_init": "above 0.5 and below 1; the paper uses 0.9",
        "momentum": "greater than 0, up to 1; the paper uses 0.1",
        "attributed": "true (a reliability per annotator) or false (one for all labels)",
    }
    exceptions: ClassVar[Mapping[str, str]] = {
        "gradcheck": "the E-step's weights depend on the policy and are held fixed, as EM does"
    }

    def __post_init__(self) -> None:
        require(self.beta > 0, f"re_po: beta must be greater than 0, got {self.beta}.")
        require(
            0.5 < self.eta_init < 1,
            f"re_po: eta_init must be above 0.5 and below 1, got {self.eta_init}.",
        )
        require(
            0 < self.momentum <= 1,
            f"re_po: momentum must be greater than 0 and at most 1, got {self.momentum}.",
        )

    def losses(self, batch: PairLogps, state: Any = None) -> torch.Tensor:
        """``-w log p - (1 - w) log(1 - p)`` of each pair, shape (B,), w without gradient."""
        scaled = self.beta * logratio_margin(batch)
        weight = self.label_weights(batch, state)
        return -weight * F.logsigmoid(scaled) - (1.0 - weight) * F.logsigmoid(-scaled)

    def label_weights(self, batch: PairLogps, state: Any) -> torch.Tensor:
        """The E-step: chance that each label is right, ``w``, shape (B,), no gradient."""
        with torch.no_grad():
            scaled = self.beta * logratio_margin(batch)
            if state is None:
                reliability = torch.full_like(scaled, self.eta_init)
            else:
                known = state["reliability"].to(scaled)
                is_held_out = batch.pair_index < 0
                code = torch.where(is_held_out, 0, self._annotators(batch))
                reliability = torch.where(is_held_out, known.mean(), known[code])
            # p eta / (p eta + (1 - p)(1 - eta)), which overflows nowhere in this form
            return torch.sigmoid(scaled + torch.logit(reliability))

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """``beta * (logp - ref_logp)``, shape (N,): DPO's, with which p is computed."""
        return self.beta * (logp - ref_logp)

    def init_state(self, facts: TrainingFacts) -> dict[str, Any]:
        """``reliability``: (K,) an eta per annotator; ``label_weight``: mean w of the last step."""
        n_annotators = max(1, facts.n_annotators) if self.attributed else 1
        return {
            "reliability": torch.full((n_annotators,), self.eta_init, dtype=torch.float64),
            "label_weight": self.eta_init,
        }

    def update_state(self, batch: PairLogps, state: Any) -> dict[str, Any]:
        """The M-step for eta; annotators without a pair in the batch keep theirs."""
        old = state["reliability"]
        weight = self.label_weights(batch, state).to(old)
        code = self._annotators(batch).to(old.device)
        total = torch.zeros_like(old).index_add(0, code, weight)
        n = torch.zeros_like(old).index_add(0, code, torch.ones_like(weight))
        moved = (1.0 - self.momentum) * old + self.momentum * total / n.clamp(min=1.0)
        new = torch.where(n > 0, moved, old).clamp(_EDGE, 1.0 - _EDGE)
        return {"reliability": new, "label_weight": float(weight.mean())}

    def metrics(self, state: Any) -> dict[str, float]:
        """Mean, least and greatest reliability, each annotator's, and the mean w."""
        eta = state["reliability"]
        each = {f"reliability/{code}": float(value) for code, value in enumerate(eta)}
        return {
            "label_weight": state["label_weight"],
            "reliability/mean": float(eta.mean()),
            "reliability/min": float(eta.min()),
            "reliability/max": float(eta.max()),
            **(each if len(eta) <= 16 else {}),
        }

    def _annotators(self, batch: PairLogps) -> torch.Tensor:
        """Annotator's code of each pair, (B,) int64."""
        if not self.attributed:
            return torch.zeros_like(batch.pair_index)
        if "annotator" not in batch.extra:
            raise DataError(
                "re_po needs the column annotator in the pairs; take pairs that carry it, or set "
                "variant.attributed to false: then all labels are held to be of one annotator."
            )
        return batch.extra["annotator"]


VARIANT = RePo
