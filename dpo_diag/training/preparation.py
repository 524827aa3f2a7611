"""From a recipe and pairs to a run that is ready for its first step.

Start reading at ``prepare``.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from dpo_diag.checkpoints import ModelRecord, PairsRecord, RunManifest
from dpo_diag.errors import DataError, RecipeError
from dpo_diag.store import RowStore
from dpo_diag.training.inputs import Inputs
from dpo_diag.training.online import SampleSteps
from dpo_diag.training.online_pairs import PreferenceSteps
from dpo_diag.training.optimization import make_optimizer
from dpo_diag.training.pair_data import Material, PairData, prepare_pairs
from dpo_diag.training.policy import Policy, load_policy
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.recipe_file import dump_recipe
from dpo_diag.training.runs import RunFolder
from dpo_diag.training.sample_table import SampleTableSteps
from dpo_diag.training.sources._base import has_source
from dpo_diag.training.steps import PairSteps, Steps, schedule
from dpo_diag.variants._base import Needs, Variant

if TYPE_CHECKING:
    from dpo_diag.pairs import PairSet

logger = logging.getLogger(__name__)

# what the loop provides itself; the other needs have a file in ``sources``
_PROVIDED = {
    "reference",
    "online_samples",
    "online_pairs",
    "history",
    "reference_answers",
    "sample_table",
    "pair_state",
    "couples_batch",
    "score_head",
}


@dataclass(frozen=True)
class Prepared:
    """A run before its first step.

    Attributes:
        recipe: as given.
        variant: with its hyper-parameters.
        policy: model, reference, text rule.
        steps: the material, pairs or samples.
        validation: pairs to evaluate on; None where there are none.
        folder: where it is written.
        n_steps: optimiser steps of the whole run.
        optimizer: over the model's trainable weights and the variant's learned state.
        counts: what became of the pairs: kept, swapped, dropped, truncated.
    """

    recipe: Recipe
    variant: Variant
    policy: Policy
    steps: Steps
    validation: PairData | None
    folder: RunFolder
    n_steps: int
    optimizer: torch.optim.Optimizer
    counts: Mapping[str, int]


def prepare(
    recipe: Recipe,
    pairs: "PairSet",
    out: Path,
    *,
    store: RowStore | None = None,
    inputs: Inputs | None = None,
) -> Prepared:
    """Load, encode, score under the reference, relabel.

    Args:
        recipe: complete, with ``run.model``.
        pairs: preference pairs.
        out: run folder.
        store: rows to reuse; None keeps them in the run folder.
        inputs: data beside the pairs.

    Raises:
        RecipeError, DataError, CheckpointError, EngineError: as ``loop.train``.
    """
    variant = recipe.build_variant()
    if recipe.players is not None:
        raise RecipeError("a recipe with [players] is several runs: see players.train_players.")
    _require_provided(variant)
    inputs = inputs or Inputs()
    training, validation = _splits(pairs.frame)
    policy = load_policy(recipe, out / "cache")
    store = store or RowStore(out / "cache" / "rows")
    material = Material(policy, variant, recipe, store, inputs, out)
    steps, counts = _steps(training, material)
    held_out = None
    if len(validation):
        held_out = prepare_pairs(validation, material, is_training=False)
    section = recipe.optimizer
    return Prepared(
        recipe=recipe,
        variant=variant,
        policy=policy,
        steps=steps,
        validation=held_out if held_out is not None and len(held_out) else None,
        folder=RunFolder(out, dump_recipe(recipe), _manifest(recipe, variant, pairs, policy)),
        n_steps=steps.n_steps,
        optimizer=make_optimizer(
            policy.model.parameters(), section, _learned(steps.state), variant.learned_rate
        ),
        counts=counts,
    )


def _steps(training: pd.DataFrame, material: Material) -> tuple[Steps, Mapping[str, int]]:
    """The run's material in steps, and what became of the rows."""
    policy, variant, recipe = material.policy, material.variant, material.recipe
    if variant.needs.online_samples:
        asked = asked_prompts(training, material.inputs)
        sampled = SampleSteps(asked, material)
        return sampled, sampled.counts
    if variant.needs.online_pairs:
        asked = asked_prompts(training, material.inputs)
        return PreferenceSteps(asked, material), {"prompts": int(asked["prompt_id"].nunique())}
    if variant.needs.sample_table:
        table = SampleTableSteps(material)
        return table, table.counts
    data = prepare_pairs(training, material, is_training=True)
    if not len(data):
        raise DataError(
            f"no training pairs are left: {variant.name} dropped all {len(training)} of them."
        )
    return PairSteps(policy.model, data, variant, schedule(recipe)), data.counts


def asked_prompts(training: pd.DataFrame, inputs: Inputs) -> pd.DataFrame:
    """What an online variant samples answers to."""
    return training if inputs.prompts is None else _training_prompts(inputs.prompts.frame)


def _learned(state: Any) -> list[torch.Tensor]:
    """Tensors of a variant's state that are trained beside the model."""
    values = state.values() if isinstance(state, Mapping) else [state]
    return [v for v in values if isinstance(v, torch.Tensor) and v.requires_grad]


def _splits(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    training = frame[frame["split"] == "train"]
    if not len(training):
        found = ", ".join(sorted(frame["split"].unique())) or "no rows"
        raise DataError(f"the pairs have no rows with split train (found: {found}).")
    return training, frame[frame["split"] == "validation"]


def _training_prompts(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with split train; a set in which no row has it is taken whole."""
    training = frame[frame["split"] == "train"]
    return training if len(training) else frame


def _manifest(recipe: Recipe, variant: Variant, pairs: "PairSet", policy: Policy) -> RunManifest:
    def record(ref: Any) -> ModelRecord:
        return ModelRecord(ref.source, ref.fingerprint, ref.revision)

    return RunManifest(
        variant=variant.name,
        parameters=dict(vars(variant)),
        base=record(policy.base),
        reference=record(policy.reference) if variant.needs.reference else None,
        pairs=PairsRecord(str(pairs.source), pairs.content_hash),
        template=policy.encoder.template,
        tokenizer_hash=policy.encoder.hash,
        seed=recipe.run.seed,
    )


def _require_provided(variant: Variant) -> None:
    defaults = Needs()
    for name, value in vars(variant.needs).items():
        if name not in _PROVIDED and not has_source(name) and value != getattr(defaults, name):
            raise RecipeError(
                f"{variant.name} needs {name}, which the training loop does not provide."
            )
