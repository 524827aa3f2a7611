"""The comparison table: one row per model, one column per headline number, nothing recomputed.

A cell holds the model's own number and its difference from the baseline with the verdict, both
taken from Findings as they stand. ``terminal``, ``markdown`` and ``latex`` print the table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from dpo_diag.reporting import numbers
from dpo_diag.reporting.numbers import Number

SIGNS = {"better": "▲", "worse": "▼", "not distinguishable": "≈"}


@dataclass(frozen=True)
class Headline:
    """A number that the comparison shows.

    Attributes:
        analyzer, statistic, slice: which rows of Findings.
        label: column head; the statistic in words where empty.
    """

    analyzer: str
    statistic: str
    slice: str = "all"
    label: str = ""

    @property
    def head(self) -> str:
        """Column head."""
        if self.label:
            return self.label
        words = numbers.title(self.statistic)
        return words if self.slice == "all" else f"{words} ({self.slice})"


@dataclass(frozen=True)
class Cell:
    """One model's headline number and its difference from the baseline.

    Attributes:
        own: the model's number; ``None`` where no row of Findings has it.
        difference: model minus baseline; ``None`` for the baseline and where nobody compared.
        notes: numbers of the footnotes that apply, from 1.
    """

    own: Number | None
    difference: Number | None
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class ComparisonTable:
    """Models in rows, headline numbers in columns.

    Attributes:
        columns: what each column shows.
        models: model_id of each row, in order.
        labels: name shown for a model_id; the id itself where absent.
        baseline_id: the model that the others are compared with, empty for none.
        cells: ``cells[row][column]``.
        footnotes: flags in words; footnote k is at k - 1.
    """

    columns: tuple[Headline, ...]
    models: tuple[str, ...]
    labels: Mapping[str, str]
    baseline_id: str
    cells: tuple[tuple[Cell, ...], ...]
    footnotes: tuple[str, ...] = field(default=())

    def name(self, model_id: str) -> str:
        """The name shown for a model, still untrusted."""
        return self.labels.get(model_id, model_id)

    def column(self, index: int) -> tuple[Cell, ...]:
        """The cells of one column from top to bottom."""
        return tuple(row[index] for row in self.cells)

    def unit(self, index: int) -> tuple[str, str]:
        """Unit and direction of a column, empty strings where no model has the number."""
        known = [cell.own for cell in self.column(index) if cell.own is not None]
        return (known[0].unit, known[0].better) if known else ("", "")

    def digits(self, index: int) -> tuple[int, int]:
        """Digits after the point of a column's estimates and of its differences."""
        own = [cell.own for cell in self.column(index) if cell.own is not None]
        gaps = [cell.difference for cell in self.column(index) if cell.difference is not None]
        return numbers.decimals(own), numbers.decimals(gaps or own)


def headline_table(
    findings: pd.DataFrame,
    *,
    headline: Sequence[Headline | tuple[str, ...]],
    models: Sequence[str],
    baseline_id: str = "",
    labels: Mapping[str, str] | None = None,
) -> ComparisonTable:
    """The comparison of several models on the headline numbers.

    Args:
        findings: Findings table; rows with an empty baseline_id are a model's own numbers, rows
            with ``baseline_id`` the differences.
        headline: columns in order, as ``Headline`` or (analyzer, statistic, slice, label).
        models: model_ids in row order.
        baseline_id: the model compared with, empty for none.
        labels: model_id to the name shown.

    Returns:
        A table in which a number that Findings lacks stays missing.
    """
    columns = tuple(h if isinstance(h, Headline) else Headline(*h) for h in headline)
    index = _index(findings, columns)
    notes: dict[str, int] = {}
    cells = tuple(
        tuple(_cell(index, column, (model, baseline_id), notes) for column in columns)
        for model in models
    )
    return ComparisonTable(
        columns, tuple(models), dict(labels or {}), baseline_id, cells, tuple(notes)
    )


def method_lines(table: ComparisonTable) -> tuple[str, ...]:
    """Level, method, bound or approximation and sample size, columns that share them together.

    The text is untrusted like the labels in it.
    """
    found: dict[str, list[str]] = {}
    for index, column in enumerate(table.columns):
        own = [c.own for c in table.column(index) if c.own is not None and c.own.n]
        if own:
            methods = dict.fromkeys(describe_method(number) for number in own)
            found.setdefault(f"{'; '.join(methods)}; {_sizes(own)}", []).append(column.head)
    return tuple(f"{', '.join(heads)}: {how}" for how, heads in found.items())


def describe_method(number: Number) -> str:
    """How an interval was made: ``95 % Clopper-Pearson (guarantee)``."""
    if not number.method:
        return "no interval"
    level = "" if number.level != number.level else f"{100 * number.level:g} % "
    return f"{level}{number.method} ({'guarantee' if number.is_guarantee else 'approximation'})"


def _index(
    findings: pd.DataFrame, columns: Sequence[Headline]
) -> dict[tuple[str, str, str, str, str], Number]:
    wanted = {(c.analyzer, c.statistic, c.slice) for c in columns}
    records = findings[findings["statistic"].isin([c.statistic for c in columns])].to_dict(
        "records"
    )
    return {
        (r["analyzer"], r["statistic"], r["slice"], r["model_id"], r["baseline_id"]): Number.of(r)
        for r in records
        if (r["analyzer"], r["statistic"], r["slice"]) in wanted
    }


def _cell(
    index: Mapping[tuple[str, str, str, str, str], Number],
    column: Headline,
    models: tuple[str, str],
    notes: dict[str, int],
) -> Cell:
    """The cell of a model and its baseline; new flags are added to ``notes``."""
    model_id, baseline_id = models
    key = (column.analyzer, column.statistic, column.slice, model_id)
    own = index.get((*key, ""))
    is_compared = baseline_id and model_id != baseline_id
    difference = index.get((*key, baseline_id)) if is_compared else None
    flags = [x.flag for x in (own, difference) if x is not None and x.flag == x.flag and x.flag]
    shown = [notes.setdefault(flag, len(notes) + 1) for flag in dict.fromkeys(flags)]
    return Cell(own, difference, tuple(shown))


def _sizes(own: Sequence[Number]) -> str:
    rows, units = _span([x.n for x in own]), _span([x.n_clusters for x in own])
    # what is independent is a prompt, but for numbers of whole training runs
    over_seeds = ("t over ", "Welch's t over ")
    unit = "seed" if all(x.method.startswith(over_seeds) for x in own) else "prompt"
    return f"{rows} row{'s' * (rows != '1')} from {units} {unit}{'s' * (units != '1')}"


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
