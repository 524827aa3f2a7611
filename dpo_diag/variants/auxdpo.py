"""AuxDPO: DPO with one free offset per response that soaks up what the policy cannot express.

Claim: the rewards that a policy class can express implicitly form a thin surface, so DPO projects
the true reward onto it, and where it lands depends on how often each pair was compared; adding
offsets that lie in the null space of the reference's policy-gradient matrix removes that
dependence, and the minimum over policy and offsets is that of two-stage RLHF. The offsets are
learned beside the policy and thrown away: rewards, accuracies and evaluation never see them, so
``rewards/accuracies`` of a run is the accuracy of the policy alone.

What this code cannot check: the theory is local and for large beta; at the usual 0.1 it is a
motivation. And three facts about runs, each shown by a test:

- An offset moves only after its pair was used. Offsets start at 0 and each pair is used once per
  epoch, so in the first epoch the policy moves exactly as under DPO (the official notebook trains
  one epoch): train two or more. In ``exact`` form offsets share coordinates and act at once.
- A model with more parameters than responses has independent gradients as a rule. Then the null
  space of the training responses holds nothing but 0, and what remains is shrinkage of offsets.
- The penalty is the squared norm of a mean over the step's pairs. Its expectation is that of all
  pairs plus the variance of the mean, about ``sum |delta g|^2 / (2B)^2`` per step, which shrinks
  each offset however well they cancel; larger batches have less of it. The variant therefore
  couples the pairs of a batch.

Paper's form by default; each departure of the official notebook is an option: ``offset_place``
"inside", ``penalty_scale`` "sum", ``lambda_amp`` 1, ``cap`` 1, ``lambda_null`` 1e-4. Its amplitude
term is a *reward* for large offsets: with little penalty they go to the cap, and the run is DPO
with a constant margin; ``offset_over_cap`` near 1 says so. Its random start of 1e-3 is left out:
the loss has a gradient at 0.

The penalty costs a backward and a forward-mode pass of the reference, about two more DPO steps,
so it is taken every ``penalty_every`` steps, times that number: the same on average over steps.

By hand: m = 2 nats, beta 0.5, delta = (0.3, -0.2): loss = -log sigmoid(1 + 0.5) = 0.2014. With
gradients g = (1, 0) and (1, 2) the mean is (0.3 - 0.2, -0.4) / 2 = (0.05, -0.2), its square
0.0425, and the penalty's gradient 2 <g, mean> / 2 = (0.05, -0.35).

Source: arXiv 2510.20413, empirical objective; main text read, without its appendix (settings of
the language-model runs are not known), official notebook read. Needs: the reference, its
gradients, a stable index per pair.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from dpo_diag.errors import RecipeError
from dpo_diag.variants._base import (
    ArrayLike,
    Needs,
    PairLogps,
    TrainingFacts,
    Variant,
    require,
)
from dpo_diag.variants._margins import logratio_margin


@dataclass(frozen=True)
class AuxDpo(Variant):
    """AuxDPO on summed response log-probs.

    Attributes:
        beta: strength of the pull to the reference, per nat of log-ratio.
        null_space: ``penalty`` keeps the offsets near the null space by a penalty; ``exact`` learns
            coordinates in a basis of it (small models; equal responses share their offset, as in
            the theory, where an offset belongs to a prompt and response).
        lambda_null: weight of the null-space penalty; 1 is the official class's default.
        penalty_every: steps from one penalty to the next.
        penalty_scale: ``mean`` over the 2B responses (paper) or their ``sum`` (official notebook).
        delta_learning_rate: of the offsets, or of their coordinates.
        offset_place: ``outside``: ``beta * m + d`` (paper); ``inside``: ``beta * (m + d)``
            (official notebook), with ``d`` the chosen's offset less the rejected's.
        lambda_amp: weight of the reward for large offsets (official notebook only).
        cap: offsets are ``cap * tanh(raw)`` (official notebook); 0 leaves them free (paper).
    """

    beta: float = 0.1
    null_space: str = "penalty"
    lambda_null: float = 1.0
    penalty_every: int = 2
    penalty_scale: str = "mean"
    delta_learning_rate: float = 5e-3
    offset_place: str = "outside"
    lambda_amp: float = 0.0
    cap: float = 0.0

    needs: ClassVar[Needs] = Needs(
        reference=True, reference_gradients=True, pair_state=True, couples_batch=True
    )
    source: ClassVar[str] = "arXiv 2510.20413, empirical objective of AuxDPO"
    ranges: ClassVar[Mapping[str, str]] = {
        "beta": "greater than 0, usually 0.01 to 0.5; the theory is for large values",
        "null_space": "penalty or exact; exact for small models only",
        "lambda_null": "0 or more; the official notebook's 1e-4 goes with penalty_scale sum",
        "penalty_every": "1 or more steps; 2 keeps a step near twice the time of DPO's",
        "penalty_scale": "mean (paper) or sum (official notebook)",
        "delta_learning_rate": "greater than 0; the official notebook has 5e-3",
        "offset_place": "outside beta (paper) or inside (official notebook)",
        "lambda_amp": "0 or more; 0 in the paper, 1 in the official notebook",
        "cap": "0 for none (paper) or greater; 1 in the official notebook",
    }

    def __post_init__(self) -> None:
        for name in ("beta", "delta_learning_rate"):
            value = getattr(self, name)
            require(value > 0, f"auxdpo: {name} must be greater than 0, got {value}.")
        for name in ("lambda_null", "lambda_amp", "cap"):
            value = getattr(self, name)
            require(value >= 0, f"auxdpo: {name} must be 0 or more, got {value}.")
        require(
            self.penalty_every >= 1,
            f"auxdpo: penalty_every must be 1 or more, got {self.penalty_every}.",
        )
        for name, choices in (
            ("null_space", ("penalty", "exact")),
            ("penalty_scale", ("mean", "sum")),
            ("offset_place", ("outside", "inside")),
        ):
            value = getattr(self, name)
            require(value in choices, f"auxdpo: {name} must be {' or '.join(choices)}: {value!r}.")
        require(
            self.null_space != "exact" or (self.cap == 0 and self.lambda_amp == 0),
            "auxdpo: cap and lambda_amp do not go with null_space exact: a capped offset leaves "
            "the null space, and rewarded coordinates grow without bound.",
        )

    @property
    def learned_rate(self) -> float:
        """Learning rate of the offsets."""
        return self.delta_learning_rate

    def init_state(self, facts: TrainingFacts) -> dict[str, Any]:
        """Offsets at 0: ``raw`` (n, 2), or ``coordinates`` (k,) with their ``basis`` (n, 2, k).

        Raises:
            RecipeError: the exact form without a basis.
        """
        if self.null_space == "penalty":
            return {"step": 0, "raw": torch.zeros(facts.n_pairs, 2, requires_grad=True)}
        if facts.null_space is None:
            raise RecipeError(
                "auxdpo: null_space exact needs a basis, which this run does not have."
            )
        basis = facts.null_space
        return {
            "step": 0,
            "basis": basis,
            "coordinates": torch.zeros(basis.shape[-1], dtype=basis.dtype, requires_grad=True),
        }

    def losses(self, batch: PairLogps, state: Any = None) -> torch.Tensor:
        """``-log sigmoid(beta * m + d)`` of each pair, shape (B,)."""
        margin = logratio_margin(batch)
        offsets = self._of_batch(batch, state).to(margin)
        difference = offsets[:, 0] - offsets[:, 1]
        if self.offset_place == "inside":
            return -F.logsigmoid(self.beta * (margin + difference))
        return -F.logsigmoid(self.beta * margin + difference)

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """``beta * (logp - ref_logp)``, shape (N,): offsets are for training only."""
        return self.beta * (logp - ref_logp)

    def penalty(self, batch: PairLogps, state: Any) -> torch.Tensor | None:
        """The null-space penalty and the amplitude reward, where they are in force."""
        if self.null_space == "exact":
            return None
        offsets = self._of_batch(batch, state)
        total = self._null_space_penalty(batch, offsets, state["step"])
        if self.lambda_amp:
            reward = offsets.square().mean(dim=0).sum() / 2  # mean over pairs, then over sides
            total = -self.lambda_amp * reward + (0.0 if total is None else total)
        return total

    def _null_space_penalty(
        self, batch: PairLogps, offsets: torch.Tensor, step: int
    ) -> torch.Tensor | None:
        """``lambda * |scale * sum delta g|^2``, its gradient by way of the offsets."""
        if not self.lambda_null or step % self.penalty_every or not offsets.any():
            return None  # offsets of 0 have a penalty of 0 and no gradient
        if batch.gradients is None:
            raise TypeError("auxdpo: the batch has no reference gradients.")
        square, products = batch.gradients(offsets.detach())
        scale = 1.0 if self.penalty_scale == "sum" else 1.0 / offsets.numel()
        weight = self.lambda_null * self.penalty_every * scale**2
        # the norm is a number here; this term is zero and has the norm's gradient
        slope = ((offsets - offsets.detach()) * (2.0 * products).to(offsets)).sum()
        return weight * (square.to(offsets) + slope)

    def update_state(self, batch: PairLogps, state: Any) -> Any:
        """Count the steps."""
        return {**state, "step": state["step"] + 1}

    def metrics(self, state: Any) -> dict[str, float]:
        """``mean_abs_offset`` over all training responses; ``offset_over_cap`` where capped.

        ``null_space_dimension`` in exact form; 0 means that the run is DPO.
        """
        mean = float(self._offsets(state).detach().abs().mean())
        result = {"mean_abs_offset": mean}
        if self.cap:
            result["offset_over_cap"] = mean / self.cap
        if "basis" in state:
            result["null_space_dimension"] = float(state["basis"].shape[-1])
        return result

    def _of_batch(self, batch: PairLogps, state: Any) -> torch.Tensor:
        """Offsets of the batch, (B, 2), chosen first; 0 for pairs that are not trained on."""
        index = batch.pair_index.cpu()  # where the state is
        offsets = self._offsets(state, index.clamp(min=0))
        return offsets.masked_fill((index < 0)[:, None], 0.0).to(batch.pair_index.device)

    def _offsets(self, state: Any, index: Any = slice(None)) -> torch.Tensor:
        """Offsets of the pairs at ``index``, or of all."""
        if "basis" in state:
            return state["basis"][index] @ state["coordinates"]
        raw = state["raw"][index]
        return self.cap * torch.tanh(raw) if self.cap else raw


VARIANT = AuxDpo
