"""Log-probabilities of responses under a causal language model, lean enough to train with.

One forward pass for all sequences of a batch, and only the positions that predict a response
token go through the output head: prompt positions would cost memory of their number times the
vocabulary for numbers nobody reads. The selection is done by a hook on the head, so whatever the
model does around it (scaling, soft-capping, adapters) stays in force. Start reading at
``response_logps``.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from dpo_diag.errors import EngineError
from dpo_diag.training.batches import TokenBatch, Tokens, pack, pack_pairs

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResponseLogps:
    """Log-probs of N responses in nats.

    Attributes:
        sums: (N,) float32 with gradient (float64 without).
        tokens: (N, W) per token, 0 on padding, W the longest response.
        mask: (N, W) bool, true on tokens.
        attribution: (N, W) float32, no gradient; only of ``attributed_logps``.
    """

    sums: torch.Tensor
    tokens: torch.Tensor
    mask: torch.Tensor
    attribution: torch.Tensor | None = None

    def sides(self, n: int) -> "tuple[ResponseLogps, ...]":
        """The sequences ``n`` by ``n``; the two answers of a pair, which come first, of one width.

        Args:
            n: pairs, at least 1.
        """
        longest = self.mask.sum(1).tolist()
        starts = range(0, len(self.sums), n)
        widths = [max(longest[: 2 * n] if i < 2 * n else longest[i : i + n]) for i in starts]
        return tuple(self._part(i, n, width) for i, width in zip(starts, widths, strict=True))

    def _part(self, start: int, n: int, width: int) -> "ResponseLogps":
        rows, given = slice(start, start + n), self.attribution
        return ResponseLogps(
            self.sums[rows],
            self.tokens[rows, :width],
            self.mask[rows, :width],
            None if given is None else given[rows, :width],
        )


def response_logps(model: torch.nn.Module, batch: TokenBatch) -> ResponseLogps:
    """Log p(response | prompt) of each sequence, at temperature 1.

    The log-softmax is taken in float32 whatever the model's dtype. Without gradients the sum is
    taken in float64, so that stored values do not depend on the padding.

    Raises:
        EngineError: the model has no output head, or it does not give logits per position.
    """
    logits, _ = _logits(model, batch)
    return _gathered(logits, batch, torch.is_grad_enabled())


def attributed_logps(model: torch.nn.Module, batch: TokenBatch) -> ResponseLogps:
    """``response_logps`` and, from the same pass, how much each token moves the last logit.

    The attribution of a response token is the L1 norm of the gradient of its own sequence's
    ``max_v L[v]`` with respect to the token's input embedding. ``L`` are the output head's logits
    at the last input, the position that predicts the last response token. That token is no input,
    so its attribution is 0. One more backward pass, which stops at the embeddings and touches no
    weight; it works where they are frozen, and where the caller records no gradients.

    What a model does to the head's logits afterwards (scaling, soft-capping) changes a sequence's
    attributions by one common positive factor and is left out.

    Raises:
        EngineError: as ``response_logps``; or the model does not take its inputs through its
            embedding layer once per pass.
    """
    is_recording = torch.is_grad_enabled()
    with torch.enable_grad(), _kept_embeddings(model) as embedded:
        logits, hidden = _logits(model, batch)
        if len(embedded) != 1 or embedded[0].shape[:2] != batch.input_ids.shape:
            raise EngineError(
                f"{type(model).__name__} does not look its tokens up once per pass in its input "
                "embeddings, so no token can be attributed anything; train another variant."
            )
        last = (
            batch.n_tokens.cumsum(0) - 1
        )  # rows of hidden: where each sequence's end is predicted
        target = model.get_output_embeddings()(hidden[last]).max(dim=-1).values.sum()
        gradient = torch.autograd.grad(target, embedded[0], retain_graph=is_recording)[0]
    norms = gradient.float().abs().sum(-1).reshape(-1)  # (N * T,)
    result = _gathered(logits if is_recording else logits.detach(), batch, is_recording)
    # token k enters where token k + 1 is predicted
    later = batch.columns > 0
    attribution = torch.zeros_like(result.tokens, dtype=torch.float32, requires_grad=False)
    place = (batch.rows[later], batch.columns[later] - 1)
    attribution = attribution.index_put(place, norms[batch.positions[later]])
    return replace(result, attribution=attribution)


def _logits(model: Any, batch: TokenBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits that predict response tokens, (R, V), and what the head made them from, (R, D)."""
    shared = {} if batch.mask is None else {"attention_mask": batch.mask}
    if batch.position_ids is not None:
        shared["position_ids"] = batch.position_ids
    with _only_positions(model, batch.positions) as selected:
        logits = model(input_ids=batch.input_ids, use_cache=False, **shared).logits  # (1, R, V)
    n = len(batch.targets)
    if logits.shape[:-1] != (1, n):
        raise EngineError(
            f"{type(model).__name__} gave logits of shape {tuple(logits.shape)}, expected "
            f"(1, {n}, vocabulary); it does not put hidden states through its output embeddings."
        )
    return logits[0], selected[0][0]


def _gathered(logits: torch.Tensor, batch: TokenBatch, is_recording: bool) -> ResponseLogps:
    """Log-probs of the targets, (R, V) to (N, W)."""
    logp = -F.cross_entropy(logits.float(), batch.targets, reduction="none")  # (R,)
    shape = (len(batch.n_tokens), int(batch.n_tokens.max()))
    tokens = torch.zeros(shape, dtype=logp.dtype, device=logp.device)
    # put, not add: each place is written once, which is deterministic on every device
    tokens = tokens.index_put((batch.rows, batch.columns), logp)
    mask = torch.arange(shape[1], device=logp.device) < batch.n_tokens[:, None]
    sums = tokens.sum(dim=1) if is_recording else tokens.double().sum(dim=1)
    return ResponseLogps(sums, tokens, mask)


@torch.no_grad()
def shares_prompts(model: Any, chosen: Sequence[Tokens], rejected: Sequence[Tokens]) -> bool:
    """Whether the model gives the same log-probs when both answers of a pair share their prompt.

    Found out by doing both on some pairs. Not every model can: the mask must reach its attention,
    and no state may run through the sequence. Windowed attention is refused unseen, since short
    pairs would not show that the mask replaces the window.

    Args:
        model: as ``response_logps`` takes it.
        chosen: answers of a few pairs to try with.
        rejected: the others of the same pairs.
    """
    config = model.config.get_text_config()
    is_windowed = getattr(config, "sliding_window", None) is not None
    if getattr(config, "_attn_implementation", "") != "sdpa" or is_windowed:
        return False
    device = next(model.parameters()).device
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.autocast(device.type, enabled=False):
            plain = response_logps(model, pack([*chosen, *rejected], device)).sums
            shared = response_logps(model, pack_pairs(chosen, rejected, device)).sums
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        # what architectures raise that take no such mask or positions; the plain way remains
        logger.info("prompts are not shared: %s", error)
        return False
    finally:
        for module, mode in modes:
            module.training = mode
    return bool(torch.allclose(shared, plain, rtol=1e-5, atol=1e-3))


@contextmanager
def _only_positions(model: Any, positions: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Lets only some positions through the head; the list holds them, (1, R, D), after a pass."""
    head = model.get_output_embeddings()
    if head is None:
        raise EngineError(f"{type(model).__name__} has no output embeddings: no causal LM.")
    selected: list[torch.Tensor] = []

    def select(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden = inputs[0]  # (N, T, D)
        selected.append(hidden.reshape(-1, hidden.shape[-1])[positions].unsqueeze(0))
        return (selected[-1], *inputs[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield selected
    finally:
        handle.remove()


@contextmanager
def _kept_embeddings(model: Any) -> Iterator[list[torch.Tensor]]:
    """The list holds the input embeddings, (N, T, D), after a pass; they take gradients."""
    embedded: list[torch.Tensor] = []

    def keep(_: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        embedded.append(output if output.requires_grad else output.detach().requires_grad_())
        return embedded[-1]

    handle = model.get_input_embeddings().register_forward_hook(keep)
    try:
        yield embedded
    finally:
        handle.remove()
