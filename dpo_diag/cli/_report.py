"""From evidence to the screen and the report folder; shared by the analysing commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpo_diag.cli._session import say

if TYPE_CHECKING:
    from dpo_diag.pipeline.analyze import Analysis, Evidence
    from dpo_diag.reporting.document import ReportInput


def command_line() -> str:
    """The command as it was typed, for the report's last section."""
    import shlex

    return shlex.join(["dpo-diag", *sys.argv[1:]])


def finish(
    options: dict[str, Any],
    title: str,
    evidence: Evidence,
    analysis: Analysis,
    headline: Sequence[Any] = (),
    claims: Sequence[Any] = (),
) -> None:
    """Print the findings, write the report where ``--out`` says, apply ``--fail-if``.

    Exits with status 3 when the gate fails.
    """
    from dpo_diag.pipeline.analyze import report_input, write_rows
    from dpo_diag.reporting.views import screen

    report = report_input(
        title,
        evidence,
        analysis,
        headline=headline,
        claims=claims,
        commands=(command_line(),),
        settings={"seed": str(options.get("seed", 0))},
    )
    conclude(options, report, screen(report), lambda folder: write_rows(folder, evidence))


def conclude(
    options: dict[str, Any], report: ReportInput, shown: str, write: Callable[[Path], Any]
) -> None:
    """Print a report as text or its findings as JSON, write its folder, apply ``--fail-if``.

    Exits with status 3 when the gate fails.

    Args:
        options: of the command.
        report: what was found.
        shown: the report for the screen, escaped.
        write: writes the rows behind it into a folder.
    """
    from dpo_diag.pipeline.gate import failures, parse_rule
    from dpo_diag.reporting.export import findings_json
    from dpo_diag.reporting.saved import write_report

    rules = [parse_rule(text) for text in options.get("fail_if", ())]
    click.echo(findings_json(report.findings) if options.get("as_json") else shown)
    if options.get("out"):
        path = write_report(options["out"], report)
        write(options["out"] / "rows")
        say(f"Wrote {path}")
    failed = failures(report.findings, rules)
    for line in failed:
        say(f"gate failed: {line}")
    if failed:
        sys.exit(3)
