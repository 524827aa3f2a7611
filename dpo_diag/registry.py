"""The folder is the register: a plug-in's name is its file name.

``names`` lists a family without importing it; ``load`` imports one file and gives its class. A
family is one of the folders in ``FAMILIES``; a plug-in file has no leading underscore and names
its class in the module constant that the family's ``_base`` documents (``VARIANT``, ``COST``,
``ENGINE``, ``ANALYZER``, ``FORMAT``, ``ORACLE``, ``SIMILARITY``, ``SELECTOR``, ``CHECK``,
``RUN_FORMAT``, ``SYMPTOM``).
"""

import ast
import dataclasses
import difflib
import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from dpo_diag.errors import DataError, UnknownName

# family -> the module constant that names the plug-in's class
FAMILIES = {
    "variants": "VARIANT",
    "costs": "COST",
    "engines": "ENGINE",
    "analyzers": "ANALYZER",
    "pair_formats": "FORMAT",
    "oracles": "ORACLE",
    "similarities": "SIMILARITY",
    "selectors": "SELECTOR",
    "pair_checks": "CHECK",
    "run_formats": "RUN_FORMAT",
    "symptoms": "SYMPTOM",
}


def names(family: str) -> list[str]:
    """Names of a family's plug-ins in alphabetical order, read from the folder, nothing imported.

    Args:
        family: one of ``FAMILIES``.

    Returns:
        File names without ending, underscore files left out.
    """
    return sorted(p.stem for p in _folder(family).glob("*.py") if not p.stem.startswith("_"))


def load_module(family: str, name: str) -> ModuleType:
    """The plug-in's module.

    Raises:
        UnknownName: no such file; the message has the nearest names and the whole list.
    """
    known = names(family)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownName(
            f"No {family[:-1]} called {name!r}.{hint} There are: {', '.join(known) or 'none'}."
        )
    return importlib.import_module(f"dpo_diag.{family}.{name}")


def load(family: str, name: str) -> type:
    """The plug-in's class.

    Raises:
        UnknownName: no such file; the message has the nearest names and the whole list.
    """
    return getattr(load_module(family, name), FAMILIES[family])


def build(family: str, name: str, parameters: Mapping[str, Any]) -> Any:
    """An instance of a plug-in that is a dataclass, from parameters given by name, strictly.

    Raises:
        UnknownName: no such plug-in.
        DataError: unknown or missing parameter.
    """
    plugin = load(family, name)
    fields = {f.name: f for f in dataclasses.fields(plugin)}
    for key in parameters:
        if key not in fields:
            known = ", ".join(fields) or "none"
            raise DataError(f"{family}: {name} has no parameter {key!r}; it has {known}.")
    for key, item in fields.items():
        has_default = (
            item.default is not dataclasses.MISSING
            or item.default_factory is not dataclasses.MISSING
        )
        if not has_default and key not in parameters:
            raise DataError(f"{family}: {name} needs the parameter {key!r}.")
    return plugin(**parameters)


def summary(family: str, name: str) -> str:
    """The plug-in's module docstring, read from its source without importing it."""
    if name not in names(family):
        load_module(family, name)  # raises UnknownName with the nearest name
    tree = ast.parse((_folder(family) / f"{name}.py").read_text(encoding="utf-8"))
    return ast.get_docstring(tree) or ""


def _folder(family: str) -> Path:
    if family not in FAMILIES:
        raise UnknownName(f"No family called {family!r}. There are: {', '.join(FAMILIES)}.")
    return Path(__file__).parent / family
