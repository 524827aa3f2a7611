"""Answers that are no pairs, from files."""

import json
from pathlib import Path

import pytest

from dpo_diag.answers import read_answers
from dpo_diag.errors import DataError

ROW = {"prompt": "how ?", "response": "so .", "reward": 1}


def written(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_rows_come_in_order_with_their_further_columns(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", ROW, {**ROW, "response": "thus .", "reward": 0.5})
    frame = read_answers(file, stem="unlabelled", numbers=["reward"])
    assert frame["response"].tolist() == ["so .", "thus ."]
    assert frame["reward"].tolist() == [1.0, 0.5]
    assert frame["reward"].dtype == "float64"


def test_in_a_folder_the_file_of_the_name_is_read(tmp_path: Path) -> None:
    written(tmp_path / "pairs.jsonl", {"prompt": "x", "chosen": "y", "rejected": "z"})
    written(tmp_path / "unlabelled.jsonl", ROW)
    assert len(read_answers(tmp_path, stem="unlabelled")) == 1


def test_a_csv_number_is_a_number_and_a_text_stays_text(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("prompt,response,reward\n1,2,0.25\n", encoding="utf-8")
    frame = read_answers(file, stem="samples", numbers=["reward"])
    assert frame.iloc[0].tolist() == ["1", "2", 0.25]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "x", "chosen": "y"}, r"a\.jsonl: line 2: has no response; expected"),
        ({**ROW, "response": "  "}, r"line 2: response must be text that is not empty, got '  '"),
        ({**ROW, "prompt": 3}, r"line 2: prompt must be text"),
        ({**ROW, "reward": None}, r"line 2: reward must be a finite number, got None"),
        ({**ROW, "reward": float("inf")}, r"line 2: reward must be a finite number, got inf"),
        ({**ROW, "reward": True}, r"line 2: reward must be a finite number, got True"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: dict, message: str) -> None:
    file = written(tmp_path / "a.jsonl", ROW, row)
    with pytest.raises(DataError, match=message):
        read_answers(file, stem="samples", numbers=["reward"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        read_answers(tmp_path / "none.jsonl", stem="samples")
