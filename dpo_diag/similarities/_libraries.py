"""The libraries that hold the measures: an optional extra, imported where a measure is used."""

import importlib.util

from dpo_diag.errors import DataError


def require_library(module: str, similarity: str) -> None:
    """Refuse a similarity whose library is not installed, without importing it.

    Raises:
        DataError: with the command that installs it.
    """
    if importlib.util.find_spec(module) is None:
        raise DataError(
            f"the similarity {similarity} needs {module}, which is not installed: "
            "pip install 'dpo-diag[similarities]'."
        )
