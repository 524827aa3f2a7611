"""What a training method is: its hyper-parameters, its needs, its loss, its implicit reward.

A variant file holds one frozen dataclass derived from ``Variant`` and the module constant
``VARIANT`` naming it. The training loop reads ``needs``, provides exactly that, averages
``losses`` over the batch and logs the variant's own margin. Nothing else may define an implicit
reward. May import: errors, torch. Start reading at ``Variant``; ``dpo.py`` is the shortest example.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

import torch

from dpo_diag.errors import RecipeError

ArrayLike = TypeVar("ArrayLike")  # a torch tensor in training, a numpy column in analysis


@dataclass(frozen=True)
class Needs:
    """What the loop must provide to a variant beside the policy's summed log-probs of a pair.

    Attributes:
        reference: the reference's summed log-probs.
        token_logps: policy's and reference's log-probs per token, with masks.
        columns: numeric columns of the pairs, by name; they arrive in ``PairLogps.extra``.
        annotators: who judged each pair, as a code in ``PairLogps.extra["annotator"]``.
        safety_labels: both safety bits.
        segments: which response tokens are reasoning, which answer.
        attribution: how much each response token moves the model's last logit.
        anchors: an answer sampled from the policy beside each pair.
        reference_gradients: inner products of the reference's gradients.
        unlabelled: answers without preferences, some in every batch.
        round_margins: every pair's margin under the policy at the start of each round.
        online_samples: the policy's own samples with scores; the loss is ``sample_losses``.
        online_pairs: pairs of the policy's own samples, ordered by a preference oracle.
        sample_table: samples from a file, with scores; the loss is ``sample_losses``.
        history: log-probs under opponents, ``Variant.n_history`` of them.
        reference_answers: a good answer to each prompt; samples are scored by similarity to it.
        pair_state: learned state per pair, in the order of ``PairLogps.pair_index``.
        couples_batch: the loss of a pair depends on the others in its batch.
        score_head: what is trained is a classifier with one output, no policy; its scores of the
            two answers stand in ``policy_chosen`` and ``policy_rejected``.
    """

    reference: bool = True
    token_logps: bool = False
    columns: tuple[str, ...] = ()
    annotators: bool = False
    safety_labels: bool = False
    segments: bool = False
    attribution: bool = False
    anchors: bool = False
    reference_gradients: bool = False
    unlabelled: bool = False
    round_margins: bool = False
    online_samples: bool = False
    online_pairs: bool = False
    sample_table: bool = False
    history: bool = False
    reference_answers: bool = False
    pair_state: bool = False
    couples_batch: bool = False
    score_head: bool = False

    @property
    def samples(self) -> bool:
        """Whether the loss is one of samples, not of pairs."""
        return self.online_samples or self.sample_table

    @property
    def has_pair_loss(self) -> bool:
        """Whether the loss can be taken of given pairs, e.g. those kept for validation."""
        return not (self.samples or self.online_pairs)


class GradientProducts(Protocol):
    """Inner products of the reference's per-response gradients ``g = grad log ref(y|x)``."""

    def __call__(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(||v||^2, <g_i, v>)`` for ``v = sum_i weights_i g_i``.

        Args:
            weights: (B, 2), for the chosen and the rejected response of each pair.

        Returns:
            A scalar and (B, 2), both without gradient, float32.
        """


@dataclass(frozen=True)
class PairLogps:
    """A batch of B pairs as the losses see it. All log-probs in nats, summed over the response.

    Token-wise fields are zero (False) on padding; T is the longest response in the batch.

    Attributes:
        policy_chosen, policy_rejected: (B,), with gradient.
        ref_chosen, ref_rejected: (B,); NaN where the variant needs no reference.
        n_tokens_chosen, n_tokens_rejected: (B,) int64, response tokens, EOS included.
        pair_index: (B,) int64, stable position of the pair in the training table.
        is_chosen_safe, is_rejected_safe: (B,) bool, only with ``needs.safety_labels``.
        token_logps_chosen, token_logps_rejected: (B, T), with gradient, only with
            ``needs.token_logps``; the matching ``ref_token_...`` likewise and ``mask_...`` (B, T).
        is_reasoning_chosen, is_reasoning_rejected: (B, T) bool, only with ``needs.segments``.
        attribution_chosen, attribution_rejected: (B, T), 0 or more, no gradient, only with
            ``needs.attribution``.
        anchor_token_logps: (B, T') of the sampled anchor, with gradient, only with
            ``needs.anchors``; ``ref_anchor_token_logps`` and ``mask_anchor`` likewise.
        history_chosen, history_rejected: (H, B), only with ``needs.history``; the latest opponent
            first.
        unlabelled_policy, unlabelled_ref, unlabelled_n_tokens: (U,), only with
            ``needs.unlabelled``; the first with gradient.
        gradients: only with ``needs.reference_gradients``.
        extra: ``needs.columns`` and ``annotator`` (int64 codes), each (B,).
    """

    policy_chosen: torch.Tensor
    policy_rejected: torch.Tensor
    ref_chosen: torch.Tensor
    ref_rejected: torch.Tensor
    n_tokens_chosen: torch.Tensor
    n_tokens_rejected: torch.Tensor
    pair_index: torch.Tensor
    is_chosen_safe: torch.Tensor | None = None
    is_rejected_safe: torch.Tensor | None = None
    token_logps_chosen: torch.Tensor | None = None
    token_logps_rejected: torch.Tensor | None = None
    ref_token_logps_chosen: torch.Tensor | None = None
    ref_token_logps_rejected: torch.Tensor | None = None
    mask_chosen: torch.Tensor | None = None
    mask_rejected: torch.Tensor | None = None
    is_reasoning_chosen: torch.Tensor | None = None
    is_reasoning_rejected: torch.Tensor | None = None
    attribution_chosen: torch.Tensor | None = None
    attribution_rejected: torch.Tensor | None = None
    anchor_token_logps: torch.Tensor | None = None
    ref_anchor_token_logps: torch.Tensor | None = None
    mask_anchor: torch.Tensor | None = None
    history_chosen: torch.Tensor | None = None
    history_rejected: torch.Tensor | None = None
    unlabelled_policy: torch.Tensor | None = None
    unlabelled_ref: torch.Tensor | None = None
    unlabelled_n_tokens: torch.Tensor | None = None
    gradients: GradientProducts | None = None
    extra: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class SampleLogps:
    """A batch of N on-policy samples as an online variant sees it (``needs.online_samples``).

    Attributes:
        policy: (N,) nats, with gradient, summed over the response.
        behaviour: (N,) nats, log-probs under the policy that drew the samples.
        ref: (N,) nats, under the reference.
        n_tokens: (N,) int64.
        reward: (N,) reward units, higher better.
        cost: (N,) cost units, higher worse; positive means the constraint is violated, because
            the loop subtracts the threshold before it hands the cost over.
        prompt_index: (N,) int64, equal for samples of one prompt.
    """

    policy: torch.Tensor
    behaviour: torch.Tensor
    ref: torch.Tensor
    n_tokens: torch.Tensor
    reward: torch.Tensor
    cost: torch.Tensor
    prompt_index: torch.Tensor


@dataclass(frozen=True)
class TrainingFacts:
    """What a variant may know of a run when it makes its state.

    Attributes:
        n_pairs: training pairs (prompts, for a variant on samples).
        n_steps: optimiser steps of the whole run.
        n_annotators: codes are 0 to this less 1; 0 where the variant reads none.
        n_unlabelled: answers without preferences.
        columns: ``needs.columns`` of the training pairs, each (n_pairs,).
        null_space: (n_pairs, 2, k) offsets of the responses in k coordinates that the reference's
            gradients cancel; None where the run has none.
    """

    n_pairs: int
    n_steps: int = 1
    n_annotators: int = 0
    n_unlabelled: int = 0
    columns: Mapping[str, torch.Tensor] = field(default_factory=dict)
    null_space: torch.Tensor | None = None


@dataclass(frozen=True)
class PairActions:
    """What a variant does to each training pair before training, from its labels.

    Attributes:
        keep: (n,) bool, false drops the pair.
        swap: (n,) bool, true exchanges chosen and rejected (and their labels).
    """

    keep: torch.Tensor
    swap: torch.Tensor


@dataclass(frozen=True)
class Variant:
    """Base of every training method; a subclass adds its own hyper-parameters as fields.

    A subclass overrides ``losses`` (or ``sample_losses`` when it learns from samples) and
    ``rewards``, and any optional hook: ``relabel``, ``init_state``, ``begin_round``, ``penalty``,
    ``update_state``, ``metrics``. Hyper-parameters are checked in ``__post_init__`` with
    ``require``.
    """

    needs: ClassVar[Needs] = Needs()
    #: paper and equation, printed by ``dpo-diag show variants``
    source: ClassVar[str] = ""
    #: hyper-parameter -> range in words, one entry per field
    ranges: ClassVar[Mapping[str, str]] = {}
    #: hyper-parameters that may be infinite; a recipe with any other that is, is refused
    may_be_infinite: ClassVar[tuple[str, ...]] = ()
    #: largest absolute margin (nats) for which loss and gradient stay finite
    working_range: ClassVar[float] = 1e4
    #: whether opponents may be checkpoints of other runs (``online.opponents``, ``[players]``)
    plays_folders: ClassVar[bool] = False
    #: exceptions to the contract, name of the rule -> reason
    exceptions: ClassVar[Mapping[str, str]] = {}

    def losses(self, batch: PairLogps, state: Any = None) -> torch.Tensor:
        """Loss of each pair, shape (B,), lower better."""
        raise TypeError(f"{type(self).__name__} has no pairwise loss; see sample_losses.")

    def sample_losses(self, batch: SampleLogps, state: Any = None) -> torch.Tensor:
        """Loss of each on-policy sample, shape (N,), lower better."""
        raise TypeError(f"{type(self).__name__} has no loss on samples; see losses.")

    def rewards(self, logp: ArrayLike, ref_logp: ArrayLike, n_tokens: ArrayLike) -> ArrayLike:
        """The implicit reward of each response, shape (N,), from summed log-probs in nats.

        Plain arithmetic, so that the same line serves tensors in training and numpy columns in
        analysis.
        """
        raise TypeError(f"{type(self).__name__} does not define an implicit reward.")

    def relabel(self, labels: Mapping[str, torch.Tensor]) -> PairActions | None:
        """Keep, drop or swap each pair by its labels; None changes nothing.

        Args:
            labels: ``is_chosen_safe`` and ``is_rejected_safe`` (with ``needs.safety_labels``),
                ``has_tag_chosen`` and ``has_tag_rejected`` (with ``needs.segments``: the answer
                holds the ``segment_tag``) and ``needs.columns``, each (n,).
        """
        return None

    @property
    def n_history(self) -> int:
        """Opponents whose log-probs the loss reads, with ``needs.history``."""
        return 0

    @property
    def kl_price(self) -> float:
        """Win probability that a nat of divergence costs in the game, with ``needs.online_pairs``.

        The estimated duality gap has it.
        """
        return 0.0

    @property
    def n_rounds(self) -> int:
        """Rounds of equal length that a run is split into, with ``needs.round_margins``."""
        return 1

    @property
    def unlabelled_per_batch(self) -> int:
        """Answers without preferences in each batch, with ``needs.unlabelled``."""
        return 0

    @property
    def segment_tag(self) -> str:
        """Text that ends the reasoning and begins the answer, with ``needs.segments``."""
        return ""

    def init_state(self, facts: TrainingFacts) -> Any:
        """Learned or running state beside the policy; None where there is none.

        A mapping of plain numbers and tensors, so that a checkpoint can hold it; tensors that
        require gradients are trained beside the model.
        """
        return None

    def begin_round(self, margins: torch.Tensor, number: int, state: Any) -> Any:
        """The state for a round, with ``needs.round_margins``.

        Args:
            margins: (n,) unscaled implicit margins of all pairs under the policy of this moment.
            number: of the round, 0 for the first.
            state: so far.
        """
        return state

    @property
    def learned_rate(self) -> float:
        """Learning rate of learned state; 0 takes the model's."""
        return 0.0

    def update_state(self, batch: PairLogps | SampleLogps, state: Any) -> Any:
        """The state after an optimiser step, from the batch of that step."""
        return state

    def penalty(self, batch: PairLogps, state: Any) -> torch.Tensor | None:
        """A scalar added to the mean loss that is not a per-pair term; None where there is none."""
        return None

    def metrics(self, state: Any) -> dict[str, float]:
        """Numbers of the state to log beside the loss."""
        return {}

    def sample_metrics(self, batch: SampleLogps) -> dict[str, torch.Tensor]:
        """Further numbers of each sample to log, (N,) each, no gradient."""
        return {}

    @property
    def name(self) -> str:
        """The variant's name: its file's name."""
        return type(self).__module__.rsplit(".", 1)[-1]

    @property
    def reward_def(self) -> str:
        """Variant and hyper-parameters as one string, the identity of the implicit reward."""
        values = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self))
        return f"{self.name}({values})"


def build(variant: type[Variant], parameters: Mapping[str, Any]) -> Variant:
    """A variant from a recipe's parameters, strictly.

    Raises:
        RecipeError: an unknown hyper-parameter (the known ones with their ranges are listed) or
            one out of range; infinity is, but for ``may_be_infinite``.
    """
    known = {f.name for f in dataclasses.fields(variant)}
    name = variant.__module__.rsplit(".", 1)[-1]
    for key in parameters:
        if key not in known:
            listing = "; ".join(f"{k}: {variant.ranges[k]}" for k in sorted(known))
            raise RecipeError(f"{name} has no hyper-parameter {key!r}. It has {listing}.")
        value = parameters[key]
        is_infinite = isinstance(value, float) and math.isinf(value)
        require(
            not is_infinite or key in variant.may_be_infinite,
            f"{name}: {key} must be a finite number, got {value}; it is {variant.ranges[key]}.",
        )
    return variant(**parameters)


def require(condition: bool, message: str) -> None:
    """Raise ``RecipeError`` with the message unless the condition holds."""
    if not condition:
        raise RecipeError(message)
