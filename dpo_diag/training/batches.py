"""Token ids in rectangular batches, and where the response's tokens are in them.

Rows are padded on the right: under causal attention no counted position ever sees the padding, so
neither a mask nor position ids are needed. Start reading at ``pack``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

MAX_FOLDED_ROW = 512
"""Tokens of the longest row that two prompts share: attention's cost grows with the square."""


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
        position_ids: (rows, T) int64, only where answers share a row.
        mask: (rows, 1, T, T) bool, true where a token (row) sees another (column), likewise.
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
    sides: Sequence[Sequence[Tokens]], device: torch.device | str = "cpu", *, fold: bool = False
) -> TokenBatch:
    """S answers to each of B prompts, the prompt and its answers as one stretch of a row.

    The prompt passes the model once; no answer sees another, and each continues at the prompt's
    last position. Sequences count as the first side's 0 .. B-1, then the second's, and so on.

    Args:
        sides: S lists of B answers to the same prompts.
        device: where the tensors go.
        fold: two prompts with their answers share a row, a long with a short stretch, where that
            saves a tenth of the padded positions or more and rows stay short.
    """
    prompt = np.array([len(s.prompt_ids) for s in sides[0]])
    n = np.array([[len(s.response_ids) for s in side] for side in sides])  # (S, B)
    inputs = n - 1  # an answer's last token is no input
    rows, origins, shape = _places(prompt + inputs.sum(0), fold=fold)
    ids, position_ids = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    segment = np.full(shape, -1)  # of each prompt 0, S + 1, ...; its answers follow; -1 padding
    positions, targets = [], []
    for item, first in enumerate(sides[0]):
        place = (rows[item], slice(origins[item], origins[item] + prompt[item]))
        ids[place], segment[place] = first.prompt_ids, item * (len(sides) + 1)
        position_ids[place] = np.arange(prompt[item])
    starts = origins + prompt + np.cumsum(inputs, axis=0) - inputs  # (S, B)
    for side, answers in enumerate(sides):
        for item, answer in enumerate(answers):
            start, row = starts[side, item], rows[item]
            columns = start + np.arange(inputs[side, item])
            ids[row, columns] = answer.response_ids[:-1]
            segment[row, columns] = item * (len(sides) + 1) + side + 1
            position_ids[row, columns] = prompt[item] + columns - start
            before = origins[item] + prompt[item] - 1  # predicts the first token
            positions.append(row * shape[1] + np.concatenate([[before], columns]))
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
    mask = _own_stretch(torch.from_numpy(segment).to(device), len(sides) + 1)
    return TokenBatch(*(torch.from_numpy(a).to(device) for a in arrays), mask=mask)


def _places(lengths: np.ndarray, *, fold: bool) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Row and first column of each stretch, (B,) each, and the shape of all rows."""
    n, widest = len(lengths), int(lengths.max())
    rows, origins = np.arange(n), np.zeros(n, dtype=np.int64)
    half = -(-n // 2)
    order = np.argsort(-lengths, kind="stable")
    long, short = order[:half], order[: half - 1 : -1]  # the longest goes with the shortest
    width = int((lengths[long] + np.pad(lengths[short], (0, half - len(short)))).max())
    if not fold or width > MAX_FOLDED_ROW or half * width > 0.9 * n * widest:
        return rows, origins, (n, widest)
    rows[long], rows[short] = np.arange(half), np.arange(len(short))
    origins[short] = lengths[long[: len(short)]]
    return rows, origins, (half, width)


def _own_stretch(segment: torch.Tensor, n_segments: int) -> torch.Tensor:
    """Who sees whom, (rows, 1, T, T) bool: what came before in one's own segment and prompt."""
    prompt = segment - segment % n_segments
    query, key = segment[:, :, None], segment[:, None, :]
    is_visible = (key == query) | (key == prompt[:, :, None])
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
