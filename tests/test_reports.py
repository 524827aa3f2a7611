"""Committed reports are what their own tables render to, character for character."""

from pathlib import Path

import pytest

from dpo_diag.reporting.document import ReportInput
from dpo_diag.reporting.figures import file_name, has_data
from dpo_diag.reporting.plots import draw
from dpo_diag.reporting.saved import read_saved, render_saved

ROOT = Path(__file__).parents[1] / "reports"
REPORTS = sorted(path.parent for path in ROOT.rglob("report.toml"))


def figures_of(report: ReportInput) -> list:
    return [entry for entry in report.figures if has_data(entry, report)]


def test_there_is_a_committed_report() -> None:
    assert "sandbox" in {folder.name for folder in REPORTS}


@pytest.mark.parametrize("folder", REPORTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_report_is_rendered_from_its_tables(folder: Path) -> None:
    assert render_saved(folder) == (folder / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", REPORTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_figures_are_drawn_from_the_tables(folder: Path) -> None:
    report = read_saved(folder)
    shown = figures_of(report)
    assert shown
    for entry in shown:
        assert draw(entry, report) == (folder / file_name(entry)).read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", REPORTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_report_names_no_machine_path(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.suffix in {".md", ".toml", ".csv", ".json", ".svg"}:
            text = path.read_text(encoding="utf-8")
            assert "/work/" not in text and "/tmp/" not in text and "/home/" not in text, path
