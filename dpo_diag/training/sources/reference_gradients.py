"""Inner products of the reference's per-response gradients, and the null space they leave.

With ``g_i`` the gradient of ``log reference(y_i | x_i)`` in the trained parameters, at the
reference, a batch of 2B responses gets ``v = sum_i w_i g_i`` from a backward pass of the weighted
log-probs, and all ``<g_i, v>`` from one forward-mode pass in the direction ``v``. What is held is
two vectors of the parameters' size, the reference and ``v``, nothing of size pairs x parameters.

Which parameters: those that are trained, as named in the policy. Without adapters they are all
weights, and the reference is the start, or another model of the same architecture. With adapters
they are the adapter's, at its start, where half of it is zero and the model is its base; the
gradients in the factor that meets the zeros are zero there, so they say nothing of that factor.

The null space (``null_space = "exact"``) is dense linear algebra on all gradients, for small
models. Its rows are cells, different responses to a prompt, each weighted by how often it occurs,
so that offsets in it meet ``sum_i delta_i g_i = 0`` over the training responses. Start reading at
``ReferenceGradients``.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.autograd.forward_ad as forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from dpo_diag.errors import EngineError, RecipeError
from dpo_diag.text import EncodedResponse
from dpo_diag.training.batches import TokenBatch, by_length, pack, pack_pairs
from dpo_diag.training.forward import response_logps
from dpo_diag.training.policy import Policy
from dpo_diag.training.sources._base import Context, FieldSource
from dpo_diag.training.steps import shares

logger = logging.getLogger(__name__)

N_PASSES = 4  # per batch: the policy's own graph is in memory, so this adds a quarter of one
MAX_ENTRIES = 20_000_000  # of the dense gradient matrix, cells x parameters: 160 MB in float64
# gradients come in float32, with errors near 1e-6 of the largest singular value
RANK_TOLERANCE = 1e-5


class ReferencePoint:
    """A model with the reference's weights in place of its trained ones, and its derivatives.

    Attributes:
        parameters: the trained parameters' values at the reference, by name.
    """

    def __init__(self, policy: Policy, *, share_prompts: bool = False) -> None:
        self._model, self.share_prompts = policy.model, share_prompts
        self.parameters = {
            name: value.detach().requires_grad_() for name, value in _values(policy).items()
        }

    def get_output_embeddings(self) -> torch.nn.Module:
        """The model's output head, as ``response_logps`` asks for it."""
        return self._model.get_output_embeddings()

    def pack(
        self, chosen: Sequence[EncodedResponse], rejected: Sequence[EncodedResponse]
    ) -> TokenBatch:
        """B pairs for one pass; sequences count as chosen, then rejected."""
        device = next(iter(self.parameters.values())).device
        if self.share_prompts:
            return pack_pairs(chosen, rejected, device)
        return pack([*chosen, *rejected], device)

    def add_gradient(self, batch: TokenBatch, weights: torch.Tensor) -> None:
        """Add ``sum_i weights_i g_i`` of N sequences to the buffers that ``taken`` empties."""
        with torch.enable_grad(), self._ready():
            sums = response_logps(_At(self._model, self.parameters), batch).sums
            leaves = list(self.parameters.values())
            torch.autograd.backward((sums * weights.to(sums)).sum(), inputs=leaves)

    def taken(self) -> dict[str, torch.Tensor]:
        """What ``add_gradient`` has added up, by parameter; the buffers are empty afterwards."""
        result = {}
        for name, value in self.parameters.items():
            result[name] = torch.zeros_like(value) if value.grad is None else value.grad
            value.grad = None
        return result

    def along(self, batch: TokenBatch, vector: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """``<g_i, vector>`` of N sequences, (N,), from one forward-mode pass.

        Raises:
            EngineError: the model has an operation without a forward-mode derivative.
        """
        # only the plain attention kernel has a forward-mode derivative
        with torch.no_grad(), self._ready(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
            duals = {
                name: forward_ad.make_dual(value.detach(), vector[name])
                for name, value in self.parameters.items()
            }
            try:
                sums = response_logps(_At(self._model, duals), batch).sums
            except NotImplementedError as error:
                raise EngineError(
                    f"{type(self._model).__name__} cannot be differentiated in forward mode, "
                    f"which inner products of gradients need: {error}; take another variant."
                ) from error
            tangent = forward_ad.unpack_dual(sums).tangent
            return torch.zeros_like(sums) if tangent is None else tangent

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """Without dropout or activation checkpointing; every module's mode comes back."""
        modes = [(module, module.training) for module in self._model.modules()]
        self._model.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode


class _At:
    """The model as a function of its trained parameters."""

    def __init__(self, model: Any, parameters: Mapping[str, torch.Tensor]) -> None:
        self._model, self._parameters = model, parameters

    def __call__(self, **inputs: Any) -> Any:
        return functional_call(self._model, dict(self._parameters), (), inputs)

    def get_output_embeddings(self) -> torch.nn.Module:
        return self._model.get_output_embeddings()


class BatchProducts:
    """``variants._base.GradientProducts`` of B pairs."""

    def __init__(
        self,
        point: ReferencePoint,
        chosen: Sequence[EncodedResponse],
        rejected: Sequence[EncodedResponse],
    ) -> None:
        self._point, self._sides = point, (chosen, rejected)

    def __call__(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(||v||^2, <g_i, v>)`` for ``v = sum_i weights_i g_i``, see there."""
        passes = [(index, self._packed(index)) for index in self._portions()]
        weights = weights.detach()
        for index, batch in passes:
            self._point.add_gradient(batch, weights[index].T.reshape(-1))
        vector = self._point.taken()
        square = torch.stack([v.float().square().sum() for v in vector.values()]).sum()
        products = torch.zeros(weights.shape, device=square.device)
        for index, batch in passes:
            along = self._point.along(batch, vector).to(products.dtype)
            products[index] = along.reshape(2, -1).T
        return square, products

    def _portions(self) -> list[np.ndarray]:
        """The pairs in passes of like length: little padding, and little memory at a time."""
        whole = [
            EncodedResponse(c.prompt_ids, (*c.response_ids, *r.response_ids))
            for c, r in zip(*self._sides, strict=True)
        ]
        return list(by_length(whole, -(-len(whole) // N_PASSES)))

    def _packed(self, index: np.ndarray) -> TokenBatch:
        return self._point.pack(*([side[i] for i in index] for side in self._sides))


class ReferenceGradients(FieldSource):
    """``PairLogps.gradients`` of training pairs; nothing for validation pairs.

    Attributes:
        null_space: (n, 2, k) float32, with ``null_space = "exact"`` of the variant: offsets of all
            training responses (chosen first) in k coordinates; None otherwise.
    """

    null_space: torch.Tensor | None = None

    def __init__(self, context: Context) -> None:
        self._context = context
        if not context.is_training:
            return
        self._point = ReferencePoint(
            context.policy, share_prompts=shares(context.policy.model, context)
        )
        if getattr(context.variant, "null_space", "") == "exact":
            self.null_space = exact_null_space(self._point, context.chosen, context.rejected)

    def fields(self, index: np.ndarray) -> Mapping[str, Any]:
        """The inner products of the pairs' gradients, computed when they are called."""
        if not self._context.is_training:
            return {}
        chosen = [self._context.chosen[i] for i in index]
        rejected = [self._context.rejected[i] for i in index]
        return {"gradients": BatchProducts(self._point, chosen, rejected)}


def exact_null_space(
    point: ReferencePoint,
    chosen: Sequence[EncodedResponse],
    rejected: Sequence[EncodedResponse],
) -> torch.Tensor:
    """Offsets with ``sum_i delta_i g_i = 0``, equal for equal responses to a prompt.

    Args:
        point: the reference.
        chosen: n answers.
        rejected: the others of the same pairs.

    Returns:
        (n, 2, k) float32: the offsets of each pair's responses are this times k coordinates.

    Raises:
        RecipeError: too many responses times parameters.
    """
    answers = [*chosen, *rejected]
    cells = {(tuple(a.prompt_ids), tuple(a.response_ids)): a for a in answers}
    place = {key: row for row, key in enumerate(cells)}
    rows = [place[tuple(a.prompt_ids), tuple(a.response_ids)] for a in answers]
    n_parameters = sum(value.numel() for value in point.parameters.values())
    if len(cells) * n_parameters > MAX_ENTRIES:
        raise RecipeError(
            f"null_space exact is for small models: {len(cells)} responses times {n_parameters} "
            f"trained parameters are more than {MAX_ENTRIES} numbers; take null_space penalty, "
            "adapters of low rank or fewer pairs."
        )
    gradients = torch.stack([response_gradient(point, cell) for cell in cells.values()])
    counts = torch.bincount(torch.tensor(rows), minlength=len(cells))
    basis = null_space_basis(gradients, counts)
    level = logging.INFO if basis.shape[1] else logging.WARNING
    message = "null space: %d of %d dimensions%s"
    note = "" if basis.shape[1] else "; all offsets stay 0, and the run is DPO"
    logger.log(level, message, basis.shape[1], len(cells), note)
    return basis[rows].reshape(2, len(chosen), -1).transpose(0, 1).float().contiguous()


def response_gradient(point: ReferencePoint, answer: EncodedResponse) -> torch.Tensor:
    """``g`` of one response, (d,) float32 on the CPU, parameters in the model's order."""
    device = next(iter(point.parameters.values())).device
    point.add_gradient(pack([answer], device), torch.ones(1, device=device))
    return torch.cat([value.reshape(-1).float().cpu() for value in point.taken().values()])


def null_space_basis(gradients: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Orthonormal basis of the offsets ``delta`` with ``sum_i weights_i delta_i g_i = 0``.

    Args:
        gradients: (M, d), one per cell.
        weights: (M,), greater than 0: how often a cell occurs, or its probability.

    Returns:
        (M, k) float64; k = 0 where the weighted gradients are independent. Singular values below
        1e-5 of the largest count as 0.
    """
    matrix = (gradients.double() * weights.double()[:, None]).T  # (d, M), the paper's A D
    if matrix.shape[0] > matrix.shape[1]:
        matrix = torch.linalg.qr(matrix, mode="r").R  # same null space, (M, M)
    _, values, right = torch.linalg.svd(matrix, full_matrices=True)  # right: (M, M)
    largest = float(values.max()) if len(values) else 0.0
    rank = int((values > RANK_TOLERANCE * largest).sum())
    return right[rank:].T.contiguous()


def _values(policy: Policy) -> dict[str, torch.Tensor]:
    """The trained parameters' values at the reference, by their name in the policy.

    Raises:
        RecipeError: a reference that is not in the policy's parameter space.
    """
    trained = {n: p for n, p in policy.model.named_parameters() if p.requires_grad}
    if policy.reference.fingerprint == policy.base.fingerprint:
        return {name: value.detach().clone() for name, value in trained.items()}
    other = dict(policy.reference_model.named_parameters())
    for name, value in trained.items():
        if name not in other or other[name].shape != value.shape:
            raise RecipeError(
                f"gradients of the reference in the trained parameters need a reference of the "
                f"policy's own architecture, without adapters; {name} is not in "
                f"{policy.reference.source}. Leave out run.reference, or train without lora."
            )
    return {name: other[name].detach() for name in trained}


make_source = ReferenceGradients
