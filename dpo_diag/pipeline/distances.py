"""How far each prompt is from the training prompts: by embedding and by surprise.

The embedding is the reference's own mean last hidden state, or that of any sentence encoder; the
surprise is the reference's. Neither sees the policy. Rows are stored by content, one for each
reference and prompt. Start reading at ``distance_rows``.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from dpo_diag import __version__
from dpo_diag.checkpoints import Checkpoint, ModelRef
from dpo_diag.engines._base import Engine, ScoreRequest
from dpo_diag.engines._embedding import embedded
from dpo_diag.errors import CheckpointError, DataError, EngineError
from dpo_diag.model_folders import locate, open_model
from dpo_diag.pairs import PairSet
from dpo_diag.pipeline.work import EngineChoice, EnginePool, Work, encoder_for
from dpo_diag.stats.neighbours import nearest_distance
from dpo_diag.tables import PROMPT_DISTANCES, concat, content_hash, validate

Advance = Callable[[int], None]
N_NEAREST = 5
MOST_TRAINING = 5000  # training prompts compared with; of more, a random part
CHUNK = 512  # prompts per call of an engine


@dataclass(frozen=True)
class Distances:
    """PROMPT_DISTANCES of every reference, and what there is to say about them."""

    table: pd.DataFrame
    notes: tuple[str, ...]


def distance_rows(
    checkpoints: Sequence[Checkpoint],
    pairs: PairSet,
    training: PairSet,
    choice: EngineChoice,
    work: Work,
    *,
    encoder: str = "",
) -> Distances:
    """The distance of every prompt of the pairs from the training prompts.

    Args:
        checkpoints: those whose references are asked, each reference once.
        pairs: whose prompts.
        training: the pairs that the models were trained on.
        choice: device, dtype and truncation; hidden states are read by the engine hf.
        work: store and voice.
        encoder: folder or hub id of a sentence encoder; empty takes the reference's own states.

    Raises:
        CheckpointError: no such encoder, or an adapter.
        EngineError: the encoder or the reference cannot be read.
        DataError: no training pairs.
    """
    asked, base = _prompts(pairs.frame), _prompts(training.frame)
    if not len(base):
        raise DataError(f"{training.source}: holds no training pairs to be near to.")
    kept = base.head(MOST_TRAINING)  # in order of their ids, which are hashes: a random part
    other = sentence_encoder(encoder) if encoder else None
    choice = replace(choice, name="hf")
    parts, done = [], set()
    for checkpoint in checkpoints:
        reference = checkpoint.reference
        if reference is None or reference.fingerprint in done:
            continue
        done.add(reference.fingerprint)
        plan = _Plan(reference, checkpoint.template, asked, base, kept, other)
        parts.append(_rows(plan, choice, work))
    notes = [
        f"Distances are from {len(kept)} of {len(base)} training prompts ({training.source}), "
        f"embedded by {other.name if other else 'each reference itself'}."
    ]
    return Distances(concat(parts, PROMPT_DISTANCES), tuple(notes))


@dataclass(frozen=True)
class _Plan:
    """One reference's work: its prompts asked about, all training prompts and those kept."""

    reference: ModelRef
    template: str | None
    asked: pd.DataFrame
    base: pd.DataFrame
    kept: pd.DataFrame
    encoder: ModelRef | None


def _rows(plan: _Plan, choice: EngineChoice, work: Work) -> pd.DataFrame:
    """Stored rows first, the missing ones made and stored."""
    reference = plan.reference
    text = encoder_for(reference, plan.asked, choice, plan.template)
    address = {
        "table": PROMPT_DISTANCES.name,
        "fingerprint": reference.fingerprint,
        "encoder": plan.encoder.fingerprint if plan.encoder else "reference",
        "tokenizer": text.hash,
        "dtype": choice.options.dtype,
        "truncate": choice.truncate,
        "max_length": choice.options.max_length,
        "training": content_hash(sorted(plan.base["prompt_id"])),
    }
    known = work.store.read(PROMPT_DISTANCES, address).drop_duplicates("prompt_id")
    missing = plan.asked[~plan.asked["prompt_id"].isin(set(known["prompt_id"]))]
    if len(missing):
        made = _made(replace(plan, asked=missing), choice, work)
        work.store.append(PROMPT_DISTANCES, address, made, {"dpo_diag": __version__})
        known = concat([known, made], PROMPT_DISTANCES)
    rows = plan.asked[["prompt_id"]].merge(known, on="prompt_id", how="left")
    rows["reference_id"] = reference.model_id
    return validate(rows[list(PROMPT_DISTANCES.column_names)], PROMPT_DISTANCES, reference.name)


def _made(plan: _Plan, choice: EngineChoice, work: Work) -> pd.DataFrame:
    text = encoder_for(plan.reference, plan.asked, choice, plan.template)
    ids, base_ids = (
        [text.prompt_ids(p, m) for p, m in zip(f["prompt"], f["turns"], strict=True)]
        for f in (plan.asked, plan.base)
    )
    chosen = dict(zip(plan.base["prompt_id"], base_ids, strict=True))
    near_ids = [chosen[prompt_id] for prompt_id in plan.kept["prompt_id"]]
    total = 2 * len(ids) + len(near_ids)
    with (
        EnginePool(choice, "score", work) as pool,
        work.bar(f"measuring distances by {plan.reference.name}", total) as advance,
    ):
        engine = pool.get(plan.reference, [])
        surprise = _surprise(engine, ids, advance)
        if plan.encoder is None:
            points, base = (_means(engine, rows, advance) for rows in (ids, near_ids))
    if plan.encoder is not None:
        folder, options = plan.encoder.path, choice.options
        points, base = (
            embedded(folder, list(f["prompt"]), options) for f in (plan.asked, plan.kept)
        )
    place = {prompt_id: i for i, prompt_id in enumerate(plan.kept["prompt_id"])}
    own = np.array([place.get(prompt_id, -1) for prompt_id in plan.asked["prompt_id"]])
    near = nearest_distance(points, base, n_nearest=N_NEAREST, own=own)
    names = np.array([*plan.kept["prompt_id"], None], dtype=object)
    return pd.DataFrame(
        {
            "reference_id": plan.reference.model_id,
            "prompt_id": plan.asked["prompt_id"].to_numpy(),
            "encoder": plan.encoder.model_id if plan.encoder else plan.reference.model_id,
            "distance": near.distance,
            "nearest_prompt_id": names[near.index],
            "seen_share": seen_shares(ids, base_ids),
            "prompt_surprise": surprise,
        }
    )


def seen_shares(ids: Sequence[Sequence[int]], base: Sequence[Sequence[int]]) -> np.ndarray:
    """Of each item's couples of neighbouring tokens the share that a base item has, (n,).

    NaN for an item of one token.
    """
    seen = {couple for row in base for couple in itertools.pairwise(row)}
    shares = np.full(len(ids), np.nan)
    for index, row in enumerate(ids):
        couples = list(itertools.pairwise(row))
        if couples:
            shares[index] = sum(couple in seen for couple in couples) / len(couples)
    return shares


def _surprise(engine: Engine, ids: Sequence[tuple[int, ...]], advance: Advance) -> np.ndarray:
    """Minus the mean log-prob of the tokens after the first, nats; NaN for one token."""
    surprise = np.full(len(ids), np.nan)
    longer = [index for index, row in enumerate(ids) if len(row) > 1]
    for start in range(0, len(longer), CHUNK):
        part = longer[start : start + CHUNK]
        scores = engine.score([ScoreRequest(ids[i][:1], ids[i][1:]) for i in part])
        surprise[part] = -scores.logp / scores.n_tokens
        advance(len(part))
    return surprise


def _means(engine: Engine, ids: Sequence[tuple[int, ...]], advance: Advance) -> np.ndarray:
    """Mean last-layer state over each prompt's tokens, (n, H).

    The engine sums the states before each token of a response; with the prompt's first token as
    prompt and its last token once more as the end of the response, these are all of the prompt's.
    """
    parts = []
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        sums = engine.state_sums([ScoreRequest(row[:1], (*row[1:], row[-1])) for row in part])
        parts.append(sums / np.array([len(row) for row in part])[:, None])
        advance(len(part))
    states = np.concatenate(parts)
    if not np.isfinite(states).all():
        raise EngineError(
            f"{engine.model_path}: its hidden states are no numbers; the weights or the dtype are "
            "broken. Try --dtype float32."
        )
    return states


def _prompts(frame: pd.DataFrame) -> pd.DataFrame:
    """Each prompt once, in order of its id, with its turns where it is a conversation."""
    once = frame.drop_duplicates("prompt_id").sort_values("prompt_id", ignore_index=True)
    turns: Sequence[object] = [None] * len(once)
    if "prompt_messages" in once.columns:
        turns = [m if isinstance(m, str) else None for m in once["prompt_messages"]]
    return once.assign(turns=turns)


def sentence_encoder(source: str) -> ModelRef:
    """The encoder in a folder or on the hub, checked as far as possible without loading it.

    Raises:
        CheckpointError: there is none, it has no tokenizer, or it is an adapter.
    """
    model = open_model(locate(source))
    if model.adapter is not None:
        raise CheckpointError(
            f"{source}: is an adapter; take a whole sentence encoder for --distance-model."
        )
    return model
