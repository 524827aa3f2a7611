"""An explicit reward: Bradley and Terry's model of the pairs, its reward a trained score head.

Not a policy: what is trained is a sequence classifier with one output, started from the same base
and trained on the same pairs, text and schedule as a policy, so that an implicit reward can be
compared with an explicit one that differs in nothing else. The loop hands the head's scores over
where other variants get log-probs; the score is read at the last token of the answer, EOS
included. A score means nothing by itself: it is defined up to a constant, and only differences
between answers to one prompt were trained.

``-log sigmoid(r_w - r_l) + centre * (r_w + r_l)^2``; the second term (TRL's
``center_rewards_coefficient``, 0 by default) holds the mean score near 0 and moves no order by
itself.

What this code cannot check: that a difference between an implicit and an explicit reward is one of
the parametrisation and not of the learning rate that suits each.

Source: Bradley and Terry 1952; Ouyang et al. 2022, arXiv 2203.02155, equation 1; the comparison:
Lin et al. 2024, arXiv 2409.03650; centring: Eisenstein et al. 2023, arXiv 2312.09244.
Needs: a score head.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from dpo_diag.variants._base import ArrayLike, Needs, PairLogps, Variant, require


@dataclass(frozen=True)
class Reward(Variant):
    """A reward head trained on pairs.

    Attributes:
        centre: weight of the squared sum of a pair's two scores.
    """

    centre: float = 0.0

    needs: ClassVar[Needs] = Needs(reference=False, score_head=True)
    source: ClassVar[str] = "Ouyang et al. 2022, arXiv 2203.02155, equation 1"
    ranges: ClassVar[Mapping[str, str]] = {"centre": "0 or more, usually 0 to 0.01"}
    exceptions: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        require(self.centre >= 0, f"reward: centre must be 0 or more, got {self.centre}.")

    def losses(self, batch: PairLogps, state: Any = None) -> torch.Tensor:
        """``-log sigmoid(r_w - r_l)`` and the centring term of each pair, shape (B,)."""
        losses = -F.logsigmoid(batch.policy_chosen - batch.policy_rejected)
        if not self.centre:
            return losses
        return losses + self.centre * (batch.policy_chosen + batch.policy_rejected) ** 2

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """The head's score itself, which stands where other variants have the log-prob, (N,)."""
        return 1.0 * logp


VARIANT = Reward
