"""Answers that are no pairs: from a file, a folder or the hub to a table.

The same containers as for pairs are read (JSONL, JSON, CSV, Parquet, folders of them, ``datasets``
folders, hub ids), but no format is guessed: the columns are called what they are called. Start
reading at ``read_answers``.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dpo_diag.errors import DataError
from dpo_diag.pair_formats._sources import Part, parts_of


def read_answers(source: Path | str, *, stem: str, numbers: Sequence[str] = ()) -> pd.DataFrame:
    """Rows with ``prompt`` and ``response``, all other columns as they come.

    Args:
        source: as ``pairs.read_pairs`` takes it.
        stem: in a folder, the file of this name is read alone where there is one.
        numbers: columns that must hold a finite number in every row.

    Raises:
        DataError: nothing to read; a column is missing; a prompt or response is no text or empty;
            a number is none. Names file, row and column.
    """
    parts = parts_of(source, stem=stem)
    for part in parts:
        for row, number in zip(part.rows, part.numbers, strict=True):
            for column in ("prompt", "response", *numbers):
                if column not in row:
                    found = ", ".join(map(str, row)) or "none"
                    raise DataError(
                        f"{_place(part, number)}: has no {column}; expected the columns "
                        f"{', '.join(('prompt', 'response', *numbers))}, found {found}."
                    )
            for column in ("prompt", "response"):
                if not (isinstance(row[column], str) and row[column].strip()):
                    raise DataError(
                        f"{_place(part, number)}: {column} must be text that is not empty, got "
                        f"{row[column]!r}."
                    )
            for column in numbers:
                _check_number(row[column], column, _place(part, number))
    frame = pd.DataFrame([row for part in parts for row in part.rows])
    return frame.astype(dict.fromkeys(numbers, np.float64))


def _check_number(value: object, column: str, place: str) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and np.isfinite(value)):
        raise DataError(f"{place}: {column} must be a finite number, got {value!r}.")


def _place(part: Part, number: int) -> str:
    return f"{part.where}: {part.unit} {number}"
