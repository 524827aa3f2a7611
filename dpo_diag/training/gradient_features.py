"""What each pair asks of a model: the gradient of its margin, streamed pair by pair.

The feature of pair i is ``g_i = grad [log p(chosen | x) - log p(rejected | x)]`` in the trained
parameters where the model stands (its reference, for DPO), log-probs summed over response tokens.
At the reference the gradient of the DPO loss of pair i is ``-beta / 2 * g_i``, so inner products
``<g_i, g_j>`` say what a step on pair j does to the margin of pair i, and a parameter change
``delta`` of a run moves it by ``<g_i, delta>`` to first order.

Which parameters: all weights, tied ones counted once, or those of a LoRA adapter at its start.
There its factor B is zero, so the gradient in A is zero and only B's is not: such features know
the subspace in which the run starts to move, not those that A turns to later.

One pair at a time passes forward and backward; nothing of size pairs x parameters exists. Start
reading at ``MarginGradients``; ``gradient_work`` runs it over many pairs.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from dpo_diag.encoded import EncodedResponse
from dpo_diag.errors import RecipeError
from dpo_diag.training.batches import TokenBatch, by_length, pack, pack_pairs
from dpo_diag.training.forward import response_logps, shares_prompts
from dpo_diag.training.gradient_vocabulary import Seen, VocabularyGradients
from dpo_diag.training.steps import MAX_SHARED_ROW

logger = logging.getLogger(__name__)

MAX_LOGITS = 1 << 23  # response tokens x vocabulary in one pass: 32 MiB; more is slower, too
PROBE_PAIRS = 4
AGREEMENT = 1e-3  # of the largest entry; float32 in another order of sums errs by 1e-5

Pair = tuple[EncodedResponse, EncodedResponse]


class MarginGradients:
    """Gradients of margins in a model's trained parameters, where the model stands.

    The model is put into evaluation mode and stays in it.

    Args:
        model: a causal language model; the parameters that require gradients are the space.
        probe: a pair or more to try shortcuts on: prompts passed once for both answers, and
            ``VocabularyGradients``. Each is used only where it gives the same numbers.

    Attributes:
        model: the model.
        names: of the trained parameters, in the model's order.
        sizes: numbers of each.

    Raises:
        RecipeError: no parameter is trained, or no pair to try with.
    """

    def __init__(self, model: Any, probe: Sequence[Pair]) -> None:
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not trained or not probe:
            what = "parameter requires a gradient" if probe else "pair is given"
            raise RecipeError(f"gradient features: no {what}; there is nothing to differentiate.")
        self.model = model.eval()
        self._trained = [p for _, p in trained]
        self.names = tuple(name for name, _ in trained)
        self.sizes = tuple(p.numel() for _, p in trained)
        self._vocabulary: VocabularyGradients | None = None
        chosen, rejected = zip(*probe[:PROBE_PAIRS], strict=True)
        self._can_share = shares_prompts(model, chosen, rejected)
        self._vocabulary = self._shortcut(probe[0])

    @property
    def n_parameters(self) -> int:
        """Length of a gradient."""
        return sum(self.sizes)

    def mean(self, pairs: Sequence[Pair]) -> list[torch.Tensor]:
        """The mean gradient of B pairs, one tensor per parameter in order, in the model's dtype.

        The tensors hold until the next call.

        Raises:
            EngineError: the model has no output head.
        """
        result: list[torch.Tensor] = []
        for number, part in enumerate(self._portions(pairs)):
            given = self._pass(part, 1.0 / len(pairs), is_first=number == 0)
            result = result or given
            for sum_so_far, more in zip(result, given, strict=True):
                if sum_so_far is not more:  # the vocabulary's buffers add up by themselves
                    sum_so_far.add_(more)
        return result

    def flat(self, pairs: Sequence[Pair]) -> list[np.ndarray]:
        """``mean`` as flat float32 arrays on the CPU; they hold until the next call."""
        return [g.reshape(-1).float().cpu().numpy() for g in self.mean(pairs)]

    def _portions(self, pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
        """Pairs of like length, as many at once as memory allows."""
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        whole = [
            EncodedResponse(c.prompt_ids, (*c.response_ids, *r.response_ids)) for c, r in pairs
        ]
        longest = max(len(w.response_ids) for w in whole)
        n_at_once = max(1, MAX_LOGITS // (longest * vocabulary))
        for index in by_length(whole, n_at_once):
            yield [pairs[i] for i in index]

    def _pass(self, pairs: Sequence[Pair], scale: float, *, is_first: bool) -> list[torch.Tensor]:
        """Gradient of the scaled sum of margins, in every trained parameter."""
        vocabulary = self._vocabulary
        watched = nullcontext(Seen()) if vocabulary is None else vocabulary.watched()
        buffers = {} if vocabulary is None else vocabulary.by_weight
        own = [p for p in self._trained if id(p) not in buffers]
        with torch.enable_grad(), watched as seen:
            sums = response_logps(self.model, self._packed(pairs)).sums  # chosen, then rejected
            margin = sums[: len(pairs)].sum() - sums[len(pairs) :].sum()
            nodes = [*own, *seen.nodes]
            given = torch.autograd.grad(margin * scale, nodes, materialize_grads=True)
        if vocabulary is not None:
            vocabulary.put(seen, given[len(own) :], is_first=is_first)
        found = dict(zip(map(id, own), given, strict=False)) | buffers
        return [found[id(p)] for p in self._trained]

    def _packed(self, pairs: Sequence[Pair]) -> TokenBatch:
        device = self._trained[0].device
        chosen, rejected = zip(*pairs, strict=True)
        rows = [(len(c.prompt_ids), len(c.response_ids) + len(r.response_ids)) for c, r in pairs]
        saves = sum(p for p, _ in rows) >= 0.1 * sum(2 * p + n for p, n in rows)
        if self._can_share and saves and max(p + n for p, n in rows) <= MAX_SHARED_ROW:
            return pack_pairs(chosen, rejected, device)
        return pack([*chosen, *rejected], device)

    def _shortcut(self, probe: Pair) -> VocabularyGradients | None:
        """Embeddings and head by hand, if that gives what autograd gives."""
        expected = self.flat([probe])
        vocabulary = VocabularyGradients.of(self.model)
        if vocabulary is None:
            return None
        self._vocabulary = vocabulary
        try:
            found = self.flat([probe])
        except (RuntimeError, ValueError) as error:
            logger.info("embeddings and head are left to autograd: %s", error)
            found = []
        if len(found) == len(expected) and all(map(_agree, found, expected)):
            return vocabulary
        vocabulary.give_back()
        self._vocabulary = None
        return None


def _agree(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(found - expected).max() <= AGREEMENT * np.abs(expected).max())
