"""Every pair as it stands: what the usual reading drops or refuses is there, with its place."""

import json
from pathlib import Path

import pytest

from dpo_diag.errors import DataError
from dpo_diag.pairs import read_every_pair, read_pairs


def written(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row(prompt: str | None, chosen: str | None, rejected: str, **more) -> dict:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def test_copies_empty_and_identical_answers_are_kept_in_order(tmp_path) -> None:
    rows = [row("p", "a", "b"), row("p", "a", "b"), row("p", "", "b"), row("p", "c", "c")]
    found = read_every_pair(written(tmp_path / "x.jsonl", rows))
    assert found.frame["chosen"].tolist() == ["a", "a", "", "c"]
    assert found.frame["row"].tolist() == [0, 1, 2, 3]
    assert found.frame["place"].tolist() == [f"x.jsonl, line {k}" for k in (1, 2, 3, 4)]
    assert found.unread == ()


def test_a_row_without_a_text_makes_no_pair_and_is_named(tmp_path) -> None:
    path = written(tmp_path / "x.jsonl", [row("p", "a", "b"), row("p", None, "b")])
    found = read_every_pair(path)
    assert len(found.frame) == 1
    assert len(found.unread) == 1 and "line 2" in found.unread[0] and "chosen" in found.unread[0]


def test_half_of_a_character_makes_no_pair(tmp_path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(
        '{"prompt": "p", "chosen": "a\\ud800", "rejected": "b"}\n'
        '{"prompt": "p", "chosen": "a", "rejected": "b"}\n'
    )
    found = read_every_pair(path)
    assert len(found.frame) == 1 and "surrogate" in found.unread[0]


def test_sound_pairs_are_those_of_the_usual_reading(tmp_path) -> None:
    rows = [
        row(f"p{k}", f"a{k}", f"b{k}", split="test", annotator="x", domain="d") for k in range(5)
    ]
    path = written(tmp_path / "x.jsonl", rows)
    every, usual = read_every_pair(path).frame, read_pairs(path).frame
    assert every[list(usual.columns)].equals(usual)


def test_limit_and_split(tmp_path) -> None:
    rows = [row(f"p{k}", "a", "b", split="test" if k % 2 else "train") for k in range(6)]
    path = written(tmp_path / "x.jsonl", rows)
    assert len(read_every_pair(path, limit=2).frame) == 2
    assert read_every_pair(path, split="test").frame["prompt"].tolist() == ["p1", "p3", "p5"]


def test_nothing_but_broken_rows_is_refused(tmp_path) -> None:
    path = written(tmp_path / "x.jsonl", [row("p", None, "b")])
    with pytest.raises(DataError, match="no pair is left"):
        read_every_pair(path)
