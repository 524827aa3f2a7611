"""Token ids in rectangular batches, and where the response's tokens are in them.

Rows are padded on the right: under causal attention no counted position ever sees the padding, so
neither a mask nor position ids are needed. Start reading at ``pack``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch


class Tokens(Protocol):
    """A prompt and its response as token ids, EOS in the response; ``text.EncodedResponse`` is."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]


@dataclass(frozen=True)
class TokenBatch:
    """N sequences ready for one forward pass; R is the number of response tokens in all.

    Attributes:
        input_ids: (N, T) int64, each row without its last token, which predicts nothing.
        positions: (R,) int64, where in the flattened (N * T) hidden states each response token
            is predicted from.
        targets: (R,) int64, the response tokens.
        rows, columns: (R,) int64, sequence of each token and its place within the response.
        n_tokens: (N,) int64, response tokens of each sequence.
        position_ids: (N / 2, T) int64, only where two answers share a row.
        mask: (N / 2, 1, T, T) bool, true where a token (row) sees another (column), likewise.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    n_tokens: torch.Tensor
    position_ids: torch.Tensor | None = None
    mask: torch.Tensor | None = None


def pack(sequences: Sequence[Tokens], device: torch.device | str = "cpu") -> TokenBatch:
    """A batch of N sequences, padded to the longest.

    Args:
        sequences: non-empty prompts and responses.
        device: where the tensors go.
    """
    n_prompt = np.array([len(s.prompt_ids) for s in sequences])
    n_response = np.array([len(s.response_ids) for s in sequences])
    width = int((n_prompt + n_response).max()) - 1
    ids = np.zeros((len(sequences), width), dtype=np.int64)  # padding is never looked at: 0 will do
    for row, s in enumerate(sequences):
        whole = (*s.prompt_ids, *s.response_ids[:-1])
        ids[row, : len(whole)] = whole
    rows = np.repeat(np.arange(len(sequences)), n_response)
    columns = np.concatenate([np.arange(n) for n in n_response])
    # token k of the response stands at n_prompt + k and is predicted one position earlier
    positions = rows * width + n_prompt[rows] + columns - 1
    targets = np.concatenate([np.asarray(s.response_ids, dtype=np.int64) for s in sequences])
    tensors = (ids, positions, targets, rows, columns, n_response.astype(np.int64))
    return TokenBatch(*(torch.from_numpy(t).to(device) for t in tensors))


def pack_pairs(
    chosen: Sequence[Tokens], rejected: Sequence[Tokens], device: torch.device | str = "cpu"
) -> TokenBatch:
    """B pairs as B rows of prompt, chosen, rejected: the prompt passes the model once.

    Args:
        chosen: B answers.
        rejected: B answers to the same prompts.
        device: where the tensors go.
    """
    return pack_answers((chosen, rejected), device)


def pack_answers(
    sides: Sequence[Sequence[Tokens]], device: torch.device | str = "cpu"
) -> TokenBatch:
    """S answers to each of B prompts as B rows: the prompt passes the model once.

    No answer sees another, and each continues at the prompt's last position. Sequences count as
    the first side's 0 .. B-1, then the second's, and so on.

    Args:
        sides: S lists of B answers to the same prompts.
        device: where the tensors go.
    """
    prompt = np.array([len(s.prompt_ids) for s in sides[0]])
    n = np.array([[len(s.response_ids) for s in side] for side in sides])  # (S, B)
    # where each answer's inputs begin; an answer's last token is no input
    starts = prompt + np.cumsum(n - 1, axis=0) - (n - 1)
    shape = (len(prompt), int((prompt + (n - 1).sum(0)).max()))
    ids, position_ids = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    segment = np.full(shape, -1)  # 0 prompt, then the sides, -1 padding
    positions, targets = [], []
    for row, first in enumerate(sides[0]):
        width = prompt[row]
        ids[row, :width], segment[row, :width] = first.prompt_ids, 0
        position_ids[row, :width] = np.arange(width)
    for side, answers in enumerate(sides):
        for row, answer in enumerate(answers):
            start, inputs = starts[side, row], n[side, row] - 1
            ids[row, start : start + inputs] = answer.response_ids[:-1]
            segment[row, start : start + inputs] = side + 1
            position_ids[row, start : start + inputs] = prompt[row] + np.arange(inputs)
            before = row * shape[1] + np.array([prompt[row] - 1])  # predicts the first token
            rest = row * shape[1] + start + np.arange(inputs)
            positions.append(np.concatenate([before, rest]))
            targets.append(np.asarray(answer.response_ids, dtype=np.int64))
    n_tokens = n.ravel()
    arrays = (
        ids,
        np.concatenate(positions),
        np.concatenate(targets),
        np.repeat(np.arange(len(n_tokens)), n_tokens),
        np.concatenate([np.arange(k) for k in n_tokens]),
        n_tokens.astype(np.int64),
        position_ids,
    )
    mask = _own_row_mask(torch.from_numpy(segment).to(device))
    return TokenBatch(*(torch.from_numpy(a).to(device) for a in arrays), mask=mask)


def _own_row_mask(segment: torch.Tensor) -> torch.Tensor:
    """Who sees whom, (B, 1, T, T) bool: causal, the prompt (segment 0) and one's own segment."""
    is_visible = (segment[:, None, :] == 0) | (segment[:, None, :] == segment[:, :, None])
    causal = torch.ones(is_visible.shape[1:], dtype=torch.bool, device=segment.device).tril()
    return (is_visible & causal)[:, None]


def by_length(sequences: Sequence[Tokens], n_per_batch: int) -> Iterator[np.ndarray]:
    """Indices of batches of like length, longest first, so that running out of memory shows soon.

    Args:
        sequences: what is batched.
        n_per_batch: sequences per batch, at least 1.
    """
    lengths = [-len(s.prompt_ids) - len(s.response_ids) for s in sequences]
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), n_per_batch):
        yield order[start : start + n_per_batch]


def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of n units in an epoch: a function of seed and epoch alone, so runs can resume."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def step_units(seed: int, step: int, *, n: int, batch_size: int) -> np.ndarray:
    """Units of one optimiser step, (batch_size,) or fewer at the end of an epoch.

    Args:
        seed: the run's.
        step: 0 for the first.
        n: units there are, at least 1.
        batch_size: units per step, at least 1.
    """
    per_epoch = -(-n // batch_size)
    epoch, place = divmod(step, per_epoch)
    return epoch_order(seed, epoch, n)[place * batch_size : (place + 1) * batch_size]
