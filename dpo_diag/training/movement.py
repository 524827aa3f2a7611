"""How far a run moved from its reference, and what that does to margins to first order.

With ``delta`` the change of the weights and ``g_i`` the gradient of pair i's margin at the
reference, ``<g_i, delta>`` is the linearised change of the margin in nats. Compared with the true
one it says how far the run is described by its start. One forward-mode pass per batch, no
gradient is formed. Start reading at ``linear_margins``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dpo_diag.encoded import EncodedResponse
from dpo_diag.engines._base import EngineOptions
from dpo_diag.engines._weights import load_model
from dpo_diag.errors import CheckpointError
from dpo_diag.training.batches import by_length
from dpo_diag.training.gradient_features import MAX_LOGITS, Pair
from dpo_diag.training.policy import load_policy
from dpo_diag.training.recipe_file import recipe_for
from dpo_diag.training.sources.reference_gradients import ReferencePoint


@dataclass(frozen=True)
class Moved:
    """A run's distance from its reference and the linearised change of n margins.

    Attributes:
        norm: Euclidean norm of the change over all weights, tied ones counted once.
        adam_norm: root of ``sum D delta^2`` with the D of ``gradient_sketch.adam_weights``, the
            norm that goes with the preconditioned features; NaN without v.
        margins: (n,) float64, nats: ``<g_i, delta>``.
    """

    norm: float
    adam_norm: float
    margins: np.ndarray


def linear_margins(
    reference: Path,
    run: Path,
    pairs: Sequence[Pair],
    *,
    scale: np.ndarray | None = None,
    trust_remote_code: bool = False,
    progress: Callable[[int], None] = lambda n: None,
) -> Moved:
    """The change from a reference to a run, and ``<g_i, delta>`` of pairs.

    Args:
        reference: transformers folder of the reference.
        run: transformers folder of the run's weights.
        pairs: both answers of each.
        scale: D over all weights, flat, in the model's order; None gives no ``adam_norm``.
        trust_remote_code: run code that comes with the models.
        progress: told how many pairs are done since it was last told.

    Raises:
        CheckpointError: the run's weights are not of the reference's names and shapes.
        EngineError: unreadable weights, or an operation without a forward-mode derivative.
    """
    recipe = recipe_for("dpo", model=str(reference), trust_remote_code=trust_remote_code)
    policy = load_policy(recipe, reference)
    point = ReferencePoint(policy)
    delta = _change(point.parameters, run, trust_remote_code)
    squares = [d.double().square().sum().item() for d in delta.values()]
    adam_norm = float("nan")
    if scale is not None:
        flat = np.concatenate([d.reshape(-1).double().cpu().numpy() for d in delta.values()])
        adam_norm = float(np.sqrt(np.sum(np.square(flat) * scale)))
    margins = np.empty(len(pairs))
    whole = [EncodedResponse(c.prompt_ids, (*c.response_ids, *r.response_ids)) for c, r in pairs]
    longest = max((len(w.response_ids) for w in whole), default=1)
    vocabulary = policy.model.get_input_embeddings().weight.shape[0]
    for index in by_length(whole, max(1, MAX_LOGITS // (longest * vocabulary))):
        chosen, rejected = zip(*(pairs[i] for i in index), strict=True)
        along = point.along(point.pack(chosen, rejected), delta).double().cpu().numpy()
        margins[index] = along[: len(index)] - along[len(index) :]
        progress(len(index))
    return Moved(float(np.sqrt(sum(squares))), adam_norm, margins)


def _change(
    start: Mapping[str, torch.Tensor], run: Path, trust_remote_code: bool
) -> dict[str, torch.Tensor]:
    options = EngineOptions(trust_remote_code=trust_remote_code)
    end = dict(load_model(run, options).named_parameters())
    for name, value in start.items():
        if name not in end or end[name].shape != value.shape:
            raise CheckpointError(
                f"{run}: its weights are not a change of the reference's, {name} is missing or of "
                "another shape; give the model that training started from as --reference."
            )
    return {name: end[name].to(value) - value.detach() for name, value in start.items()}
