"""A diagnosis as text for a terminal, as Markdown and as plain values for JSON.

Every text of the run is untrusted and goes through ``reporting.escape`` once, here. Start reading
at ``screen``.
"""

import dataclasses
import math
import textwrap
from typing import Any

from dpo_diag import __version__, registry
from dpo_diag.pipeline.doctor import Diagnosis
from dpo_diag.reporting import escape
from dpo_diag.reporting.blocks import Block, Bullets, Commands, Heading, Paragraph, Span, Table
from dpo_diag.reporting.markdown import to_markdown
from dpo_diag.symptoms._base import SEVERITIES, Finding

_PARTS = (("evidence", "evidence"), ("meaning", "it means"), ("fix", "fix"))


def screen(diagnosis: Diagnosis, width: int = 100) -> str:
    """The diagnosis as plain text, ranked, each finding with evidence, meaning and fix."""
    blocks = [escape.line(_heading(diagnosis)), *map(escape.line, _read_lines(diagnosis))]
    text = ["\n".join(textwrap.fill(b, width, subsequent_indent="  ") for b in blocks)]
    for k, finding in enumerate(diagnosis.findings, 1):
        text.append(_finding_text(k, finding, width))
    text.append("\n".join(textwrap.fill(escape.line(t), width) for t in _closing(diagnosis)))
    return "\n\n".join(text)


def markdown(diagnosis: Diagnosis, command: str) -> str:
    """The diagnosis as a Markdown report, with what was read and what could not be."""
    blocks: list[Block] = [
        Heading(1, _heading(diagnosis)),
        *(Paragraph((Span(text),)) for text in _closing(diagnosis)),
    ]
    for k, finding in enumerate(diagnosis.findings, 1):
        blocks += _finding_blocks(k, finding)
    blocks += _record_blocks(diagnosis)
    blocks += [Heading(2, "Again"), Commands((command,))]
    return to_markdown(blocks) + "\n"


def as_values(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as dicts, lists, texts and numbers; not-a-number and infinities as texts."""
    record = diagnosis.record
    facts = {
        name: {"value": _json_safe(fact.value), "source": fact.source}
        for name, fact in record.settings.items()
    }
    return {
        "dpo_diag": __version__,
        "run": str(record.folder),
        "format": record.format,
        "worst": diagnosis.worst() or None,
        "findings": [dataclasses.asdict(finding) for finding in diagnosis.findings],
        "passed": list(diagnosis.passed),
        "not_examined": [{"symptom": n, "lacking": why} for n, why in diagnosis.not_examined],
        "settings": facts,
        "log": {"source": record.log_source, "rows": len(record.log)},
        "checkpoints": list(record.checkpoints),
        "read": list(record.read),
        "not_read": list(record.not_read),
        "problems": [problem._asdict() for problem in record.problems],
    }


def _heading(diagnosis: Diagnosis) -> str:
    record = diagnosis.record
    counts = [
        f"{n} {severity}{'s' if n > 1 else ''}"
        for severity in SEVERITIES
        if (n := sum(f.severity == severity for f in diagnosis.findings))
    ]
    name = record.folder.resolve().name
    return f"{name}: {', '.join(counts) or 'nothing found'}"


def _read_lines(diagnosis: Diagnosis) -> list[str]:
    record = diagnosis.record
    title = registry.load("run_formats", record.format).title
    steps = f"steps {_span(record)}, " if record.log else ""
    log = f"{len(record.log)} log rows ({steps}{record.log_source})" if record.log else "no log"
    saved = ", ".join(map(str, record.checkpoints[-8:])) or "none"
    more = "... " if len(record.checkpoints) > 8 else ""
    final = "a final model" if record.has_final else "no final model"
    return [
        f"read as a run of {title}: {log}; checkpoints {more}{saved}, {final}; "
        f"{len(record.read)} files read, {len(record.settings)} settings known",
        *(f"not read: {text}" for text in record.not_read[:3]),
    ]


def _span(record: Any) -> str:
    steps = [row.step for row in record.log]
    return f"{min(steps)} to {max(steps)}"


def _closing(diagnosis: Diagnosis) -> list[str]:
    lines = [f"Looked for and not found: {len(diagnosis.passed)} symptoms."]
    if diagnosis.not_examined:
        parts = [f"{name} ({why})" for name, why in diagnosis.not_examined]
        lines.append(f"Could not be looked for: {'; '.join(parts)}.")
    return lines


def _finding_text(k: int, finding: Finding, width: int) -> str:
    head = f"{k}. [{finding.severity}, {finding.certainty}] {escape.line(finding.title)}"
    lines = [textwrap.fill(head, width, subsequent_indent="   ")]
    for name, label in _PARTS:
        said = f"{label}: {escape.line(getattr(finding, name))}"
        lines.append(textwrap.fill(said, width, initial_indent="   ", subsequent_indent="      "))
    where = f" in {', '.join(finding.files)}" if finding.files else ""
    last = escape.line(f"{finding.symptom}{where}; rule from {finding.source}")
    lines.append(textwrap.fill(last, width, initial_indent="   ", subsequent_indent="      "))
    return "\n".join(lines)


def _finding_blocks(k: int, finding: Finding) -> list[Block]:
    rows = [(name, getattr(finding, name)) for name in ("evidence", "meaning", "fix")]
    rows += [("files", ", ".join(finding.files) or "none"), ("rule", finding.symptom)]
    rows += [("from", finding.source)]
    parts = tuple(Paragraph((Span(f"{label}: ", "strong"), Span(text))) for label, text in rows)
    return [Heading(2, f"{k}. {finding.severity}, {finding.certainty}: {finding.title}"), *parts]


def _record_blocks(diagnosis: Diagnosis) -> list[Block]:
    record = diagnosis.record
    rows = tuple(
        tuple(((Span(text),),) for text in (name, str(fact.value), fact.source))
        for name, fact in record.settings.items()
    )
    head = tuple(((Span(text),),) for text in ("setting", "value", "file"))
    blocks: list[Block] = [Heading(2, "What was read"), Bullets(tuple(_read_lines(diagnosis)))]
    if rows:
        blocks.append(Table(head, rows))
    unread = [*record.not_read, *(f"{p.file}: {p.sentence}" for p in record.problems)]
    blocks += [Heading(2, "What could not be read"), Bullets(tuple(unread or ["nothing"]))]
    passed = tuple(
        f"{name}: {registry.load('symptoms', name).question}" for name in diagnosis.passed
    )
    return [*blocks, Heading(2, "Looked for and not found"), Bullets(passed or ("nothing",))]


def _json_safe(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, int | float | str | bool | None) else str(value)
