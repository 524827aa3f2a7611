"""What a report is made from: tables, and the words that no table holds.

``ReportInput`` is everything; ``saved`` writes it to a folder and reads it back unchanged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import pandas as pd

from dpo_diag.errors import DataError
from dpo_diag.reporting.summary import Headline
from dpo_diag.tables import CASES, CURVES, FINDINGS, empty


@dataclass(frozen=True)
class ModelEntry:
    """A model that was looked at.

    Attributes:
        model_id: run name plus eight hex digits of its weights' hash.
        name: name shown; the model_id where empty.
        fingerprint: hash of the weights.
        reference_id, reference_fingerprint: model its implicit reward is measured against.
        variant: what it was trained with, with hyper-parameters (the reward definition).
        engine, dtype: what scored or sampled it.
        note: one line, e.g. what was found in its folder.
    """

    model_id: str
    name: str = ""
    fingerprint: str = ""
    reference_id: str = ""
    reference_fingerprint: str = ""
    variant: str = ""
    engine: str = ""
    dtype: str = ""
    note: str = ""


@dataclass(frozen=True)
class DataEntry:
    """A set of pairs or prompts that was used.

    Attributes:
        name: role, e.g. ``pairs`` or ``prompts``.
        source: where it came from.
        format: format it was read as.
        n: rows.
        content_hash: SHA-256 of the content.
        note: one line, e.g. counted duplicates.
    """

    name: str
    source: str = ""
    format: str = ""
    n: int = 0
    content_hash: str = ""
    note: str = ""


@dataclass(frozen=True)
class FigureEntry:
    """A figure, as analyzers declare it, with the analyzer's name.

    Attributes:
        analyzer: section it stands in; empty for the comparison as a whole.
        name: file name without ending.
        kind: name of a drawing function in ``plots``.
        curve: for kinds drawn from Curves, the curve; for ``intervals`` and ``scatter`` the
            statistic or statistics, see there.
        x_label, y_label: with units.
        title: what it shows, one line.
    """

    analyzer: str
    name: str
    kind: str
    curve: str
    x_label: str = ""
    y_label: str = ""
    title: str = ""


@dataclass(frozen=True)
class Section:
    """The words about one analyzer.

    Attributes:
        analyzer: its name.
        question: the question it answers, one sentence.
        reading: how to read its numbers.
        misleads: when they mislead.
        notes: what happened in this run: dropped rows, parity gate.
        headline: statistics that stand first and by slice; the others fold away. Those of the
            report's headline where empty, all of them where that has none either.
    """

    analyzer: str
    question: str = ""
    reading: str = ""
    misleads: str = ""
    notes: tuple[str, ...] = ()
    headline: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A claim with the number that decides it; decided by the caller, not here.

    Attributes:
        text: the claim in words.
        statistic: what was compared, in words or as named in Findings.
        verdict: ``holds``, ``does not hold`` or ``not distinguishable``.
        estimate, ci_low, ci_high: in ``unit``; not-a-number where missing.
        ci_level: nominal level, 0 to 1.
        unit: unit in words; shares are shown in percentage points.
        method: how interval and verdict were made.
        n: independent prompts (or seeds) behind it.
        reason: what its author thinks is behind the verdict.
    """

    text: str
    statistic: str
    verdict: str
    estimate: float = float("nan")
    ci_low: float = float("nan")
    ci_high: float = float("nan")
    ci_level: float = 0.95
    unit: str = ""
    method: str = ""
    n: int = 0
    reason: str = ""


@dataclass(frozen=True)
class ReportInput:
    """Everything a report is rendered from.

    Attributes:
        title: first line.
        findings, curves: tables as specified in ``tables``.
        cases: Cases table; further text columns (``prompt``, ``chosen``, ``rejected``,
            ``response`` ...) are shown under each case, see ``cases.with_text``.
        models: in row order.
        headline: columns of the comparison table.
        baseline_id: model the others are compared with, empty for none.
        data, figures, sections, claims: what else to show, in order.
        notes: about the whole comparison: parity gate, what was found, what was left out.
        commands: shell commands that make the report again.
        versions: package or machine part to its version.
        settings: further facts for the last section, e.g. seed.
    """

    title: str
    findings: pd.DataFrame = field(default_factory=lambda: empty(FINDINGS))
    curves: pd.DataFrame = field(default_factory=lambda: empty(CURVES))
    cases: pd.DataFrame = field(default_factory=lambda: empty(CASES))
    models: tuple[ModelEntry, ...] = ()
    headline: tuple[Headline, ...] = ()
    baseline_id: str = ""
    data: tuple[DataEntry, ...] = ()
    figures: tuple[FigureEntry, ...] = ()
    sections: tuple[Section, ...] = ()
    claims: tuple[Claim, ...] = ()
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, str]:
        """model_id to the name shown; runs of one name with the end of their model_id."""
        names = [model.name for model in self.models]
        shown = {}
        for model in self.models:
            twice = f"{model.name} ({model.model_id[-8:]})" if names.count(model.name) > 1 else ""
            shown[model.model_id] = (twice or model.name) if model.name else model.model_id
        return shown

    @property
    def model_ids(self) -> tuple[str, ...]:
        """Models in row order; those of Findings in order of appearance where none were named."""
        if self.models:
            return tuple(model.model_id for model in self.models)
        return tuple(dict.fromkeys(self.findings["model_id"]))


_LISTS = {
    "models": ModelEntry,
    "headline": Headline,
    "data": DataEntry,
    "figures": FigureEntry,
    "sections": Section,
    "claims": Claim,
}
_PLAIN = ("title", "baseline_id", "notes", "commands", "versions", "settings")


def words(report: ReportInput) -> dict[str, Any]:
    """All of a report but its tables, as plain dicts, lists, strings and numbers."""
    record: dict[str, Any] = {
        "title": report.title,
        "baseline_id": report.baseline_id,
        "notes": list(report.notes),
        "commands": list(report.commands),
        "versions": dict(report.versions),
        "settings": dict(report.settings),
    }
    for name, kind in _LISTS.items():
        record[name] = [
            {f.name: _listed(getattr(entry, f.name)) for f in fields(kind)}
            for entry in getattr(report, name)
        ]
    return record


def from_words(record: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> ReportInput:
    """The report whose ``words`` and tables (findings, curves, cases) were saved.

    Raises:
        DataError: a key that no report has, named.
    """
    unknown = set(record) - set(_PLAIN) - set(_LISTS)
    if unknown:
        raise DataError(f"report.toml: no report has the key {', '.join(sorted(unknown))}.")
    try:
        lists = {
            name: tuple(kind(**_tupled(entry)) for entry in record.get(name, ()))
            for name, kind in _LISTS.items()
        }
    except TypeError as error:
        raise DataError(f"report.toml: {error}.") from error
    known = {name: _tupled({"v": record[name]})["v"] for name in _PLAIN if name in record}
    return ReportInput(**known, **lists, **tables)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _tupled(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items()}
