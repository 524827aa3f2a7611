"""What every format of pairs must do: run over each file found in its folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from dpo_diag import registry
from dpo_diag.errors import DataError
from dpo_diag.pairs import read_pairs
from dpo_diag.tables import PREFERENCE_PAIRS, validate

USER, BOT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "good"}
OTHER = {"role": "assistant", "content": "bad"}
HH = "\n\nHuman: q\n\nAssistant: "
PKU = {
    "prompt": "q",
    "response_0": "bad",
    "response_1": "good",
    "is_response_0_safe": True,
    "is_response_1_safe": True,
    "better_response_id": 1,
    "safer_response_id": 0,
}
# One row per shape, with the real columns of the set; each is the pair good > bad on the prompt q.
ROWS: dict[str, list[dict[str, Any]]] = {
    "dpo_diag": [
        {
            "pair_id": "0",
            "prompt_id": "1",
            "prompt": "q",
            "chosen": "good",
            "rejected": "bad",
            "domain": "in_domain",
            "split": "train",
            "source": "s",
        }
    ],
    "trl": [
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"chosen": "q good", "rejected": "q bad"},
        {"prompt": [USER], "chosen": [BOT], "rejected": [OTHER]},
        {"chosen": [USER, BOT], "rejected": [USER, OTHER]},
    ],
    "hh": [{"chosen": HH + "good", "rejected": HH + "bad"}],
    "ultrafeedback": [
        {
            "prompt": "q",
            "prompt_id": "5f",
            "chosen": [USER, BOT],
            "rejected": [USER, OTHER],
            "messages": [USER, BOT],
            "score_chosen": 8.0,
            "score_rejected": 5.0,
        },
        {
            "chosen": [USER, BOT],
            "rejected": [USER, OTHER],
            "score_chosen": 8.0,
            "score_rejected": 5.0,
        },
    ],
    "pku": [
        PKU,
        {
            **PKU,
            "prompt_source": "BeaverTails",
            "response_0_source": "alpaca-7b",
            "response_1_source": "alpaca-7b",
            "response_0_harm_category": {"Privacy Violation": False},
            "response_1_harm_category": {"Privacy Violation": False},
            "response_0_severity_level": 0,
            "response_1_severity_level": 0,
            "response_0_sha256": "a",
            "response_1_sha256": "b",
        },
        {"prompt": "q", "response_0": "bad", "response_1": "good", "better_response_id": 1},
    ],
    "helpsteer": [
        {
            "split": "train",
            "prompt": "q",
            "response_1": "bad",
            "response_2": "good",
            "preference_strength": 2,
            "preference_statement": "@Response 2 is better",
            "preference_elaboration": "because",
        }
    ],
    "helpsteer3": [
        {
            "domain": "code",
            "language": "python",
            "context": [{"role": "user", "content": "q"}],
            "response1": "bad",
            "response2": "good",
            "overall_preference": 2,
            "individual_preference": [{"score": 1, "reasoning": "so"}],
        }
    ],
    "rewardbench": [
        {
            "prompt": "q",
            "chosen": "good",
            "chosen_model": "m",
            "rejected": "bad",
            "rejected_model": "n",
            "subset": "alpacaeval-easy",
            "id": 0,
        }
    ],
    "rewardbench2": [
        {
            "id": "0",
            "prompt": "q",
            "chosen": ["good"],
            "rejected": ["bad"],
            "num_correct": 1,
            "num_incorrect": 1,
            "total_completions": 2,
            "models": ["m", "n"],
            "subset": "Math",
            "additional_metadata": None,
        }
    ],
}
CASES = [(name, row) for name, rows in ROWS.items() for row in rows]
names = pytest.mark.parametrize("name", registry.names("pair_formats"))


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@names
def test_every_format_has_an_example_here(name: str) -> None:
    assert ROWS[name]


@pytest.mark.parametrize(("name", "row"), CASES)
def test_format_is_recognised_from_its_columns_and_said(
    name: str, row: dict[str, Any], tmp_path: Path
) -> None:
    pairs = read_pairs(written(tmp_path, [row]))
    assert pairs.format == name
    assert f"format {name} (recognised from its columns" in pairs.notes[0]


@pytest.mark.parametrize(("name", "row"), CASES)
def test_row_becomes_the_pair_it_is(name: str, row: dict[str, Any], tmp_path: Path) -> None:
    pairs = read_pairs(written(tmp_path, [row]), format=name)
    assert len(validate(pairs.frame, PREFERENCE_PAIRS)) == 1
    made = pairs.frame.iloc[0]
    texts = [made["prompt"], made["chosen"].strip(), made["rejected"].strip()]
    assert texts == ["q", "good", "bad"]


@pytest.mark.parametrize(("name", "row"), CASES)
def test_prompt_alone_is_read_from_every_format(
    name: str, row: dict[str, Any], tmp_path: Path
) -> None:
    from dpo_diag.pairs import read_prompts

    path = written(tmp_path, [row])
    prompts, pairs = read_prompts(path).frame, read_pairs(path).frame
    assert list(prompts["prompt_id"]) == list(pairs["prompt_id"])


@pytest.mark.parametrize(("name", "row"), CASES)
def test_each_required_column_that_lacks_is_named_with_the_file(
    name: str, row: dict[str, Any], tmp_path: Path
) -> None:
    for column in registry.load("pair_formats", name).required:
        short = {key: value for key, value in row.items() if key != column}
        with pytest.raises(DataError, match=rf"pairs\.jsonl.*{column}"):
            read_pairs(written(tmp_path, [short]), format=name)


@pytest.mark.parametrize(("name", "row"), CASES)
def test_misspelt_column_is_named_with_the_one_expected(
    name: str, row: dict[str, Any], tmp_path: Path
) -> None:
    for column in registry.load("pair_formats", name).required:
        wrong = {key + "s" if key == column else key: value for key, value in row.items()}
        with pytest.raises(DataError, match=rf"'{column}s'.*'{column}'"):
            read_pairs(written(tmp_path, [wrong]), format=name)


@pytest.mark.parametrize(("name", "row"), CASES)
def test_further_column_survives(name: str, row: dict[str, Any], tmp_path: Path) -> None:
    pairs = read_pairs(written(tmp_path, [{**row, "cost_of_it": 0.25}]))
    assert list(pairs.frame["cost_of_it"]) == [0.25]
