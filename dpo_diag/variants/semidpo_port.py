"""Semi-supervised DPO, a **port** to language models: clean pairs first, then its own labels.

The published method trains diffusion models: its thresholds follow the diffusion's timesteps, and
its argument is that judges of an image's several qualities conflict. Neither exists here, so its
claim is not this variant's, and a result with this one says nothing of it. What is carried over:

1. a pair on which all judges agree with the label (``judge_agreement`` is 1) is clean;
2. round 0 trains on the clean pairs alone;
3. each later round gives every other pair a label by the sign of ``z = beta m`` under the policy of
   that moment (swapped where negative), and keeps it where ``|z|`` reaches a quantile of the
   others' ``|z|``, one quantile per round;
4. the loss is ``L_clean + L_pseudo``, each DPO's mean over its own pairs. As a mean over random
   batches: a clean pair's loss counts n / n_clean times, a kept pair's n / n_kept, the rest 0.

What this code cannot check: that confident means right. A policy that has learned a bias labels by
it and trains on that. The guard is ``false_swap_rate``: the share of clean pairs that the same rule
would have turned round. They are trained on, so it flatters; a rate that rises is the alarm.

By hand: n = 4 pairs of which 2 are clean; beta .1, a clean pair with margin 5 has
4/2 * .474077 = .948154. Round 1 at quantile .5 over the others' |z| = .2, .6 keeps those above .4:
the second alone, of margin -6, so swapped: 4/1 * -log sigmoid(.6) = 4 * .437488 = 1.749952.

Source: Semi-DPO, arXiv 2604.24952 (second-hand; its code was not read); the port is ours. Needs:
the reference, the column judge_agreement, margins at the start of each round.
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

_CONSENSUS = 1.0 - 1e-6


@dataclass(frozen=True)
class SemiDpoPort(Variant):
    """Port of semi-supervised DPO: consensus split, pseudo-labels, rounds.

    Attributes:
        beta: strength of the pull to the reference, per nat of log-ratio.
        quantiles: per round of self-training, the share of the other pairs left out for lack of
            confidence; as many rounds as values, after the round on clean pairs.
    """

    beta: float = 0.1
    quantiles: tuple[float, ...] = (0.5, 0.25)

    needs: ClassVar[Needs] = Needs(
        reference=True, columns=("judge_agreement",), round_margins=True, pair_state=True
    )
    source: ClassVar[str] = (
        "port of Semi-DPO (diffusion models), arXiv 2604.24952; the port is ours"
    )
    ranges: ClassVar[Mapping[str, str]] = {
        "beta": "greater than 0, usually 0.01 to 0.5",
        "quantiles": "one number per round, each 0 (keep all) or more and below 1",
    }

    def __post_init__(self) -> None:
        require(self.beta > 0, f"semidpo_port: beta must be greater than 0, got {self.beta}.")
        values = self.quantiles
        require(
            isinstance(values, list | tuple)
            and len(values) > 0
            and all(isinstance(q, int | float) and 0 <= q < 1 for q in values),
            "semidpo_port: quantiles must be one or more numbers, each 0 or more and below 1, got "
            f"{values!r}.",
        )
        object.__setattr__(self, "quantiles", tuple(float(q) for q in values))

    @property
    def n_rounds(self) -> int:
        """The round on clean pairs, and one per quantile."""
        return 1 + len(self.quantiles)

    def losses(self, batch: PairLogps, state: Any = None) -> torch.Tensor:
        """``weight * -log sigmoid(sign * beta * m)``, shape (B,); plain DPO on held-out pairs."""
        scaled = self.beta * logratio_margin(batch)
        if state is None:
            return -F.logsigmoid(scaled)
        is_held_out = batch.pair_index < 0
        index = batch.pair_index.clamp(min=0).to(state["weight"].device)
        weight = torch.where(is_held_out, 1.0, state["weight"][index].to(scaled))
        sign = torch.where(is_held_out, 1.0, state["sign"][index].to(scaled))
        return -weight * F.logsigmoid(sign * scaled)

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """``beta * (logp - ref_logp)``, shape (N,): DPO's."""
        return self.beta * (logp - ref_logp)

    def init_state(self, facts: TrainingFacts) -> dict[str, Any]:
        """Per pair: ``is_clean``, and ``weight`` and ``sign`` of round 0.

        Raises:
            DataError: no pair is clean.
        """
        agreement = facts.columns.get("judge_agreement", torch.zeros(facts.n_pairs))
        is_clean = agreement >= _CONSENSUS
        if not is_clean.any():
            raise DataError(
                "semidpo_port begins with the pairs on which all judges agree with the label, and "
                f"judge_agreement is 1 on none of the {facts.n_pairs}; take pairs whose labels "
                "some judges share, or another variant."
            )
        weight = is_clean.to(torch.float32) * (len(is_clean) / int(is_clean.sum()))
        return {
            "is_clean": is_clean,
            "weight": weight,
            "sign": torch.ones_like(weight),
            "round": 0,
            "clean_rate": float(is_clean.float().mean()),
        }

    def begin_round(self, margins: torch.Tensor, number: int, state: Any) -> dict[str, Any]:
        """New labels for the pairs that are not clean; round 0 needs none."""
        if number == 0:
            return state
        z = self.beta * margins.to(state["weight"])
        is_clean, size = state["is_clean"], z.abs()
        is_kept = torch.zeros_like(is_clean)
        if not is_clean.all():
            least = torch.quantile(size[~is_clean], self.quantiles[number - 1])
            is_kept = ~is_clean & (size >= least)
        weight = is_clean * (len(z) / int(is_clean.sum()))
        weight = weight + is_kept * (len(z) / max(1, int(is_kept.sum())))
        is_swapped = is_kept & (z < 0)
        return {
            **state,
            "weight": weight,
            "sign": torch.where(is_swapped, -1.0, 1.0).to(z),
            "round": number,
            "kept_rate": _share(is_kept, ~is_clean),
            "swap_rate": _share(is_swapped, is_kept),
            "false_swap_rate": _share(z < 0, is_clean),
        }

    def metrics(self, state: Any) -> dict[str, float]:
        """Round, share of clean pairs, and from round 1 on what was kept and swapped.

        ``kept_rate``: of the pairs that are not clean. ``swap_rate``: of those kept.
        ``false_swap_rate``: of the clean pairs, against whose labels the rule would have decided.
        A rate over no pairs is left out.
        """
        keys = ("round", "clean_rate", "kept_rate", "swap_rate", "false_swap_rate")
        values = {key: float(state[key]) for key in keys if key in state}
        return {key: value for key, value in values.items() if value == value}  # no NaN


def _share(of: torch.Tensor, among: torch.Tensor) -> float:
    """Share of the second mask's pairs that the first holds too; NaN of none."""
    n = int(among.sum())
    return int((of & among).sum()) / n if n else float("nan")


VARIANT = SemiDpoPort
