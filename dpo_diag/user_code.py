"""A user's own function by name: found, run when named, and its errors told in one line.

Naming a function runs its module. May import: errors.
"""

import importlib
import importlib.util
import traceback
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from dpo_diag.errors import DataError


@lru_cache(maxsize=32)
def load_function(target: str, whose: str) -> Callable[..., Any]:
    """The function that a target names; its module is run, so name only code you trust.

    Args:
        target: ``package.module:function`` or ``folder/file.py:function``.
        whose: who asks, for the message, e.g. ``cost python_callable``.

    Raises:
        DataError: no such form, module or function, or the module raised.
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise DataError(
            f"{whose}: target {target!r} is not of the form package.module:function "
            "or file.py:function."
        )
    try:
        module = (
            _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        )
    except (ImportError, SyntaxError, OSError) as error:
        raise DataError(f"{target}: {place} cannot be imported: {error}.") from error
    except Exception as error:  # the user's module may raise anything
        raise DataError(f"{target}: importing {place} raised {where_raised(error)}.") from error
    function = getattr(module, name, None)
    if not callable(function):
        public = [n for n in vars(module) if not n.startswith("_") and callable(vars(module)[n])]
        raise DataError(
            f"{target}: {place} has no function {name!r}; it has {', '.join(public) or 'none'}."
        )
    return function


def _load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def where_raised(error: Exception) -> str:
    """An exception of the user's code with its last place in that code."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__} ({text}) in {Path(last.filename).name}, line {last.lineno}"
