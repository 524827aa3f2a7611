"""What an analyzer is: tables in, findings out. No torch, no plots, no files, no printing.

An analyzer file holds one class derived from ``Analyzer`` and the module constant ``ANALYZER``
naming it; its statistics are public functions of arrays with keyword options. Contract: a missing
column is a ``TableError`` naming it; row order and model names do not matter; an empty slice gives
NaN with n = 0 and a flag; the same generator state gives the same numbers; inputs are unchanged.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from dpo_diag.errors import TableError
from dpo_diag.tables import CASES, CURVES, FINDINGS, canonical_json, empty

Tables = Mapping[str, pd.DataFrame]  # table name (see tables.SPECS) -> rows of all models


@dataclass(frozen=True)
class Figure:
    """A figure declared as data; ``reporting.plots`` draws it.

    Attributes:
        name: file name without ending.
        kind: name of the drawing function in ``reporting.plots``.
        curve: value of the Curves table's ``curve`` column that it shows.
        x_label, y_label: with units.
        title: what it shows, one line.
    """

    name: str
    kind: str
    curve: str
    x_label: str
    y_label: str
    title: str


@dataclass(frozen=True)
class AnalyzerResult:
    """What an analyzer found: three tables (specs in ``tables``), figures, and notes in words."""

    findings: pd.DataFrame = field(default_factory=lambda: empty(FINDINGS))
    curves: pd.DataFrame = field(default_factory=lambda: empty(CURVES))
    cases: pd.DataFrame = field(default_factory=lambda: empty(CASES))
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()


class Analyzer:
    """Base of every analyzer.

    Class attributes:
        question: the question it answers, one sentence.
        needs: table name -> columns it reads.
        Parameters: frozen dataclass of its options.
        headline: statistics that ``compare`` shows, in order.
        reads_steps: whether it is given the rows of a run's steps beside those of final models.
        reads_shifts: whether it is given shifted pairs beside those in distribution.
    """

    question: ClassVar[str] = ""
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    Parameters: ClassVar[type] = type(None)
    headline: ClassVar[tuple[str, ...]] = ()
    reads_steps: ClassVar[bool] = False
    reads_shifts: ClassVar[bool] = False

    def run(self, tables: Tables, params: Any, rng: np.random.Generator) -> AnalyzerResult:
        """All findings for every model in the tables.

        ``params.baseline_id`` names the model the others are compared with, empty for none.
        """
        raise TypeError(f"{type(self).__name__} does not implement run().")

    def check(self, tables: Tables) -> None:
        """Refuse tables that lack what the analyzer needs.

        Raises:
            TableError: names the table and the missing columns.
        """
        name = type(self).__module__.rsplit(".", 1)[-1]
        for table, columns in self.needs.items():
            if table not in tables:
                raise TableError(f"{name} needs the table {table}; it was not given.")
            missing = [column for column in columns if column not in tables[table].columns]
            if missing:
                raise TableError(f"{name} needs {table} with the column {', '.join(missing)}.")


ROUND_OFF = 1e-15  # of an estimate; of sums of at most 1 in float64


def finding(
    analyzer: str, statistic: str, model_id: str, *, params: Any = None, **values: Any
) -> dict[str, Any]:
    """One row of the Findings table; what is not given is missing, never zero.

    Args:
        analyzer: analyzer's name.
        statistic: what was estimated.
        model_id: model it is about.
        params: the analyzer's frozen dataclass, stored as canonical JSON.
        **values: further columns of the Findings table; an unknown one is an error.
    """
    row: dict[str, Any] = {
        "analyzer": analyzer,
        "statistic": statistic,
        "model_id": model_id,
        "baseline_id": "",
        "slice": "all",
        "estimate": np.nan,
        "ci_low": np.nan,
        "ci_high": np.nan,
        "ci_level": np.nan,
        "method": "",
        "is_guarantee": False,
        "p_value": np.nan,
        "p_adjusted": np.nan,
        "detectable": np.nan,
        "verdict": "",
        "n": 0,
        "n_clusters": 0,
        "unit": "",
        "better": "neither",
        "flag": "",
        "params": canonical_json(dataclasses.asdict(params)) if params is not None else "{}",
    }
    unknown = set(values) - set(row)
    if unknown:
        raise TableError(f"Findings has no column {', '.join(sorted(unknown))}.")
    row.update(values)
    if abs(row["estimate"]) < ROUND_OFF:  # a sum that ought to cancel; NaN stays NaN
        row["estimate"] = 0.0
    return row


def findings_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows from ``finding`` as a Findings table; an empty table when there are none."""
    return pd.DataFrame(rows, columns=list(FINDINGS.column_names)) if rows else empty(FINDINGS)
