"""Pairs to explicit rewards: what a reward model scores, one stored row per pair and model.

A reward model reads text by its own tokenizer and its own template, whatever the policies read it
by. Rows are addressed by content, as log-probs are. Start reading at ``with_explicit_rewards``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from dpo_diag import __version__
from dpo_diag.checkpoints import Checkpoint, resolve_checkpoint
from dpo_diag.engines._heads import RewardModel
from dpo_diag.errors import CheckpointError, DataError
from dpo_diag.pairs import PairSet
from dpo_diag.pipeline.score import CHUNK_PAIRS
from dpo_diag.pipeline.work import EngineChoice, Work, encoder_for
from dpo_diag.tables import EXPLICIT_REWARDS, concat, content_hash, validate
from dpo_diag.text import TextEncoder, encode_pairs
from dpo_diag.weights import architecture

COLUMNS = {"reward_chosen": "explicit_reward_chosen", "reward_rejected": "explicit_reward_rejected"}


@dataclass(frozen=True)
class ExplicitChoice:
    """Which reward model, and how it reads.

    Attributes:
        source: folder or hub id of a sequence classifier.
        label: output to read; None for a model with one.
        template: ``auto`` (what its own run recorded, else by the prompts), ``chat`` or ``plain``.
    """

    source: str
    label: int | None = None
    template: str = "auto"


def with_explicit_rewards(
    pairs: PairSet, chosen: ExplicitChoice, choice: EngineChoice, work: Work
) -> PairSet:
    """The pairs with the columns ``explicit_reward_chosen`` and ``explicit_reward_rejected``.

    Args:
        pairs: in-distribution and shifted ones alike.
        chosen: the reward model.
        choice: dtype, device, window and truncation; the engine's name and template are not read.
        work: store and voice.

    Raises:
        CheckpointError: unreadable folder, or an adapter.
        EngineError: no trained score head, several outputs and none stated, broken weights.
        DataError: the pairs have such columns already.
    """
    given = [name for name in COLUMNS.values() if name in pairs.frame.columns]
    if given:
        raise DataError(
            f"{pairs.source}: has the column {', '.join(given)} already; leave --explicit out, or "
            "take the column away."
        )
    model = _resolved(chosen)
    rows = explicit_rows(model, pairs, chosen, choice=choice, work=work).rename(columns=COLUMNS)
    frame = pairs.frame.merge(rows[["pair_id", *COLUMNS.values()]], on="pair_id", how="left")
    shown = f", output {chosen.label}" if chosen.label is not None else ""
    note = f"Explicit rewards are the scores of {model.model.name}{shown}."
    work.say(note)
    return replace(pairs, frame=frame, notes=(*pairs.notes, note))


def explicit_rows(
    checkpoint: Checkpoint,
    pairs: PairSet,
    chosen: ExplicitChoice,
    *,
    choice: EngineChoice,
    work: Work,
) -> pd.DataFrame:
    """EXPLICIT_REWARDS of a reward model: stored rows first, the missing ones scored and stored.

    Args:
        checkpoint: the reward model, resolved.
        pairs: what to score.
        chosen: which output, which template.
        choice: dtype, device, window, truncation.
        work: store and voice.
    """
    model = checkpoint.model
    own = replace(choice, template=chosen.template)
    encoder = encoder_for(model, pairs.frame, own, checkpoint.template)
    address = _address(checkpoint, encoder, chosen, choice)
    known = work.store.read(EXPLICIT_REWARDS, address).drop_duplicates("pair_id")
    missing = pairs.frame[~pairs.frame["pair_id"].isin(set(known["pair_id"]))]
    if len(missing):
        work.say(f"{model.name}: {encoder.note}")
        parts = [known]
        with (
            RewardModel(model.path, choice.options, label=chosen.label) as scorer,
            work.bar(f"explicit rewards of {model.name}", len(missing)) as advance,
        ):
            for start in range(0, len(missing), CHUNK_PAIRS):
                rows = _chunk(
                    missing.iloc[start : start + CHUNK_PAIRS], scorer, encoder, model.model_id
                )
                work.store.append(EXPLICIT_REWARDS, address, rows, {"dpo_diag": __version__})
                parts.append(rows)
                advance(len(rows))
        known = concat(parts, EXPLICIT_REWARDS)
    rows = pairs.frame[["pair_id", "domain", "split"]].merge(
        known.drop(columns=["domain", "split"]), on="pair_id", how="left"
    )
    rows["model_id"] = model.model_id  # rows are shared by content; the name is the run's
    return validate(rows, EXPLICIT_REWARDS, model.model_id)


def _resolved(chosen: ExplicitChoice) -> Checkpoint:
    checkpoint = resolve_checkpoint(chosen.source)
    if checkpoint.model.adapter is not None:
        raise CheckpointError(
            f"{chosen.source}: is an adapter; a reward model is read as a whole sequence "
            "classifier. Merge it into its base (peft's merge_and_unload), head included."
        )
    return checkpoint


def _address(
    checkpoint: Checkpoint, encoder: TextEncoder, chosen: ExplicitChoice, choice: EngineChoice
) -> Mapping[str, Any]:
    return {
        "table": EXPLICIT_REWARDS.name,
        "fingerprint": checkpoint.model.fingerprint,
        # the pad token, which says where a decoder's score is read, is in it
        "architecture": content_hash(architecture(checkpoint.model.path)),
        "label": chosen.label,
        "tokenizer": encoder.hash,
        "dtype": choice.options.dtype,
        "truncate": choice.truncate,
        "max_length": choice.options.max_length,
    }


def _chunk(
    part: pd.DataFrame, scorer: RewardModel, encoder: TextEncoder, model_id: str
) -> pd.DataFrame:
    encoded = encode_pairs(part, encoder)
    scores = scorer.rewards([*encoded.chosen, *encoded.rejected])
    n = len(part)
    return pd.DataFrame(
        {
            "model_id": model_id,
            "pair_id": part["pair_id"].to_numpy(),
            "prompt_id": part["prompt_id"].to_numpy(),
            "reward_chosen": scores[:n],
            "reward_rejected": scores[n:],
            "truncated": np.array(encoded.truncated, dtype=bool),
            "dtype": scorer.options.dtype,
            "tokenizer_hash": encoder.hash,
            "domain": part["domain"].to_numpy(),
            "split": part["split"].to_numpy(),
        }
    )
