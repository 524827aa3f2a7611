"""Log-probabilities of given responses from one network: only response positions meet the head.

Requests of one prompt that follow each other (the two sides of a pair) form a group, whose prompt
is computed once where that saves work. Start reading at ``batch_logps``.
"""

from collections.abc import Sequence
from itertools import groupby

import torch

from dpo_diag.engines._base import ScoreRequest
from dpo_diag.engines._cache import make_cache, select_rows
from dpo_diag.engines._network import Network

Group = list[int]  # indices of requests with one prompt

CHUNK_LOGITS = 4_000_000  # float32 logits alive at once: 16 MB, whatever vocabulary and length
SHARING_GAIN = 0.85  # share of padded tokens below which the two passes of sharing pay


def group_by_prompt(requests: Sequence[ScoreRequest]) -> list[Group]:
    """Neighbours of equal prompt together."""
    runs = groupby(range(len(requests)), key=lambda index: requests[index].prompt_ids)
    return [list(run) for _, run in runs]


def padded_tokens(requests: Sequence[ScoreRequest], group: Group) -> int:
    """Tokens of a group in a batch of its own."""
    prompt = len(requests[group[0]].prompt_ids)
    return len(group) * (prompt + max(len(requests[i].response_ids) for i in group))


def split_groups(groups: list[Group]) -> tuple[list[Group], list[Group]] | None:
    """Two halves of a batch; a single group is halved by its requests."""
    middle = len(groups) // 2
    if middle:
        return groups[:middle], groups[middle:]
    middle = len(groups[0]) // 2
    return ([groups[0][:middle]], [groups[0][middle:]]) if middle else None


@torch.no_grad()
def batch_logps(
    network: Network, requests: Sequence[ScoreRequest], groups: Sequence[Group]
) -> dict[int, torch.Tensor]:
    """Response tokens' log-probabilities, (T_i,) float32 on the CPU, nats, by index of request.

    Args:
        network: model to score with.
        requests: all requests of the call.
        groups: those of this batch.
    """
    order = [index for group in groups for index in group]
    rows = [requests[index] for index in order]
    hidden = _states(network, rows, [len(group) for group in groups])
    targets = torch.tensor([token for row in rows for token in row.response_ids])
    logps = logps_of(network, hidden, targets.to(network.device)).cpu()
    pieces = logps.split([len(row.response_ids) for row in rows])
    return dict(zip(order, pieces, strict=True))


@torch.no_grad()
def batch_state_sums(
    network: Network, requests: Sequence[ScoreRequest], groups: Sequence[Group]
) -> dict[int, torch.Tensor]:
    """Sum of the states that predict a response's tokens, (H,) on the CPU, by index of request.

    Args:
        network: model whose last-layer states are read; its head must apply apart.
        requests: all requests of the call.
        groups: those of this batch.
    """
    order = [index for group in groups for index in group]
    rows = [requests[index] for index in order]
    hidden = _states(network, rows, [len(group) for group in groups])
    # float64, because a difference of products of these sums cancels where the answers are alike
    wide = torch.float32 if hidden.device.type == "mps" else torch.float64
    pieces = hidden.split([len(row.response_ids) for row in rows])
    sums = [piece.sum(0, dtype=wide).cpu() for piece in pieces]
    return dict(zip(order, sums, strict=True))


def logps_of(network: Network, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-probability of each target, (M,) float32, in chunks of bounded memory.

    Args:
        network: whose head is applied.
        hidden: (M, H) states that predict the targets.
        targets: (M,) token ids.
    """
    n_rows = max(1, CHUNK_LOGITS // network.config.vocab_size)
    result = torch.empty(len(targets), device=hidden.device)
    for start in range(0, len(targets), n_rows):
        chunk = slice(start, start + n_rows)
        logits = network.logits(hidden[chunk])  # (n_rows, V)
        own = logits.gather(1, targets[chunk, None])[:, 0]
        top = logits.amax(-1)
        # log-sum-exp in place: the logits are not needed again, and a copy costs a tenth of it all
        result[chunk] = own - top - logits.sub_(top[:, None]).exp_().sum(-1).log_()
    return result


def _states(network: Network, rows: Sequence[ScoreRequest], sizes: Sequence[int]) -> torch.Tensor:
    """States that predict response tokens, (M, H), row after row, by the cheaper of two ways.

    Args:
        network: model to run.
        rows: the batch; rows of one prompt follow each other.
        sizes: number of rows of each prompt.
    """
    longest_prompt = max(len(row.prompt_ids) for row in rows)
    longest_response = max(len(row.response_ids) for row in rows)
    longest = max(len(row.prompt_ids) + len(row.response_ids) for row in rows)
    shared = len(sizes) * longest_prompt + len(rows) * longest_response
    if network.pads_left and shared < SHARING_GAIN * len(rows) * longest:
        return _shared_states(network, rows, sizes)
    return _plain_states(network, rows, longest)


def _plain_states(network: Network, rows: Sequence[ScoreRequest], width: int) -> torch.Tensor:
    """States that predict response tokens, (M, H), from one pass over prompts and responses.

    Rows are padded on the right, where causal attention never looks from a counted position, so
    no mask is needed. The last token predicts nothing that is counted and is left out.
    """
    whole = [(row.prompt_ids + row.response_ids)[:-1] for row in rows]
    ids = torch.tensor([row + (0,) * (width - 1 - len(row)) for row in whole])
    hidden = network.hidden(ids.to(network.device))  # (B, T, H)
    firsts = [len(row.prompt_ids) - 1 for row in rows]
    return _counted(hidden, firsts, [len(row.response_ids) for row in rows])


def _shared_states(
    network: Network, rows: Sequence[ScoreRequest], sizes: Sequence[int]
) -> torch.Tensor:
    """The same from two passes: prompts once each (padded on the left), then the responses."""
    device = network.device
    starts = torch.tensor([0, *sizes]).cumsum(0)[:-1].tolist()
    prompts = [rows[start].prompt_ids for start in starts]
    width = max(map(len, prompts))
    rest = max(len(row.response_ids) for row in rows) - 1  # the last token predicts nothing
    ids = torch.tensor([(0,) * (width - len(p)) + p for p in prompts], device=device)
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    mask = (torch.arange(width, device=device) >= width - lengths[:, None]).long()
    is_padded = bool((lengths < width).any())
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    cache = make_cache(network.config, width + rest)
    first = network.hidden(
        ids,
        mask=mask if is_padded else None,
        positions=positions if is_padded else None,
        cache=cache,
    )[:, -1:]
    source = torch.repeat_interleave(
        torch.arange(len(prompts)), torch.tensor(sizes, dtype=torch.long)
    ).to(device)
    hidden = first[source]  # (B, 1, H)
    if rest:
        select_rows(cache, source)
        bodies = [row.response_ids[:-1] for row in rows]
        bodies = torch.tensor([body + (0,) * (rest - len(body)) for body in bodies], device=device)
        positions = lengths[source, None] + torch.arange(rest, device=device)
        seen = torch.cat([mask[source], mask.new_ones(len(rows), rest)], dim=1)
        later = network.hidden(bodies, mask=seen, positions=positions, cache=cache)
        hidden = torch.cat([hidden, later], dim=1)  # (B, 1 + rest, H)
    return _counted(hidden, [0] * len(rows), [len(row.response_ids) for row in rows])


def _counted(hidden: torch.Tensor, firsts: Sequence[int], lengths: Sequence[int]) -> torch.Tensor:
    """States (M, H) of each row from its first counted position on."""
    width = hidden.shape[1]
    places = [
        row * width + first + step
        for row, (first, length) in enumerate(zip(firsts, lengths, strict=True))
        for step in range(length)
    ]
    return hidden.flatten(0, 1)[torch.tensor(places, device=hidden.device)]
