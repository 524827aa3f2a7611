"""Log-probabilities to implicit rewards, checked before they are believed.

Start reading at ``reward_rows``. A reference is just another model, scored once and reused.
"""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from dpo_diag import registry
from dpo_diag.checkpoints import Checkpoint, ModelRef, check_compatible
from dpo_diag.engines._parity import Parity
from dpo_diag.errors import CheckpointError
from dpo_diag.pairs import PairSet
from dpo_diag.pipeline import checks
from dpo_diag.pipeline.score import score_pairs
from dpo_diag.pipeline.work import EngineChoice, EnginePool, Work, encoder_for
from dpo_diag.tables import IMPLICIT_REWARDS, SCORED_PAIRS, concat, validate
from dpo_diag.text import load_tokenizer
from dpo_diag.variants import _base as variants


@dataclass(frozen=True)
class RewardRows:
    """Implicit rewards of all checkpoints and what was measured on the way.

    Attributes:
        rewards: IMPLICIT_REWARDS of every checkpoint (and step).
        scored: SCORED_PAIRS of every model, references included.
        notes: lines that belong into the report.
        parity: agreement with hf in float32 by model_id, where something else scored.
    """

    rewards: pd.DataFrame
    scored: pd.DataFrame
    notes: tuple[str, ...]
    parity: Mapping[str, Parity] = field(default_factory=dict)


def reward_rows(
    checkpoints: Sequence[Checkpoint], pairs: PairSet, choice: EngineChoice, work: Work
) -> RewardRows:
    """Implicit rewards of every checkpoint on the same pairs, with one engine start.

    Raises:
        CheckpointError: a reference is missing or does not fit its policy.
        EngineError: the probe "policy = reference" does not give reward 0, or a swap failed.
    """
    scored: dict[str, pd.DataFrame] = {}
    parity: dict[str, Parity] = {}
    rewards, notes = [], []
    asked = {checkpoint.model.model_id for checkpoint in checkpoints}
    with EnginePool(choice, "score", work) as pool:
        for checkpoint in checkpoints:
            rows, lines = _rewards_of(
                checkpoint, pairs, pool, asked=asked, scored=scored, parity=parity
            )
            rewards += rows
            notes += lines
    unique = tuple(dict.fromkeys(notes))
    for note in unique:
        work.say(note)
    return RewardRows(
        concat(rewards, IMPLICIT_REWARDS),
        concat(list(scored.values()), SCORED_PAIRS),
        unique,
        parity,
    )


def build_variant(checkpoint: Checkpoint) -> variants.Variant:
    """The variant that trained a checkpoint, as its folder or the options say; DPO if neither.

    Without a recorded beta the reward is the plain log-ratio in nats (beta 1): orders are the
    same for every beta, and ``Checkpoint.found`` says so. A beta given for several checkpoints is
    not for those whose variant has none.

    Raises:
        CheckpointError: it is no policy but an explicit reward.
    """
    variant, parameters = _variant_class(checkpoint), dict(checkpoint.parameters)
    if variant.needs.score_head:
        raise CheckpointError(
            f"{checkpoint.model.source}: is an explicit reward ({checkpoint.variant}), which has "
            "no implicit one; give a policy, and this as --explicit."
        )
    if "beta" in variant.ranges:
        parameters.setdefault("beta", 1.0 if checkpoint.beta is None else checkpoint.beta)
    else:
        parameters.pop("beta", None)
    return variants.build(variant, parameters)


def _variant_class(checkpoint: Checkpoint) -> type[variants.Variant]:
    return registry.load("variants", checkpoint.variant or "dpo")


def implicit_rewards(
    policy: pd.DataFrame,
    reference: pd.DataFrame | None,
    variant: variants.Variant,
    *,
    step: int = -1,
    margin_noise: float = math.nan,
) -> pd.DataFrame:
    """IMPLICIT_REWARDS of one model from its and its reference's SCORED_PAIRS.

    Args:
        policy: rows of one model.
        reference: rows of its reference on the same pairs; None for a reference-free variant.
        variant: defines the reward.
        step: training step, -1 for the final model.
        margin_noise: measured engine disagreement on a margin, nats; NaN where not measured.

    Raises:
        CheckpointError: engine, dtype, tokenizer or pairs differ between the two.
    """
    ref = _aligned_reference(policy, reference)
    columns = {}
    for side in ("chosen", "rejected"):
        logp = policy[f"logp_{side}"].to_numpy(float)
        ref_logp = ref[f"logp_{side}"].to_numpy(float)
        n_tokens = policy[f"n_tokens_{side}"].to_numpy(float)
        columns[f"reward_{side}"] = np.asarray(variant.rewards(logp, ref_logp, n_tokens))
        columns[f"logratio_{side}"] = logp - ref_logp
        columns[f"ref_logp_{side}"] = ref_logp
    carried = [
        "model_id",
        "pair_id",
        "prompt_id",
        "logp_chosen",
        "logp_rejected",
        "n_tokens_chosen",
        "n_tokens_rejected",
        "truncated",
        "domain",
        "split",
    ]
    rows = policy[carried].assign(**columns)
    rows["margin"] = rows["reward_chosen"] - rows["reward_rejected"]
    rows["reference_id"] = "none" if reference is None else str(reference["model_id"].iloc[0])
    rows["reward_def"] = variant.reward_def
    rows["margin_noise"] = margin_noise
    rows["step"] = step
    return validate(rows[list(IMPLICIT_REWARDS.column_names)], IMPLICIT_REWARDS)


def _rewards_of(
    checkpoint: Checkpoint,
    pairs: PairSet,
    pool: EnginePool,
    *,
    asked: Set[str],
    scored: dict[str, pd.DataFrame],
    parity: dict[str, Parity],
) -> tuple[list[pd.DataFrame], list[str]]:
    """IMPLICIT_REWARDS of a checkpoint and its steps, and notes; fills ``scored``, ``parity``.

    A model of ``asked`` is what the user wants to know about: it counts as final (step -1) even
    where it is the folder of a step, and is not given a second time as a step of its run.
    """
    variant, template = build_variant(checkpoint), checkpoint.template
    notes = _unrecorded(checkpoint)
    reference = checkpoint.reference if variant.needs.reference else None
    if reference is not None:
        _refuse_other_text(checkpoint, reference, pool.choice)
    steps = [step for step in checkpoint.steps if step.model_id not in asked]
    models = (*steps, checkpoint.model)
    wanted = (*models, *([reference] if reference else []))
    for model in wanted:
        if model.model_id not in scored:
            scored[model.model_id] = score_pairs(model, pairs, pool, template)
    if reference is not None:
        encoder = encoder_for(reference, pairs.frame, pool.choice, template)
        notes.append(
            checks.probe(
                reference, scored[reference.model_id], pairs=pairs, encoder=encoder, pool=pool
            )
        )
    notes += _measure_parity(wanted, pairs, template, pool, scored=scored, parity=parity)
    noise = _noise(parity, checkpoint.model, reference)
    if not math.isnan(noise):
        notes.append(checks.noise_note(checkpoint.model.name, noise))
    rows = [
        implicit_rewards(
            scored[model.model_id],
            scored[reference.model_id] if reference else None,
            variant,
            step=-1 if model is checkpoint.model else model.step,
            margin_noise=_noise(parity, model, reference),
        )
        for model in models
    ]
    return rows, notes


def _refuse_other_text(checkpoint: Checkpoint, reference: ModelRef, choice: EngineChoice) -> None:
    """Refuse a reference with another vocabulary or chat template, before anything is scored."""
    remote = choice.options.trust_remote_code
    ours, theirs = (
        load_tokenizer(model.tokenizer_path, trust_remote_code=remote)
        for model in (checkpoint.model, reference)
    )
    template = choice.template if choice.template != "auto" else checkpoint.template
    check_compatible(ours, theirs, template=template)


def _unrecorded(checkpoint: Checkpoint) -> list[str]:
    """What had to be taken for granted about a checkpoint's reward, in words."""
    name, lines = checkpoint.model.name, []
    if checkpoint.variant is None:
        lines.append(
            f"{name}: no training method is recorded; its reward is taken to be DPO's log-ratio. "
            "Give --variant if it is another."
        )
    if checkpoint.beta is None and "beta" in _variant_class(checkpoint).ranges:
        lines.append(
            f"{name}: no beta is recorded; rewards and margins are in nats (beta 1). Orders and "
            "accuracies do not depend on it, calibration does. Give --beta to scale them."
        )
    return lines


def _aligned_reference(policy: pd.DataFrame, reference: pd.DataFrame | None) -> pd.DataFrame:
    if reference is None:
        blank = policy[["pair_id"]].copy()
        return blank.assign(logp_chosen=np.nan, logp_rejected=np.nan)
    for column, option in (
        ("engine", "--engine"),
        ("dtype", "--dtype"),
        ("tokenizer_hash", "--reference"),
    ):
        ours, theirs = set(policy[column]), set(reference[column])
        if ours != theirs:
            raise CheckpointError(
                f"{policy['model_id'].iloc[0]} and its reference {reference['model_id'].iloc[0]} "
                f"differ in {column} ({', '.join(sorted(ours))} against "
                f"{', '.join(sorted(theirs))}); an implicit reward across them is meaningless. "
                f"Check {option}."
            )
    aligned = reference.set_index("pair_id").reindex(policy["pair_id"])
    if aligned["logp_chosen"].isna().any():
        raise CheckpointError(
            f"the reference {reference['model_id'].iloc[0]} was not scored on every pair."
        )
    return aligned.reset_index()


def _measure_parity(
    models: Sequence[ModelRef],
    pairs: PairSet,
    template: str | None,
    pool: EnginePool,
    *,
    scored: Mapping[str, pd.DataFrame],
    parity: dict[str, Parity],
) -> list[str]:
    """Fill ``parity`` for the models that something else than hf in float32 scored; its notes."""
    notes = []
    for model in models:
        row = scored[model.model_id].iloc[0]
        if model.model_id not in parity and checks.needs_parity(row["engine"], row["dtype"]):
            encoder = encoder_for(model, pairs.frame, pool.choice, template)
            parity[model.model_id] = checks.parity_of(model, pairs, encoder, pool)
            notes.append(checks.parity_note(model.name, row["engine"], parity[model.model_id]))
    return notes


def _noise(parity: Mapping[str, Parity], model: ModelRef, reference: ModelRef | None) -> float:
    """Largest error of a log-ratio margin, nats: both models' noise; NaN where not measured."""
    both = [model, *([reference] if reference else [])]
    return float(sum(parity[m.model_id].margin_noise for m in both)) if parity else math.nan
