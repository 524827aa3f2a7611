"""What flows between the steps: the specification of every table, its checks, its files.

A table is a pandas frame in memory and Parquet or CSV on disk. Each has a ``TableSpec``;
``validate`` names the first bad row and column. Columns that a specification does not name are
kept: a user's extra columns survive every step. Start reading at ``validate``; the
specifications are in ``table_specs``.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_diag import diagnosis_specs, table_specs
from dpo_diag.content import canonical_json, content_hash, content_id, write_text  # noqa: F401 (re-exported)
from dpo_diag.diagnosis_specs import (  # noqa: F401 (re-exported)
    EXPLICIT_REWARDS,
    EXPRESSIBLE,
    JUDGED_PAIRS,
    LABEL_EVIDENCE,
    LOCAL_MARGINS,
    PAIR_CONFLICTS,
    PAIR_NORMS,
    PAIR_ROWS,
    PAIR_TIMELINES,
    PROMPT_DISTANCES,
    REMOVAL_OUTCOMES,
    REVERSAL_PREDICTIONS,
    RUN_STEPS,
    SAMPLE_LOGPS,
    SCORED_SAMPLES,
)
from dpo_diag.errors import TableError
from dpo_diag.table_specs import (  # noqa: F401 (re-exported)
    CASES,
    CURVES,
    FINDINGS,
    IMPLICIT_REWARDS,
    METHOD_VALUES,
    PAIR_STATES,
    PREFERENCE_PAIRS,
    PROMPTS,
    SAMPLE_COSTS,
    SAMPLES,
    SCORED_PAIRS,
    TRAIN_LOG,
    WIN_RATES,
    Column,
    TableSpec,
)

SPECS = table_specs.SPECS | diagnosis_specs.SPECS
SPEC_VERSION = 1
_METADATA_KEY = b"dpo_diag"


def table_hash(frame: pd.DataFrame, spec: TableSpec) -> str:
    """SHA-256 of a table's content: specified columns, rows in key order.

    Parquet bytes change with the writer's version; this does not.
    """
    columns = [name for name in spec.column_names if name in frame.columns]
    ordered = frame.sort_values(list(spec.key))[columns]
    return content_hash([columns, *ordered.itertuples(index=False, name=None)])


def validate(frame: pd.DataFrame, spec: TableSpec, where: str = "") -> pd.DataFrame:
    """The frame itself, once every specified column, dtype and the key are right.

    Args:
        frame: table to check; not modified.
        spec: what it must be.
        where: file or step named in the message.

    Raises:
        TableError: names the table, the column, the first bad row and what was expected.
    """
    place = f"{where}: " if where else ""
    missing = [c.name for c in spec.columns if not c.optional and c.name not in frame.columns]
    if missing:
        raise TableError(
            f"{place}{spec.name} lacks the column {', '.join(missing)}; "
            f"it has {', '.join(map(str, frame.columns)) or 'none'}."
        )
    for column in spec.columns:
        if column.name in frame.columns:
            _check_column(frame, column, f"{place}{spec.name}")
    duplicated = frame.duplicated(list(spec.key)) if len(frame) else pd.Series(dtype=bool)
    if duplicated.any():
        row = int(np.flatnonzero(duplicated.to_numpy())[0])
        key = ", ".join(f"{k}={frame.iloc[row][k]}" for k in spec.key)
        raise TableError(f"{place}{spec.name} row {row}: the key {key} occurs twice.")
    return frame


def write_table(
    frame: pd.DataFrame, path: Path, spec: TableSpec, provenance: Mapping[str, Any] | None = None
) -> Path:
    """Validate and write a table as Parquet (or CSV by ending), whole or not at all.

    The file's metadata hold the spec's name and version and ``provenance`` (package version,
    engine, dtype, seed, hashes of the inputs ...). The file appears under its name only once it
    is complete.
    """
    validate(frame, spec, str(path))
    if path.suffix == ".csv":
        return write_text(path, frame.to_csv(index=False, lineterminator="\n"))
    table = pa.Table.from_pandas(frame, preserve_index=False)
    record = {"spec": spec.name, "spec_version": SPEC_VERSION, **dict(provenance or {})}
    table = table.replace_schema_metadata(
        {**(table.schema.metadata or {}), _METADATA_KEY: canonical_json(record).encode()}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    pq.write_table(table, partial)
    os.replace(partial, path)
    return path


def read_table(path: Path, spec: TableSpec) -> pd.DataFrame:
    """A table from its Parquet or CSV file, validated.

    Raises:
        TableError: unreadable file, another table's file, or content against the spec.
    """
    try:
        if path.suffix == ".csv":
            text = {c.name: "str" for c in spec.columns if c.dtype == "string"}
            # "NA" and "null" are texts like any other; only an empty number is missing
            missing = {c.name: [""] for c in spec.columns if c.name not in text}
            frame = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=missing)
        else:
            table = pq.read_table(path)
            _check_same_spec(table, spec, path)
            frame = table.to_pandas()
    except (OSError, pa.ArrowInvalid, ValueError) as error:
        raise TableError(f"{path}: cannot be read as {spec.name}: {error}") from error
    return validate(frame, spec, str(path))


def read_provenance(path: Path) -> dict[str, Any]:
    """What ``write_table`` recorded in a Parquet file's metadata; empty where nothing was."""
    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(_METADATA_KEY, b"{}"))


def empty(spec: TableSpec) -> pd.DataFrame:
    """A table without rows that meets the spec."""
    dtypes = {"string": "str", "float": "float64", "int": "int64", "bool": "bool", "ids": "object"}
    return pd.DataFrame(
        {c.name: pd.Series(dtype=dtypes[c.dtype]) for c in spec.columns if not c.optional}
    )


def concat(frames: Iterable[pd.DataFrame], spec: TableSpec) -> pd.DataFrame:
    """All rows of several tables of one spec; an empty table when there are none."""
    kept: Sequence[pd.DataFrame] = [frame for frame in frames if len(frame)]
    return pd.concat(kept, ignore_index=True) if kept else empty(spec)


def _check_same_spec(table: pa.Table, spec: TableSpec, path: Path) -> None:
    recorded = json.loads((table.schema.metadata or {}).get(_METADATA_KEY, b"{}"))
    if recorded.get("spec", spec.name) != spec.name:
        raise TableError(f"{path}: holds {recorded['spec']}, expected {spec.name}.")


def _check_column(frame: pd.DataFrame, column: Column, place: str) -> None:
    values = frame[column.name]
    if not column.nullable and values.isna().any():
        row = int(np.flatnonzero(values.isna().to_numpy())[0])
        raise TableError(
            f"{place}: column {column.name} has {int(values.isna().sum())} missing values, "
            f"first at row {row}."
        )
    if _DTYPES[column.dtype](values.dtype):
        return  # the frame's own dtype proves it; only object columns are walked
    is_known = _CHECKS[column.dtype]
    if column.dtype == "int" and column.nullable:
        is_known = _is_whole  # missing values make floats of whole numbers
    bad = ~values.map(is_known).astype(bool) & values.notna()
    if bad.any():
        row = int(np.flatnonzero(bad.to_numpy())[0])
        raise TableError(
            f"{place}: column {column.name}, row {row}: {values.iloc[row]!r} "
            f"is not of type {column.dtype}."
        )


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool_)


def _is_whole(value: Any) -> bool:
    return _is_int(value) or (isinstance(value, float | np.floating) and value == np.floor(value))


# dtypes that need no look at the values
_DTYPES = {
    "string": lambda d: isinstance(d, pd.StringDtype),
    "float": pd.api.types.is_float_dtype,
    "int": pd.api.types.is_integer_dtype,
    "bool": pd.api.types.is_bool_dtype,
    "ids": lambda d: False,
}
_CHECKS = {
    "string": lambda v: isinstance(v, str),
    "float": lambda v: (
        isinstance(v, int | float | np.integer | np.floating) and not isinstance(v, bool)
    ),
    "int": _is_int,
    "bool": lambda v: isinstance(v, bool | np.bool_),
    "ids": lambda v: isinstance(v, list | tuple | np.ndarray) and all(_is_int(x) for x in v),
}
