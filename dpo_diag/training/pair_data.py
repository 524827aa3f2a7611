"""Preference pairs ready for training: token ids, reference log-probs, labels, in fixed order.

Reference log-probs are properties of the content and of the reference alone, so they are computed
once, before anything is swapped or dropped (``reference``). Start reading at ``prepare_pairs``.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from dpo_diag.engines._heads import answer_scores
from dpo_diag.store import RowStore
from dpo_diag.tables import content_hash
from dpo_diag.text import EncodedResponse, encode_pairs
from dpo_diag.training.batches import pack, pack_answers
from dpo_diag.training.forward import ResponseLogps, attributed_logps, response_logps
from dpo_diag.training.inputs import Inputs
from dpo_diag.training.policy import Policy
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.reference import reference_rows
from dpo_diag.training.sources._base import (
    Context,
    FieldSource,
    Pass,
    make_sources,
    required_column,
)
from dpo_diag.variants._base import PairLogps, Variant

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairData:
    """n pairs in training order of index; all arrays have length n.

    Attributes:
        pair_ids: content ids of the pairs as given (a swapped pair keeps its id).
        chosen, rejected: token ids.
        ref_chosen, ref_rejected: float64, nats; NaN where the variant needs no reference.
        frame: the pairs' rows, sides as trained on.
        is_training: false for validation pairs, which have no index of their own: -1.
        keep_tokens: the variant reads log-probs per token.
        attribute: the variant reads how much each token moves the last logit.
        is_scored: the model gives scores, not log-probs.
        counts: what was kept, swapped, dropped, truncated.
        sources: what else the variant needs, by need.
    """

    pair_ids: tuple[str, ...]
    chosen: tuple[EncodedResponse, ...]
    rejected: tuple[EncodedResponse, ...]
    ref_chosen: np.ndarray
    ref_rejected: np.ndarray
    frame: pd.DataFrame = field(default_factory=pd.DataFrame)
    is_training: bool = True
    keep_tokens: bool = False
    attribute: bool = False
    is_scored: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, FieldSource] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pair_ids)


@dataclass(frozen=True)
class Material:
    """What pairs are made ready with.

    Attributes:
        policy: its reference is asked, once; rows of an earlier run are reused.
        variant: says what is needed and what its labels do to pairs.
        recipe: of the run.
        store: where reference rows are kept.
        inputs: data beside the pairs.
        folder: the run's.
    """

    policy: Policy
    variant: Variant
    recipe: Recipe
    store: RowStore
    inputs: Inputs
    folder: Path


def prepare_pairs(frame: pd.DataFrame, material: Material, *, is_training: bool) -> PairData:
    """Encode, score under the reference and relabel the pairs of one split.

    Args:
        frame: PreferencePairs.
        material: model, variant and the rest.
        is_training: whether they are trained on; false for validation.

    Raises:
        DataError: labels or columns are needed and missing, or a pair cannot be encoded.
    """
    policy, variant = material.policy, material.variant
    encoded = encode_pairs(frame, policy.encoder)
    if variant.needs.reference:
        scores = reference_rows(frame, encoded, policy, material.store)
        references = [scores[f"logp_{side}"].to_numpy() for side in ("chosen", "rejected")]
    else:
        references = [np.full(len(frame), np.nan)] * 2
    data = PairData(
        tuple(frame["pair_id"]),
        tuple(encoded.chosen),
        tuple(encoded.rejected),
        *references,
        frame=frame.reset_index(drop=True),
        is_training=is_training,
        keep_tokens=variant.needs.token_logps,
        attribute=variant.needs.attribution,
        is_scored=variant.needs.score_head,
        counts={"pairs": len(frame), "truncated": encoded.n_truncated},
    )
    section = material.recipe.data
    data = _relabelled(_flipped(data, section.flip_labels, section.flip_seed), variant)
    context = Context(
        data.frame,
        data.chosen,
        data.rejected,
        policy,
        variant,
        material.recipe,
        material.inputs,
        is_training,
        material.folder,
    )
    sources = make_sources(context) if len(data) else {}
    counts = {name: n for source in sources.values() for name, n in source.counts.items()}
    return replace(data, sources=sources, counts={**data.counts, **counts})


def pair_logps(
    model: torch.nn.Module,
    data: PairData,
    index: np.ndarray,
    *,
    share_prompts: bool = False,
) -> PairLogps:
    """The policy's and reference's log-probs of B pairs, from one forward pass.

    Of a model with a score head, its scores instead.

    Args:
        model: the policy.
        data: all pairs.
        index: (B,) positions in ``data``.
        share_prompts: the prompt passes the model once for both answers; only where
            ``forward.shares_prompts`` holds.
    """
    n, device = len(index), next(model.parameters()).device
    pairs = [[side[i] for i in index] for side in (data.chosen, data.rejected)]
    given = {need: source.answers(index) for need, source in data.sources.items()}
    beside = {need: answers for need, answers in given.items() if answers}
    sides = [*pairs, *beside.values()]
    if data.is_scored:
        return _pair_scores(model, data, index, pairs)
    if share_prompts:
        batch = pack_answers(sides, device, fold=bool(beside))
    else:
        batch = pack(list(chain.from_iterable(sides)), device)
    logps = (attributed_logps if data.attribute else response_logps)(model, batch)
    chosen, rejected, *others = logps.sides(n)
    references = [
        torch.as_tensor(values[index], device=device).to(logps.sums.dtype)
        for values in (data.ref_chosen, data.ref_rejected)
    ]
    place = index if data.is_training else np.full(n, -1)
    passes = {
        need: Pass(chosen, rejected, other) for need, other in zip(beside, others, strict=True)
    }
    return PairLogps(
        *(chosen.sums, rejected.sums),
        *references,
        *(batch.n_tokens[:n], batch.n_tokens[n : 2 * n]),
        torch.as_tensor(place, device=device),
        **(_token_fields(chosen, rejected) if data.keep_tokens else {}),
        **_source_fields(data, index, passes, Pass(chosen, rejected)),
    )


def _pair_scores(
    model: torch.nn.Module, data: PairData, index: np.ndarray, sides: list[list[EncodedResponse]]
) -> PairLogps:
    """The head's scores of both answers where a policy has log-probs; there is no reference."""
    device = next(model.parameters()).device
    chosen, rejected = answer_scores(model, [*sides[0], *sides[1]])[:, 0].chunk(2)
    lengths = [torch.tensor([len(a.response_ids) for a in s], device=device) for s in sides]
    place = index if data.is_training else np.full(len(index), -1)
    unknown = torch.full_like(chosen, torch.nan, requires_grad=False)
    return PairLogps(
        chosen, rejected, unknown, unknown, *lengths, torch.as_tensor(place, device=device)
    )


def _source_fields(
    data: PairData, index: np.ndarray, passes: Mapping[str, Pass], plain: Pass
) -> dict[str, Any]:
    """The sources' fields; ``plain`` is the pass of those without answers of their own."""
    fields: dict[str, Any] = {"extra": {}}
    for need, source in data.sources.items():
        given = {
            **source.fields(index),
            **source.fields_of_pass(index, passes.get(need, plain)),
        }
        fields["extra"].update(given.pop("extra", {}))
        fields.update(given)
    return fields


def _token_fields(chosen: ResponseLogps, rejected: ResponseLogps) -> dict[str, torch.Tensor]:
    return {
        "token_logps_chosen": chosen.tokens,
        "token_logps_rejected": rejected.tokens,
        "mask_chosen": chosen.mask,
        "mask_rejected": rejected.mask,
    }


def _relabelled(data: PairData, variant: Variant) -> PairData:
    if type(variant).relabel is Variant.relabel:
        return data
    types = dict.fromkeys(variant.needs.columns, np.float64)
    if variant.needs.safety_labels:
        types |= dict.fromkeys(("is_chosen_safe", "is_rejected_safe"), np.bool_)
    labels = {
        name: torch.from_numpy(
            required_column(data.frame, name, variant).to_numpy(dtype=kind, copy=True)
        )
        for name, kind in types.items()
    }
    if variant.needs.segments:
        for side in ("chosen", "rejected"):
            has_tag = [variant.segment_tag in text for text in data.frame[side]]
            labels[f"has_tag_{side}"] = torch.tensor(has_tag)
    actions = variant.relabel(labels)
    if actions is None:
        return data
    keep, swap = actions.keep.numpy(), (actions.swap & actions.keep).numpy()
    counts = {"kept": int((keep & ~swap).sum()), "swapped": int(swap.sum())}
    counts["dropped"] = int((~keep).sum())
    logger.info("%s: %s", variant.name, ", ".join(f"{v} {k}" for k, v in counts.items()))
    return _exchanged(data, keep, swap, counts)


def _flipped(data: PairData, rate: float, seed: int) -> PairData:
    """The pairs with a share of labels turned around; the draw goes with the pair's id."""
    if not (rate and data.is_training):
        return data
    swap = flips(data.pair_ids, rate, seed)
    logger.info("flip_labels: %d of %d labels turned around", swap.sum(), len(data))
    return _exchanged(data, np.ones(len(data), bool), swap, {"flipped": int(swap.sum())})


def flips(pair_ids: Sequence[str], rate: float, seed: int) -> np.ndarray:
    """Which pairs ``data.flip_labels`` turns around, (n,) bool.

    Args:
        pair_ids: of the pairs as given.
        rate: each pair's chance, in [0, 1); the flips of a lower rate are among those of a higher.
        seed: which pairs; the draw goes with the pair's id, not its row.
    """
    draws = np.array([int(content_hash([seed, pair_id])[:13], 16) for pair_id in pair_ids])
    return draws / 16.0**13 < rate


def _exchanged(
    data: PairData, keep: np.ndarray, swap: np.ndarray, counts: Mapping[str, int]
) -> PairData:
    """The kept pairs, sides exchanged where ``swap`` says so; everything that has sides goes."""
    kept = np.flatnonzero(keep)

    def sides(first: Any, second: Any) -> tuple[Any, Any]:
        pairs = [(second[i], first[i]) if swap[i] else (first[i], second[i]) for i in kept]
        return tuple(a for a, _ in pairs), tuple(b for _, b in pairs)

    chosen, rejected = sides(data.chosen, data.rejected)
    references = sides(data.ref_chosen, data.ref_rejected)
    return replace(
        data,
        pair_ids=tuple(data.pair_ids[i] for i in kept),
        chosen=chosen,
        rejected=rejected,
        ref_chosen=np.array(references[0], dtype=np.float64),
        ref_rejected=np.array(references[1], dtype=np.float64),
        frame=exchanged_sides(data.frame, swap).iloc[kept].reset_index(drop=True),
        counts={**data.counts, **counts},
    )


def exchanged_sides(frame: pd.DataFrame, swap: np.ndarray) -> pd.DataFrame:
    """The rows with chosen and rejected, and all columns that speak of either, exchanged.

    Args:
        frame: PreferencePairs with any extra columns; ``x_chosen`` pairs with ``x_rejected`` and
            ``is_chosen_x`` with ``is_rejected_x``; ``gold_margin`` changes its sign, and what is a
            share of those who agree with the label (``judge_agreement``, ``prefers_chosen_x``) is
            taken from 1.
        swap: (n,) bool.
    """
    result = frame.copy()
    for name in frame.columns:
        other = name.replace("chosen", "rejected")
        if other != name and other in frame.columns:
            result[name] = frame[name].where(~swap, frame[other])
            result[other] = frame[other].where(~swap, frame[name])
    if "gold_margin" in frame.columns:
        result["gold_margin"] = frame["gold_margin"].where(~swap, -frame["gold_margin"])
    for name in frame.columns:
        if name == "judge_agreement" or name.startswith("prefers_chosen_"):
            result[name] = frame[name].where(~swap, 1.0 - frame[name])
    return result
