"""Pairs to log-probabilities, one stored row per pair and model.

Start reading at ``score_pairs``. A killed run loses no more than the chunk it was in.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from dpo_diag import __version__
from dpo_diag.checkpoints import Checkpoint, ModelRef
from dpo_diag.engines._base import Engine, ScoreRequest
from dpo_diag.errors import EngineError
from dpo_diag.pairs import PairSet
from dpo_diag.pipeline import checks
from dpo_diag.pipeline.work import EngineChoice, EnginePool, Work, encoder_for
from dpo_diag.tables import SCORED_PAIRS, TableSpec, concat, content_hash, validate
from dpo_diag.text import TextEncoder, encode_pairs
from dpo_diag.weights import architecture

CHUNK_PAIRS = 512  # pairs per stored part: what a killed run can lose
# (model, its engine, requests of chosen and rejected in turns) -> columns, one value per pair
Measure = Callable[[ModelRef, Engine, Sequence[ScoreRequest]], Mapping[str, np.ndarray]]


def score_models(
    checkpoints: Sequence[Checkpoint], pairs: PairSet, choice: EngineChoice, work: Work
) -> pd.DataFrame:
    """SCORED_PAIRS of every checkpoint's final weights, with one engine start."""
    with EnginePool(choice, "score", work) as pool:
        parts = [score_pairs(c.model, pairs, pool, c.template) for c in checkpoints]
    return concat(parts, SCORED_PAIRS)


def score_pairs(
    model: ModelRef, pairs: PairSet, pool: EnginePool, template: str | None = None
) -> pd.DataFrame:
    """SCORED_PAIRS of one model: stored rows first, the missing ones scored and stored.

    Args:
        model: whose log-probabilities.
        pairs: what to score.
        pool: gives the engine, only if something is missing.
        template: what the run recorded, used where the choice is ``auto``.
    """
    return stored_rows(
        model, pairs, pool, spec=SCORED_PAIRS, measure=_measured, template=template, verb="scoring"
    )


def stored_rows(
    model: ModelRef,
    pairs: PairSet,
    pool: EnginePool,
    *,
    spec: TableSpec,
    measure: Measure,
    template: str | None,
    verb: str,
) -> pd.DataFrame:
    """One row per pair of what a model says of it: stored rows first, the missing ones made.

    Args:
        model: who is asked.
        pairs: about what.
        pool: gives the engine, only if something is missing.
        spec: the table; keyed by model and pair.
        measure: what the table holds of a chunk beside ``described``.
        template: what the run recorded, used where the choice is ``auto``.
        verb: what the progress bar says is done.
    """
    work, choice = pool.work, pool.choice
    encoder = encoder_for(model, pairs.frame, choice, template)
    address = {
        "table": spec.name,
        "fingerprint": model.fingerprint,
        "architecture": content_hash(architecture(model.path)),
        "tokenizer": encoder.hash,
        "engine": "hf" if choice.name == "auto" else choice.name,
        "dtype": choice.options.dtype,
        "truncate": choice.truncate,
        "max_length": choice.options.max_length,
    }
    # runs of other names with these weights may have scored the same pairs at the same time
    known = work.store.read(spec, address).drop_duplicates("pair_id")
    missing = pairs.frame[~pairs.frame["pair_id"].isin(set(known["pair_id"]))]
    if len(missing):
        if encoder.note:
            work.say(f"{model.name}: {encoder.note}")
        parts = [known]
        with work.bar(f"{verb} {model.name}", len(missing)) as advance:
            for start in range(0, len(missing), CHUNK_PAIRS):
                part = missing.iloc[start : start + CHUNK_PAIRS]
                rows = _chunk(model, part, encoder, pool, measure)
                work.store.append(spec, address, rows, {"dpo_diag": __version__})
                parts.append(rows)
                advance(len(part))
        known = concat(parts, spec)
    rows = pairs.frame[["pair_id", "domain", "split"]].merge(
        known.drop(columns=["domain", "split"]), on="pair_id", how="left"
    )
    rows["model_id"] = model.model_id  # rows are shared by content; the name is the run's
    return validate(rows, spec, model.model_id)


def _chunk(
    model: ModelRef,
    part: pd.DataFrame,
    encoder: TextEncoder,
    pool: EnginePool,
    measure: Measure,
) -> pd.DataFrame:
    encoded = encode_pairs(part, encoder)
    chosen = checks.requests_of(encoded.chosen)
    rejected = checks.requests_of(encoded.rejected)
    engine = pool.get(model, chosen[:4])
    interleaved = [request for pair in zip(chosen, rejected, strict=True) for request in pair]
    measured = measure(model, engine, interleaved)
    described = engine.describe()
    return pd.DataFrame(
        {
            "model_id": model.model_id,
            "pair_id": part["pair_id"].to_numpy(),
            "prompt_id": part["prompt_id"].to_numpy(),
            **measured,
            "n_tokens_chosen": [len(request.response_ids) for request in chosen],
            "n_tokens_rejected": [len(request.response_ids) for request in rejected],
            "truncated": encoded.truncated,
            "engine": described["engine"],
            "dtype": described["dtype"],
            "tokenizer_hash": encoder.hash,
            "domain": part["domain"].to_numpy(),
            "split": part["split"].to_numpy(),
        }
    )


def _measured(
    model: ModelRef, engine: Engine, requests: Sequence[ScoreRequest]
) -> dict[str, np.ndarray]:
    """Log-probs of both answers of each pair; chosen and rejected take turns in ``requests``."""
    logp = engine.score(requests).logp
    _refuse_nan(logp, model)
    return {"logp_chosen": logp[0::2], "logp_rejected": logp[1::2]}


def _refuse_nan(logp: np.ndarray, model: ModelRef) -> None:
    if np.isnan(logp).any():
        raise EngineError(
            f"{model.name} gives NaN log-probabilities on {int(np.isnan(logp).sum())} of "
            f"{len(logp)} responses; its weights or its dtype are broken. Try --dtype float32."
        )
