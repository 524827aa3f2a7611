"""Every rule of the doctor: a planted case that it names first, a healthy one in which it is still.

The two tables are the contract: a rule without both fails. Planted cases are whole folders in the
layout of each trainer that can show them, read from disk as a user's would be.
"""

from pathlib import Path

import pytest

from dpo_diag import registry
from dpo_diag.pairs import read_pairs
from dpo_diag.pipeline.doctor import Diagnosis, diagnose
from dpo_diag.symptoms._base import CERTAINTIES, SEVERITIES
from tests.run_formats.folders import TRAINERS, Planted
from tests.symptoms.plants import Case
from tests.symptoms.tables import HEALTHY, PLANTED

NAMES = registry.names("symptoms")


def spread(table: dict[str, list[Case]]) -> list:
    """One parameter set per symptom, case and trainer."""
    return [
        pytest.param(name, case, trainer, id=f"{name}-{k}-{trainer}")
        for name, cases in table.items()
        for k, case in enumerate(cases)
        for trainer in case.trainers
    ]


def diagnosed(case: Case, trainer: str, folder: Path) -> Diagnosis:
    run = Planted(trainer)
    case.change(run)
    path = run.write(folder / "run")
    pairs, test = (run.write_pairs(folder, name) for name in ("pairs", "test"))
    return diagnose(path, pairs=pairs and read_pairs(pairs), test=test and read_pairs(test))


def test_every_symptom_has_a_planted_and_a_healthy_case() -> None:
    assert sorted(PLANTED) == NAMES
    assert sorted(HEALTHY) == NAMES
    assert all(any(case.trainers for case in cases) for cases in HEALTHY.values())


@pytest.mark.parametrize(("name", "case", "trainer"), spread(PLANTED))
def test_planted_fault_is_named_first(name: str, case: Case, trainer: str, tmp_path: Path) -> None:
    diagnosis = diagnosed(case, trainer, tmp_path)
    assert diagnosis.record.format == trainer
    assert diagnosis.findings, diagnosis.not_examined
    first = diagnosis.findings[0]
    assert first.symptom == name, [(f.symptom, f.severity, f.evidence) for f in diagnosis.findings]
    assert first.severity == case.severity or not case.severity


@pytest.mark.parametrize(("name", "case", "trainer"), spread(HEALTHY))
def test_healthy_case_is_no_more_than_a_note(
    name: str, case: Case, trainer: str, tmp_path: Path
) -> None:
    diagnosis = diagnosed(case, trainer, tmp_path)
    assert name not in {finding.symptom for finding in diagnosis.findings}
    loud = [(f.symptom, f.evidence) for f in diagnosis.findings if f.severity != "note"]
    assert loud == []


@pytest.mark.parametrize("trainer", TRAINERS)
def test_untouched_run_has_no_finding_at_all(trainer: str, tmp_path: Path) -> None:
    diagnosis = diagnosed(Case(lambda run: None), trainer, tmp_path)
    assert diagnosis.findings == ()
    assert len(diagnosis.passed) + len(diagnosis.not_examined) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_symptom_says_what_it_asks_and_where_it_is_from(name: str) -> None:
    symptom = registry.load("symptoms", name)
    assert symptom.question.endswith("?") and symptom.source
    assert "Source:" in registry.summary("symptoms", name)
    assert set(symptom.explained_by) <= set(NAMES) - {name}


@pytest.mark.parametrize("name", NAMES)
def test_finding_is_whole(name: str, tmp_path: Path) -> None:
    """Every word that a user is told is there, and ends as a sentence does."""
    case = next(case for case in PLANTED[name] if case.trainers)
    found = diagnosed(case, case.trainers[0], tmp_path).findings[0]
    assert found.severity in SEVERITIES and found.certainty in CERTAINTIES
    for text in (found.title, found.evidence, found.meaning, found.fix):
        assert text.endswith((".", "?")) and "nan" not in text.split()
    assert found.source == registry.load("symptoms", name).source
