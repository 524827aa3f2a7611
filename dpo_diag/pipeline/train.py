"""Options of ``dpo-diag train`` to a recipe and a training run."""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpo_diag.answers import read_answers
from dpo_diag.errors import RecipeError
from dpo_diag.pairs import PromptSet, read_pairs, read_prompts
from dpo_diag.pipeline.work import Work
from dpo_diag.training.inputs import Inputs
from dpo_diag.training.loop import TrainProgress, train
from dpo_diag.training.players import NOTE, train_players
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.recipe_file import (
    OPTIMIZER_DEFAULTS,
    load_recipe,
    parse_recipe,
    recipe_table,
)


def run_training(options: Mapping[str, Any], work: Work) -> Path:
    """Read recipe and pairs, train, and give the run's folder (with ``[players]``, of all).

    Args:
        options: of the command line: ``recipe``, ``model``, ``reference``, ``pairs``,
            ``pair_format``, ``label``, ``prompts``, ``unlabelled``, ``samples``, ``out``, ``seed``,
            ``overrides``, ``resume``.
        work: store of reference rows, voice, progress bar.
    """
    recipe = recipe_from(options)
    pairs = read_pairs(
        options["pairs"],
        format=options["pair_format"],
        label=options["label"],
        drop_invalid=options["drop_invalid"],
    )
    for note in pairs.notes:
        work.say(note)
    inputs = inputs_from(options, work)
    start = train if recipe.players is None else train_players
    if recipe.players is not None:
        work.say(f"{NOTE}; players.json says what each could still gain by deviating.")
    done = 0
    with work.bar(f"training {recipe.variant.name}", 0) as advance:

        def progress(state: TrainProgress) -> None:
            nonlocal done
            advance(state.step - done)
            done = state.step

        return start(
            recipe,
            pairs,
            out=options["out"],
            resume=options["resume"],
            progress=progress,
            store=work.store,
            inputs=inputs,
        )


def inputs_from(options: Mapping[str, Any], work: Work) -> Inputs:
    """The data beside the pairs, as far as the command line names any.

    Args:
        options: of the command line: ``prompts``, ``unlabelled``, ``samples``; a missing or empty
            one gives None.
        work: is told what was read.
    """
    prompts = unlabelled = samples = None
    if options.get("prompts"):
        prompts = training_prompts(options["prompts"])
        for note in prompts.notes:
            work.say(note)
    if options.get("unlabelled"):
        unlabelled = read_answers(options["unlabelled"], stem="unlabelled")
        work.say(f"{options['unlabelled']}: {len(unlabelled)} answers without preferences.")
    if options.get("samples"):
        samples = read_answers(options["samples"], stem="samples")
        work.say(f"{options['samples']}: {len(samples)} samples.")
    return Inputs(prompts=prompts, unlabelled=unlabelled, samples=samples)


def training_prompts(source: str) -> PromptSet:
    """Prompts to train on: those of the split ``train`` where there is one, else all."""
    prompts = read_prompts(source)
    is_train = prompts.frame["split"] == "train"
    if not is_train.any():
        return prompts
    kept = prompts.frame[is_train].reset_index(drop=True)
    note = f"{source}: its {len(kept)} prompts of split train are trained on."
    return dataclasses.replace(prompts, frame=kept, notes=(*prompts.notes, note))


def recipe_from(options: Mapping[str, Any]) -> Recipe:
    """A recipe from a file or a variant's name, with what the command line overrides.

    Raises:
        RecipeError: unreadable recipe, unknown key, value out of range, no model.
        UnknownName: neither a file nor a variant's name.
    """
    named = Path(options["recipe"])
    is_file = named.suffix == ".toml" or named.is_file()
    recipe = load_recipe(named) if is_file else None
    table = recipe_table(recipe) if recipe else {"variant": {"name": options["recipe"]}}
    for text in options["overrides"]:
        section, key, value = _override(text)
        table.setdefault(section, {})[key] = value
    if recipe is None:
        table["optimizer"] = {**OPTIMIZER_DEFAULTS, **table.get("optimizer", {})}
    recipe = parse_recipe(table, where=str(named) if is_file else "--set")
    changes = {
        key: options[key] for key in ("model", "reference", "seed") if options.get(key) is not None
    }
    recipe = dataclasses.replace(recipe, run=dataclasses.replace(recipe.run, **changes))
    if not recipe.run.model:
        raise RecipeError("no model to start from; give --model FOLDER or a hub id.")
    return recipe


def _override(text: str) -> tuple[str, str, Any]:
    """``section.key=value`` with the value read as TOML, or as text where it is not TOML."""
    place, equals, value = text.partition("=")
    section, dot, key = place.strip().partition(".")
    if not (equals and dot and key):
        raise RecipeError(f"--set {text!r}: expected SECTION.KEY=VALUE, e.g. variant.beta=0.2.")
    try:
        return section, key, tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        return section, key, value.strip()
