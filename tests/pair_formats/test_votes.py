"""Votes of annotators: read from a share or from two counts, checked, one sentence per error."""

import json
from pathlib import Path

import pandas as pd
import pytest

from dpo_diag.errors import DataError
from dpo_diag.pair_formats._votes import with_votes
from dpo_diag.pairs import read_pairs, read_prompts
from dpo_diag.tables import PREFERENCE_PAIRS, read_table, write_table


@pytest.mark.parametrize(
    ("given", "share", "n"),
    [({"vote_share": 0.8, "n_votes": 5}, 0.8, 5),
     ({"votes_chosen": 3, "votes_rejected": 1}, 0.75, 4),
     ({"vote_share": "0.5"}, 0.5, None), ({"votes_chosen": 0, "votes_rejected": 0}, None, None),
     ({"vote_share": None, "n_votes": 3}, None, None),
     ({"vote_share": 0.667, "n_votes": 3}, 0.667, 3),
     ({"votes_chosen": "2", "votes_rejected": 0.0, "n_votes": 2}, 1.0, 2)],
)  # fmt: skip
def test_votes_are_read(given, share, n) -> None:
    found = with_votes(given)
    assert (found["vote_share"], found["n_votes"]) == (share, n)


def test_rows_without_votes_stay_as_they_are() -> None:
    assert with_votes({"topic": "x"}) == {"topic": "x"}


@pytest.mark.parametrize(
    ("given", "message"),
    [({"vote_share": 1.2}, "vote_share must be a share from 0 to 1, got 1.2"),
     ({"vote_share": "most"}, "vote_share must be a share from 0 to 1, got 'most'"),
     ({"vote_share": True}, "vote_share must be a share"),
     ({"votes_chosen": -1, "votes_rejected": 2}, "votes_chosen must be a whole number"),
     ({"votes_chosen": 1.5, "votes_rejected": 2}, "votes_chosen must be a whole number"),
     ({"votes_chosen": 2}, "must both be there or both be missing"),
     ({"votes_chosen": 2, "votes_rejected": 0, "vote_share": 0.5}, "vote_share is 0.5, but"),
     ({"votes_chosen": 2, "votes_rejected": 0, "n_votes": 3}, "n_votes is 3, but"),
     ({"vote_share": 0.3, "n_votes": 2}, "0.3 of 2 votes is no whole number of votes"),
     ({"vote_share": 0.5, "n_votes": 0}, "0.5 of 0 votes")],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_sentence(given, message) -> None:
    with pytest.raises(DataError, match=message):
        with_votes(given)


def rows(*votes: dict) -> list[dict]:
    return [
        {"prompt": f"p{i}", "chosen": "yes", "rejected": "no", **vote}
        for i, vote in enumerate(votes)
    ]


def write(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_file_in_trls_format_brings_its_votes_and_keeps_them_on_disk(tmp_path: Path) -> None:
    file = write(
        tmp_path / "pairs.jsonl",
        rows({"votes_chosen": 4, "votes_rejected": 1}, {"votes_chosen": None,
             "votes_rejected": None}, {"votes_chosen": 1, "votes_rejected": 2}),
    )  # fmt: skip
    frame = read_pairs(file).frame
    assert frame["vote_share"].tolist()[0::2] == pytest.approx([0.8, 1 / 3])
    assert pd.isna(frame["vote_share"][1]) and pd.isna(frame["n_votes"][1])
    for name in ("pairs.parquet", "pairs.csv"):
        back = read_table(write_table(frame, tmp_path / name, PREFERENCE_PAIRS), PREFERENCE_PAIRS)
        assert back["n_votes"].tolist()[0::2] == [5, 3]


def test_an_error_names_file_and_row(tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.jsonl", rows({"vote_share": 0.5}, {"vote_share": 3}))
    with pytest.raises(DataError, match=r"pairs.jsonl.* 2: column vote_share must be a share"):
        read_pairs(file)


def test_a_misspelt_column_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.jsonl", rows({"vote_shares": 0.5}))
    with pytest.raises(DataError, match=r"found the column 'vote_shares' where .*'vote_share'"):
        read_pairs(file)


def test_votes_are_of_pairs_not_of_prompts(tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.jsonl", rows({"vote_share": 0.5}))
    assert "vote_share" not in read_prompts(file).frame
