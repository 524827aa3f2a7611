"""Recipes as text: strict TOML in, complete TOML out, and flat options from a command line.

Unknown and missing keys are errors with the nearest name; nothing is guessed. Start reading at
``load_recipe``.
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dpo_diag import registry
from dpo_diag.errors import RecipeError
from dpo_diag.training.recipe import (
    DataSection,
    LogSection,
    LoraSection,
    OnlineSection,
    OptimizerSection,
    PlayersSection,
    Recipe,
    RunSection,
    VariantSection,
)

SECTIONS: dict[str, type] = {
    "run": RunSection,
    "variant": VariantSection,
    "optimizer": OptimizerSection,
    "data": DataSection,
    "log": LogSection,
    "lora": LoraSection,
    "online": OnlineSection,
    "players": PlayersSection,
}
OPTIMIZER_DEFAULTS = {"learning_rate": 5e-7, "batch_size": 16}


def load_recipe(path: Path) -> Recipe:
    """A recipe from its TOML file.

    Raises:
        RecipeError: unreadable file, unknown or missing key, wrong type, value out of range.
        UnknownName: no such variant.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as a recipe in TOML: {error}.") from error
    return parse_recipe(table, where=str(path))


def parse_recipe(table: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """A recipe from nested tables, strictly; the hyper-parameters lie beside the variant's name.

    Raises:
        RecipeError: unknown or missing key, wrong type, value out of range.
        UnknownName: no such variant.
    """
    for key in table:
        if key not in SECTIONS:
            raise RecipeError(f"{where}: unknown section [{key}].{_nearest(key, SECTIONS)}")
    for key in ("variant", "optimizer"):
        if key not in table:
            raise RecipeError(f"{where}: the section [{key}] is missing.")
    sections = {}
    for key, values in table.items():
        if not isinstance(values, Mapping):
            raise RecipeError(f"{where}: {key} must be a section, [{key}].")
        if key == "variant":
            values = _fold_parameters(values, where)
        sections[key] = _section(SECTIONS[key], key, values, where)
    return Recipe(**sections)


def recipe_for(variant: str, **options: Any) -> Recipe:
    """A recipe from a variant's name and flat options, for the command line.

    Args:
        variant: name of a variant.
        options: any key of any section by its own name (``learning_rate=1e-6``), or any
            hyper-parameter of the variant (``beta=0.1``). Options that are None are left out.

    Raises:
        RecipeError: an option that no section and not the variant knows.
        UnknownName: no such variant.
    """
    known = {f.name for f in dataclasses.fields(registry.load("variants", variant))}
    table: dict[str, dict[str, Any]] = {"variant": {"name": variant}, "optimizer": {}}
    for key, value in options.items():
        if value is None:
            continue
        place = "variant" if key in known else _place(key, known)
        table.setdefault(place, {})[key] = value
    table["optimizer"] = {**OPTIMIZER_DEFAULTS, **table["optimizer"]}
    return parse_recipe(table, where="options")


def recipe_table(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The recipe as nested tables, every key stated, as ``parse_recipe`` reads them."""
    table = {
        key: dataclasses.asdict(section)
        for key in SECTIONS
        if (section := getattr(recipe, key)) is not None
    }
    variant = recipe.build_variant()
    table["variant"] = {"name": recipe.variant.name, **dataclasses.asdict(variant)}
    return table


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as TOML text with every key stated."""
    parts = []
    for section, values in recipe_table(recipe).items():
        lines = [f"{key} = {_toml(value)}" for key, value in values.items()]
        parts.append("\n".join([f"[{section}]", *lines]))
    return "\n\n".join(parts) + "\n"


def _fold_parameters(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The variant's section with its hyper-parameters, in their fields' types, under one key."""
    if not isinstance(values.get("name"), str):
        raise RecipeError(f"{where}: [variant] lacks the key 'name', the variant's name.")
    fields = {f.name: f for f in dataclasses.fields(registry.load("variants", values["name"]))}
    parameters = {
        key: _typed(value, fields[key].type, f"{where}: variant.{key}") if key in fields else value
        for key, value in values.items()
        if key != "name"
    }
    return {"name": values["name"], "parameters": parameters}


def _section(kind: type, name: str, values: Mapping[str, Any], where: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for key in values:
        if key not in fields:
            raise RecipeError(f"{where}: [{name}] has no key {key!r}.{_nearest(key, fields)}")
    for key, item in fields.items():
        required = (
            item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        )
        if required and key not in values:
            raise RecipeError(f"{where}: [{name}] lacks the key {key!r}.")
    return kind(**{k: _typed(v, fields[k].type, f"{where}: {name}.{k}") for k, v in values.items()})


def _typed(value: Any, kind: Any, place: str) -> Any:
    """The value in its field's type: an integer serves as a float, a list as a tuple."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind == tuple[str, ...] and isinstance(value, list | tuple):
        return tuple(str(item) for item in value)
    if kind == tuple[float, ...] and isinstance(value, list | tuple):
        return tuple(_typed(item, float, place) for item in value)
    if isinstance(kind, type):
        wrong_bool = isinstance(value, bool) and kind is not bool
        if wrong_bool or not isinstance(value, kind):
            raise RecipeError(f"{place} must be a {kind.__name__}, got {value!r}.")
    return value


def _place(option: str, hyper_parameters: set[str]) -> str:
    places = {f.name: key for key, kind in SECTIONS.items() for f in dataclasses.fields(kind)}
    if option not in places or option in ("name", "parameters"):
        near = _nearest(option, {*places, *hyper_parameters} - {"name", "parameters"})
        raise RecipeError(f"no recipe section has the option {option!r}.{near}")
    return places[option]


def _nearest(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(sorted(known))}."


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return repr(value)
