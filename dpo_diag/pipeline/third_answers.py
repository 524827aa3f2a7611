"""Answers that a policy and its reference give themselves, scored under both: where mass went.

A pair's two answers say nothing of the others; samples do. Answers are drawn at temperature 1 from
the whole distribution, because only then are means over them means under the model. Start reading
at ``third_answers``; a step whose rows the store has does not start an engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from dpo_diag import __version__
from dpo_diag.checkpoints import Checkpoint, ModelRef
from dpo_diag.costs._base import Cost
from dpo_diag.engines._base import SamplingSettings, ScoreRequest
from dpo_diag.errors import EngineError
from dpo_diag.pairs import PairSet, PromptSet, frame_hash
from dpo_diag.pipeline.rewards import build_variant
from dpo_diag.pipeline.sample import sample_models, stored_costs
from dpo_diag.pipeline.work import EngineChoice, EnginePool, Work, encoder_for
from dpo_diag.tables import (
    SAMPLE_COSTS,
    SAMPLE_LOGPS,
    SAMPLES,
    SCORED_SAMPLES,
    concat,
    content_hash,
    table_hash,
    validate,
)
from dpo_diag.text import TextEncoder
from dpo_diag.weights import architecture

CHUNK_ANSWERS = 1024  # answers per stored part: what a killed run can lose
PROMPT_COLUMNS = ("prompt_id", "prompt", "prompt_messages", "domain", "split", "source")


@dataclass(frozen=True)
class ThirdAnswers:
    """What was drawn and measured.

    Attributes:
        logps: SAMPLE_LOGPS of every checkpoint that has a reference.
        samples: SAMPLES of the policies and references.
        costs: SAMPLE_COSTS of them, empty where no cost was named.
        notes: lines for the report.
    """

    logps: pd.DataFrame
    samples: pd.DataFrame
    costs: pd.DataFrame
    notes: tuple[str, ...]

    def tables(self) -> dict[str, pd.DataFrame]:
        """Those with rows, by the name of their spec."""
        found = {"SampleLogps": self.logps, "Samples": self.samples, "SampleCosts": self.costs}
        return {name: frame for name, frame in found.items() if len(frame)}


def third_answers(
    checkpoints: Sequence[Checkpoint],
    pairs: PairSet,
    settings: SamplingSettings,
    choice: EngineChoice,
    work: Work,
    *,
    costs: Sequence[Cost] = (),
) -> ThirdAnswers:
    """Answers of each policy and its reference to the pairs' prompts, scored under both.

    Args:
        checkpoints: models; one whose reward needs no reference is left out, and said.
        pairs: give the prompts, and the answers that are no third ones.
        settings: ``n`` answers per prompt and model, at temperature 1 and ``top_p`` 1.
        choice: engine for both steps.
        work: store, cache and voice.
        costs: judges of the answers, higher is worse; none leaves judging out.

    Raises:
        EngineError: another temperature or nucleus share, or a log-prob that is no number.
    """
    if settings.temperature != 1.0 or settings.top_p != 1.0:
        raise EngineError(
            "third answers must be drawn at temperature 1 and top_p 1, got "
            f"{settings.temperature:g} and {settings.top_p:g}: only then do they stand for the "
            "model's own probabilities."
        )
    kept = [c for c in checkpoints if c.reference is not None and build_variant(c).needs.reference]
    prompts = prompts_of(pairs)
    models = {m.model.model_id: m for c in kept for m in (c, _as_checkpoint(c))}
    samples = sample_models(list(models.values()), prompts, settings, choice, work)
    by_model = {name: samples[samples["model_id"] == name] for name in models}
    with EnginePool(choice, "score", work) as pool:
        scorer = _Scorer(pool, prompts.frame, settings.max_new_tokens)
        parts = [_logps_of(checkpoint, by_model, pairs.frame, scorer) for checkpoint in kept]
    judged = [
        stored_costs(rows.reset_index(drop=True), prompts.frame, costs, work)
        for rows in by_model.values()
        if costs and len(rows)
    ]
    return ThirdAnswers(
        concat(parts, SAMPLE_LOGPS),
        samples,
        concat(judged, SAMPLE_COSTS),
        tuple(_notes(checkpoints, kept, samples, settings)),
    )


def prompts_of(pairs: PairSet) -> PromptSet:
    """The pairs' prompts, each once, in the order of the pairs."""
    columns = [name for name in PROMPT_COLUMNS if name in pairs.frame.columns]
    frame = pairs.frame[columns].drop_duplicates("prompt_id").reset_index(drop=True)
    return PromptSet(frame, pairs.source, (), {}, frame_hash(frame, "prompt_id"))


def which_answer(samples: pd.DataFrame, pairs: pd.DataFrame) -> np.ndarray:
    """``chosen`` or ``rejected`` where a sample is that answer of a pair of its prompt, by text.

    Args:
        samples: SAMPLES.
        pairs: PreferencePairs.

    Returns:
        (n,) words, ``third`` for all others; ``chosen`` goes first where an answer is both.
    """
    texts = pd.MultiIndex.from_arrays([samples["prompt_id"], samples["response"].str.strip()])
    words = np.full(len(samples), "third", dtype=object)
    for side in ("rejected", "chosen"):
        known = pd.MultiIndex.from_arrays([pairs["prompt_id"], pairs[side].str.strip()])
        words[texts.isin(known)] = side
    return words


class _Scorer:
    """Log-probs of sampled answers under any model, those that the store lacks measured."""

    def __init__(self, pool: EnginePool, prompts: pd.DataFrame, room: int) -> None:
        self.pool = pool
        self.prompts = prompts.set_index("prompt_id", drop=False)
        self.room = room

    def score(self, model: ModelRef, samples: pd.DataFrame, template: str | None) -> pd.DataFrame:
        """SCORED_SAMPLES of one sampler's answers under a model, in the order of the samples."""
        pool, work = self.pool, self.pool.work
        encoder = encoder_for(model, self.prompts, pool.choice, template)
        address = {
            "table": SCORED_SAMPLES.name,
            "fingerprint": model.fingerprint,
            "architecture": content_hash(architecture(model.path)),
            "tokenizer": encoder.hash,
            "engine": "hf" if pool.choice.name == "auto" else pool.choice.name,
            "dtype": pool.choice.options.dtype,
            "samples": table_hash(samples.assign(model_id=""), SAMPLES),
        }
        known = work.store.read(SCORED_SAMPLES, address)
        place = ["prompt_id", "sample_index"]
        known = known.drop_duplicates(place)
        done = pd.MultiIndex.from_frame(known[place])
        missing = samples[~pd.MultiIndex.from_frame(samples[place]).isin(done)]
        parts = [known]
        if len(missing):
            with work.bar(f"scoring answers under {model.name}", len(missing)) as advance:
                for start in range(0, len(missing), CHUNK_ANSWERS):
                    part = missing.iloc[start : start + CHUNK_ANSWERS]
                    rows = self._chunk(model, part, encoder)
                    work.store.append(SCORED_SAMPLES, address, rows, {"dpo_diag": __version__})
                    parts.append(rows)
                    advance(len(part))
        found = concat(parts, SCORED_SAMPLES).drop(columns=["model_id", "sampled_by", "n_tokens"])
        rows = samples[["prompt_id", "sample_index", "n_tokens"]].merge(found, on=place, how="left")
        rows = rows.assign(model_id=model.model_id, sampled_by=samples["model_id"].to_numpy())
        return validate(rows, SCORED_SAMPLES, model.model_id)

    def _chunk(self, model: ModelRef, part: pd.DataFrame, encoder: TextEncoder) -> pd.DataFrame:
        asked = {name: self._prompt_ids(name, encoder) for name in part["prompt_id"].unique()}
        requests = [
            ScoreRequest(asked[prompt_id], tuple(int(token) for token in ids))
            for prompt_id, ids in zip(part["prompt_id"], part["response_ids"], strict=True)
        ]
        logp = self.pool.get(model, requests[:4]).score(requests).logp
        if not np.isfinite(logp).all():
            raise EngineError(
                f"{model.name} gives {int((~np.isfinite(logp)).sum())} of {len(logp)} sampled "
                "answers a log-probability that is no finite number; its weights or its dtype "
                "are broken. Try --dtype float32."
            )
        rows = part[["prompt_id", "sample_index", "n_tokens"]].reset_index(drop=True)
        return rows.assign(
            model_id=model.model_id, sampled_by=part["model_id"].to_numpy(), logp=logp
        )

    def _prompt_ids(self, prompt_id: str, encoder: TextEncoder) -> tuple[int, ...]:
        row = self.prompts.loc[prompt_id]
        turns = row.get("prompt_messages")
        return encoder.encode_prompt(
            row["prompt"], turns if isinstance(turns, str) else None, room=self.room
        ).ids


def _logps_of(
    checkpoint: Checkpoint,
    by_model: dict[str, pd.DataFrame],
    pairs: pd.DataFrame,
    scorer: _Scorer,
) -> pd.DataFrame:
    """SAMPLE_LOGPS of one checkpoint: both samplers' answers under policy and reference."""
    reference = checkpoint.reference
    assert reference is not None
    parts = []
    for name in dict.fromkeys((checkpoint.model.model_id, reference.model_id)):
        samples = by_model[name].reset_index(drop=True)
        policy = scorer.score(checkpoint.model, samples, checkpoint.template)
        base = scorer.score(reference, samples, checkpoint.template)
        parts.append(
            policy.assign(
                reference_id=reference.model_id,
                ref_logp=base["logp"].to_numpy(),
                answer=which_answer(samples, pairs),
                domain=samples["domain"].to_numpy(),
                split=samples["split"].to_numpy(),
            )
        )
    rows = concat(parts, SAMPLE_LOGPS)
    return validate(rows[list(SAMPLE_LOGPS.column_names)], SAMPLE_LOGPS)


def _as_checkpoint(checkpoint: Checkpoint) -> Checkpoint:
    """The reference as a checkpoint to sample from."""
    assert checkpoint.reference is not None
    return replace(checkpoint, model=checkpoint.reference, reference=None, steps=())


def _notes(
    checkpoints: Sequence[Checkpoint],
    kept: Sequence[Checkpoint],
    samples: pd.DataFrame,
    settings: SamplingSettings,
) -> list[str]:
    left = [c.model.name for c in checkpoints if c not in kept]
    notes = [f"{name} has no reference: no third answers were drawn." for name in left]
    cut = int((samples["finish_reason"] == "length").sum())
    if cut:
        notes.append(
            f"{cut} of {len(samples)} sampled answers were cut at {settings.max_new_tokens} tokens "
            "(--max-new-tokens); their mass is that of their beginnings."
        )
    return notes
