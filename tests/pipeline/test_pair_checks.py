"""Checks in their order, as findings and a report; cleaning that accounts for every row."""

import json
from pathlib import Path

import pytest

from dpo_diag import registry
from dpo_diag.errors import DataError
from dpo_diag.pair_checks._base import CONCERNS
from dpo_diag.pairs import read_every_pair, read_pairs
from dpo_diag.pipeline.pair_checks import check_pairs, flagged_rows, joined, report_of
from dpo_diag.pipeline.pair_cleaning import cleaned, droppable, write_cleaned
from dpo_diag.reporting.saved import render_saved, write_report
from dpo_diag.tables import CASES, FINDINGS, PAIR_ROWS, validate


def written(path: Path, rows: list[tuple]) -> Path:
    keys = ("prompt", "chosen", "rejected", "split")
    lines = [json.dumps(dict(zip(keys, row, strict=True))) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def planted(folder: Path) -> Path:
    """20 sound pairs; 3 copies, 1 contradiction (2 rows), 1 empty answer, 2 leaked prompts."""
    rows = [(f"prompt {k}", f"good {k}", f"bad {k}", "train") for k in range(20)]
    rows += rows[:3]
    rows += [("prompt 5", "bad 5", "good 5", "train"), ("prompt 30", "", "bad", "train")]
    rows += [(f"prompt {k}", f"other {k}", "worse", "test") for k in (7, 8)]
    rows += [("quite another thing", "x", "y", "test")]
    return written(folder / "planted.jsonl", rows)


@pytest.fixture
def checked(tmp_path):
    return check_pairs(read_every_pair(planted(tmp_path)))


def test_every_check_is_made_and_the_most_pressing_comes_first(checked) -> None:
    assert set(checked.found) == set(registry.names("pair_checks"))
    ranks = [CONCERNS.index(found.concern) for found in checked.found.values()]
    assert ranks == sorted(ranks)
    assert {"duplicates", "contradictions", "leakage", "artefacts"} <= {
        name for name, found in checked.found.items() if found.concern == "repair"
    }


def test_report_holds_valid_tables_and_is_rendered_again_alike(checked, tmp_path) -> None:
    report = report_of(checked, commands=("dpo-diag pairs planted.jsonl",))
    validate(report.findings, FINDINGS)
    validate(report.cases, CASES)
    text = write_report(tmp_path / "out", report).read_text(encoding="utf-8")
    assert render_saved(tmp_path / "out") == text
    for name, found in checked.found.items():
        assert name.replace("_", "\\_") in text
        assert found.measures or f"not checked: {name.replace('_', chr(92) + '_')}" in text


def test_cleaning_drops_what_was_planted_and_says_why(checked, tmp_path) -> None:
    """28 rows: 1 empty, 3 copies, both rows of the contradiction."""
    found = cleaned(checked)
    assert found.n_rows == 28 and len(found.frame) == 22
    assert sum(found.dropped.values()) == 6
    assert found.dropped["duplicates"] == 3 and found.dropped["contradictions"] == 2
    for words in ("3 duplicates", "2 contradictions", "1 with an empty text", "22 of 28"):
        assert words in found.sentence()
    again = read_pairs(write_cleaned(found, tmp_path / "clean.jsonl"))
    assert len(again.frame) == 22
    assert not again.counts.get("n_duplicates") and not again.counts.get("n_contradictions")


def test_leaked_prompts_leave_train_when_asked_for(checked, tmp_path) -> None:
    found = cleaned(checked, ["leakage"])
    assert found.dropped["leakage"] == 2
    path = write_cleaned(found, tmp_path / "clean.jsonl")
    again = check_pairs(read_every_pair(path))
    assert again.found["leakage"].concern == "clean"


def test_flagged_rows_name_place_and_reason(checked) -> None:
    flagged = flagged_rows(checked)
    copies = flagged[flagged["reason"] == "duplicates"]
    assert copies["place"].tolist() == [f"planted.jsonl, line {k}" for k in (21, 22, 23)]
    assert set(flagged["reason"]) <= set(droppable())


def test_separate_test_pairs_are_joined_and_never_written(tmp_path) -> None:
    train = [(f"prompt {k}", "a", "b", "train") for k in range(6)]
    test = [("prompt 2", "c", "d", "train"), ("something else", "c", "d", "train")]
    first = read_every_pair(written(tmp_path / "train.jsonl", train))
    second = read_every_pair(written(tmp_path / "test.jsonl", test))
    whole = joined(first, second)
    validate(whole.frame, PAIR_ROWS)
    assert whole.frame["split"].tolist() == ["train"] * 6 + ["test"] * 2
    found = check_pairs(first, second)
    assert found.found["leakage"].measures[1].interval.estimate == 0.5
    kept = cleaned(found, ["leakage"])
    assert len(kept.frame) == 5 and kept.n_rows == 6


def test_a_set_without_a_sound_pair_is_not_written(tmp_path) -> None:
    path = written(tmp_path / "x.jsonl", [("p", "a", "a", "train"), ("q", "", "b", "train")])
    with pytest.raises(DataError, match="no pair would be left: 2 with an empty text"):
        cleaned(check_pairs(read_every_pair(path)))


def test_unknown_name_to_drop_lists_what_there_is(checked) -> None:
    with pytest.raises(DataError, match=r"--drop typos: .*artefacts.*leakage"):
        cleaned(checked, ["typos"])


def test_beta_must_be_positive(tmp_path) -> None:
    with pytest.raises(DataError, match="beta"):
        check_pairs(read_every_pair(planted(tmp_path)), beta=0.0)
