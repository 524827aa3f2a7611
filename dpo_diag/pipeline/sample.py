"""Prompts to sampled answers to costs, one stored row per sample and model.

Start reading at ``safety_rows``: search samples on every prompt, fresh samples for the finalists.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from dpo_diag import __version__
from dpo_diag.checkpoints import Checkpoint, ModelRef
from dpo_diag.costs._base import Cost
from dpo_diag.engines._base import SamplingSettings, ScoreRequest
from dpo_diag.engines._weights import stop_ids
from dpo_diag.errors import DataError
from dpo_diag.pairs import PromptSet
from dpo_diag.pipeline.work import EngineChoice, EnginePool, Say, Work, encoder_for
from dpo_diag.tables import (
    SAMPLE_COSTS,
    SAMPLES,
    concat,
    content_hash,
    table_hash,
    validate,
)
from dpo_diag.text import TextEncoder
from dpo_diag.weights import architecture

CHUNK_PROMPTS = 128  # prompts per stored part; large enough to keep an engine full
SEARCH, CONFIRM = "search", "confirm"

# (costs of the search phase, k) -> model_id, prompt_id rows that deserve fresh samples
Finalists = Callable[[pd.DataFrame, int], pd.DataFrame]


@dataclass(frozen=True)
class SafetyPlan:
    """How many samples go where.

    Attributes:
        settings: sampling settings of the search phase; ``n`` answers for every prompt.
        n_finalists: prompts per model that get fresh samples.
        n_confirm: fresh samples for each of them.
        harm: the cost that finalists are chosen by.
        costs: every cost to compute, ``harm`` included.
    """

    settings: SamplingSettings
    n_finalists: int
    n_confirm: int
    harm: Cost
    costs: tuple[Cost, ...]

    def __post_init__(self) -> None:
        names = [cost.name for cost in self.costs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(
                f"two costs are called {', '.join(twice)}, so their values could not be told "
                "apart; name each cost once, and give functions names of their own."
            )


@dataclass(frozen=True)
class SafetyRows:
    """Samples and their costs for every model, and lines for the report."""

    samples: pd.DataFrame
    costs: pd.DataFrame
    notes: tuple[str, ...]


def safety_rows(
    checkpoints: Sequence[Checkpoint],
    prompts: PromptSet,
    plan: SafetyPlan,
    finalists: Finalists,
    choice: EngineChoice,
    work: Work,
) -> SafetyRows:
    """Search samples on every prompt, then fresh samples on each model's worst prompts.

    Args:
        checkpoints: models to sample from; their final weights.
        prompts: what to ask.
        plan: how many samples.
        finalists: picks the prompts to confirm from the search costs.
        choice: engine for sampling.
        work: store, cache and voice.
    """
    models = [checkpoint.model for checkpoint in checkpoints]
    templates = {c.model.model_id: c.template for c in checkpoints}
    with EnginePool(choice, "sample", work) as pool:
        sampler = _Sampler(pool, templates)
        search = {m.model_id: sampler.draw(m, prompts.frame, plan.settings, SEARCH) for m in models}
        parts = list(search.values())
        costs = [stored_costs(rows, prompts.frame, plan.costs, work) for rows in parts]
        confirm = replace(plan.settings, n=plan.n_confirm, seed=plan.settings.seed + 1)
        if plan.n_finalists and plan.n_confirm:
            harm = concat(costs, SAMPLE_COSTS)
            worst = finalists(harm[harm["cost"] == plan.harm.name], plan.n_finalists)
            # every model answers every model's finalists: a prompt that only one model was asked
            # afresh would make the comparison of their worst prompts one of luck in the search
            chosen = prompts.frame[prompts.frame["prompt_id"].isin(set(worst["prompt_id"]))]
            fresh = [sampler.draw(model, chosen, confirm, CONFIRM) for model in models]
            parts += fresh
            costs += [stored_costs(rows, prompts.frame, plan.costs, work) for rows in fresh]
    return SafetyRows(concat(parts, SAMPLES), concat(costs, SAMPLE_COSTS), sampler.notes)


def sample_models(
    checkpoints: Sequence[Checkpoint],
    prompts: PromptSet,
    settings: SamplingSettings,
    choice: EngineChoice,
    work: Work,
    *,
    seeds: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """SAMPLES of every checkpoint's final weights on every prompt, with one engine start.

    Args:
        checkpoints: models to sample from.
        prompts: what to ask.
        settings: sampling settings.
        choice: engine.
        work: store, cache and voice.
        seeds: model_id to its own seed, where models must not share their random numbers.
    """
    own = seeds or {}
    templates = {c.model.model_id: c.template for c in checkpoints}
    with EnginePool(choice, "sample", work) as pool:
        sampler = _Sampler(pool, templates)
        parts = [
            sampler.draw(
                c.model,
                prompts.frame,
                replace(settings, seed=own.get(c.model.model_id, settings.seed)),
                SEARCH,
            )
            for c in checkpoints
        ]
    return concat(parts, SAMPLES)


class _Sampler:
    """Draws what the store does not have yet."""

    def __init__(self, pool: EnginePool, templates: dict[str, str | None]) -> None:
        self.pool = pool
        self.templates = templates
        self.notes: tuple[str, ...] = ()

    def draw(
        self, model: ModelRef, prompts: pd.DataFrame, settings: SamplingSettings, phase: str
    ) -> pd.DataFrame:
        """SAMPLES of one model and phase, ``settings.n`` rows per prompt."""
        pool, work = self.pool, self.pool.work
        encoder = encoder_for(model, prompts, pool.choice, self.templates[model.model_id])
        address = _address(model, encoder, pool.choice, settings, phase)
        known = work.store.read(SAMPLES, address).drop_duplicates(["prompt_id", "sample_index"])
        missing = prompts[~prompts["prompt_id"].isin(set(known["prompt_id"]))]
        parts = [known[known["prompt_id"].isin(set(prompts["prompt_id"]))]]
        if len(missing):
            with work.bar(f"sampling {model.name} ({phase})", len(missing)) as advance:
                for start in range(0, len(missing), CHUNK_PROMPTS):
                    part = missing.iloc[start : start + CHUNK_PROMPTS]
                    rows = self._chunk(model, part, encoder, settings, phase)
                    work.store.append(SAMPLES, address, rows, {"dpo_diag": __version__})
                    parts.append(rows)
                    advance(len(part))
        rows = concat(parts, SAMPLES)
        # a sample is stored once; whose it is and what its prompt is called is up to this call
        named = prompts.set_index("prompt_id")
        rows["model_id"] = model.model_id
        for column in ("domain", "split"):
            rows[column] = named[column].loc[rows["prompt_id"]].to_numpy()
        return validate(rows, SAMPLES, model.model_id)

    def _chunk(
        self,
        model: ModelRef,
        part: pd.DataFrame,
        encoder: TextEncoder,
        settings: SamplingSettings,
        phase: str,
    ) -> pd.DataFrame:
        ids = _prompt_ids(part, encoder, settings.max_new_tokens)
        probe = [ScoreRequest(tuple(p), tuple(p)) for p in ids[:4]]
        engine = self.pool.get(model, probe)
        # an engine with one stream per call must not draw two chunks from the same numbers; with
        # any other neither --limit nor resuming nor order changes a sample
        chunk = [] if engine.seeds_prompts else list(part["prompt_id"])
        seed = int(content_hash([settings.seed, phase, chunk])[:8], 16)
        described = engine.describe()
        completions = engine.sample(ids, replace(settings, seed=seed))
        rows = part.iloc[[c.prompt_index for c in completions]]
        return pd.DataFrame(
            {
                "model_id": model.model_id,
                "prompt_id": rows["prompt_id"].to_numpy(),
                # confirmation rows count on from the search rows: one key space per prompt
                "sample_index": [
                    c.sample_index + (0 if phase == SEARCH else CONFIRM_OFFSET) for c in completions
                ],
                "phase": phase,
                "response": [encoder.decode(c.response_ids) for c in completions],
                "response_ids": [list(c.response_ids) for c in completions],
                "n_tokens": [len(c.response_ids) for c in completions],
                "logp": [float(c.logp) for c in completions],
                "finish_reason": [c.finish_reason for c in completions],
                "temperature": float(settings.temperature),
                "top_p": float(settings.top_p),
                "seed": seed,
                "engine": described["engine"],
                "dtype": described["dtype"],
                "domain": rows["domain"].to_numpy(),
                "split": rows["split"].to_numpy(),
            }
        )


def _prompt_ids(part: pd.DataFrame, encoder: TextEncoder, room: int) -> list[tuple[int, ...]]:
    """Token ids of each prompt, with room for the answer; a message names the prompt."""
    messages = part["prompt_messages"] if "prompt_messages" in part else [None] * len(part)
    found = []
    for prompt_id, prompt, turns in zip(part["prompt_id"], part["prompt"], messages, strict=True):
        try:
            encoded = encoder.encode_prompt(
                prompt, turns if isinstance(turns, str) else None, room=room
            )
        except DataError as error:
            raise DataError(f"prompt {prompt_id}: {error}") from error
        found.append(encoded.ids)
    return found


CONFIRM_OFFSET = 1_000_000  # search phases never draw so many samples of one prompt


def stored_costs(
    samples: pd.DataFrame, prompts: pd.DataFrame, costs: Sequence[Cost], work: Work
) -> pd.DataFrame:
    """``cost_rows`` of one model's samples, those that the store has not paid for yet computed.

    A cost is stored under the texts it was computed from, so that it is never another sample's.
    """
    parts = []
    for cost in costs:
        address = {
            "table": SAMPLE_COSTS.name,
            "cost": cost.cost_def,
            "samples": table_hash(samples.assign(model_id=""), SAMPLES),
        }
        rows = work.store.read(SAMPLE_COSTS, address).drop_duplicates(list(SAMPLE_COSTS.key[1:]))
        if len(rows) != len(samples):
            rows = cost_rows(samples, prompts, [cost], work.say)
            work.store.append(SAMPLE_COSTS, address, rows, {"dpo_diag": __version__})
        parts.append(rows)
    rows = concat(parts, SAMPLE_COSTS)
    rows["model_id"] = samples["model_id"].iloc[0] if len(samples) else ""
    return rows


def cost_rows(
    samples: pd.DataFrame, prompts: pd.DataFrame, costs: Sequence[Cost], say: Say
) -> pd.DataFrame:
    """SAMPLE_COSTS of some samples under several costs; an abstention is NaN and marked."""
    texts = samples.merge(prompts[["prompt_id", "prompt"]], on="prompt_id", how="left")
    parts = []
    for cost in costs:
        values = cost.cost(list(texts["prompt"]), list(texts["response"]))
        rows = samples[
            ["model_id", "prompt_id", "sample_index", "phase", "domain", "split"]
        ].reset_index(drop=True)
        parts.append(
            rows.assign(cost=cost.name, value=values, abstained=pd.isna(values)).reindex(
                columns=list(SAMPLE_COSTS.column_names)
            )
        )
    rows = validate(concat(parts, SAMPLE_COSTS), SAMPLE_COSTS)
    declined = int(rows["abstained"].sum())
    if declined:
        say(f"{declined} of {len(rows)} costs abstained; they are missing, not zero.")
    return rows


def _address(
    model: ModelRef,
    encoder: TextEncoder,
    choice: EngineChoice,
    settings: SamplingSettings,
    phase: str,
) -> dict[str, object]:
    return {
        "table": SAMPLES.name,
        "fingerprint": model.fingerprint,
        "architecture": content_hash(architecture(model.path)),
        "tokenizer": encoder.hash,
        "engine": _engine_name(choice.name),
        "dtype": choice.options.dtype,
        "truncate": choice.truncate,
        "stop": list(stop_ids(model.path)),  # in no fingerprint, but they end an answer
        "n": settings.n,
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "seed": settings.seed,
        "phase": phase,
    }


def _engine_name(name: str) -> str:
    """What rows are kept under: those of one engine are not another's.

    ``auto`` is hf where vLLM is missing; where it is installed the rows may be vLLM's or, for a
    model that it cannot run, hf's, so they are nobody's who asked for an engine by name.
    """
    if name != "auto":
        return name
    return "hf" if importlib.util.find_spec("vllm") is None else "auto"
