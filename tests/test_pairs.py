"""Reading pairs and prompts: ids, what is dropped, what is counted, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from dpo_diag.errors import DataError, UnknownName
from dpo_diag.pairs import read_pairs, read_prompts
from dpo_diag.tables import PREFERENCE_PAIRS, PROMPTS, content_id, validate

AB = {"prompt": "q", "chosen": "a", "rejected": "b"}
BA = {"prompt": "q", "chosen": "b", "rejected": "a"}
ASK = {"role": "user", "content": "q"}
HELPSTEER = {"prompt": "q", "response_1": "a", "response_2": "b", "preference_strength": 0}


def write(folder: Path, *rows: dict[str, Any], name: str = "pairs.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_ids_are_those_of_the_content(tmp_path: Path) -> None:
    made = read_pairs(write(tmp_path, AB)).frame.iloc[0]
    assert made["pair_id"] == content_id("q", "a", "b")
    assert made["prompt_id"] == content_id("q")


def test_conversation_s_id_is_that_of_its_turns_as_json(tmp_path: Path) -> None:
    row = {
        "prompt": [ASK],
        "chosen": [{"role": "assistant", "content": "a"}],
        "rejected": [{"role": "assistant", "content": "b"}],
    }
    made = read_pairs(write(tmp_path, row)).frame.iloc[0]
    assert made["prompt_messages"] == '[{"content":"q","role":"user"}]'
    assert made["pair_id"] == content_id(made["prompt_messages"], "a", "b")
    assert made["prompt_id"] != content_id("q")


def test_frame_meets_the_specification_without_empty_columns(tmp_path: Path) -> None:
    frame = validate(read_pairs(write(tmp_path, AB)).frame, PREFERENCE_PAIRS)
    assert "prompt_messages" not in frame
    assert frame.iloc[0][["domain", "split", "source"]].tolist() == [
        "in_domain",
        "train",
        "pairs.jsonl",
    ]


def test_duplicates_are_dropped_and_counted(tmp_path: Path) -> None:
    pairs = read_pairs(write(tmp_path, {**AB, "annotator": "x"}, {**AB, "annotator": "y"}, AB))
    assert (len(pairs.frame), pairs.counts["n_duplicates"], pairs.counts["n_rows"]) == (1, 2, 3)
    assert list(pairs.frame["annotator"]) == ["x"]
    assert any(note.startswith("2 duplicate pairs dropped") for note in pairs.notes)


def test_contradictory_labels_are_kept_and_counted_once(tmp_path: Path) -> None:
    pairs = read_pairs(write(tmp_path, AB, BA, AB))
    assert (len(pairs.frame), pairs.counts["n_contradictions"]) == (2, 1)
    assert any(note.startswith("1 contradictory pairs kept") for note in pairs.notes)


def test_prompts_shared_between_splits_are_counted(tmp_path: Path) -> None:
    """The shared pair is a duplicate too: the first split keeps it, and the share still counts."""
    rows = [{**AB, "split": "train"}, {**AB, "split": "test"}, {**AB, "prompt": "p"}]
    pairs = read_pairs(write(tmp_path, *rows))
    assert pairs.counts["n_shared_prompts"] == 1
    assert list(pairs.frame["split"]) == ["train", "train"]
    assert any("1 prompts are in more than one split" in note for note in pairs.notes)


def test_clean_set_has_nothing_to_say_but_its_size(tmp_path: Path) -> None:
    pairs = read_pairs(write(tmp_path, AB))
    assert len(pairs.notes) == 1
    assert "1 pairs on 1 prompts" in pairs.notes[0]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"rejected": "a"}, "chosen and rejected are identical"),
        ({"chosen": "  "}, "the chosen answer is empty"),
        ({"rejected": ""}, "the rejected answer is empty"),
        ({"rejected": None}, "column rejected is missing"),
        ({"prompt": ""}, "the prompt is empty"),
    ],
)
def test_row_that_is_no_pair_is_refused_or_left_out_and_counted(
    change: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    path = write(tmp_path, AB, {**BA, **change})
    if change.get("rejected") == "a":
        path = write(tmp_path, AB, {**AB, "rejected": "a"})
    with pytest.raises(DataError, match=rf"pairs\.jsonl, line 2: {problem}.*--drop-invalid"):
        read_pairs(path)
    pairs = read_pairs(path, drop_invalid=True)
    assert (len(pairs.frame), pairs.counts["n_invalid"]) == (1, 1)


def test_label_out_of_range_is_refused_even_when_invalid_rows_are_dropped(tmp_path: Path) -> None:
    row = {"prompt": "q", "response_0": "a", "response_1": "b", "better_response_id": 2}
    with pytest.raises(DataError, match=r"line 1: column better_response_id must be one of 0, 1"):
        read_pairs(write(tmp_path, row), drop_invalid=True)


def test_comparison_without_winner_is_left_out_and_counted(tmp_path: Path) -> None:
    pairs = read_pairs(write(tmp_path, HELPSTEER, {**HELPSTEER, "preference_strength": -1}))
    assert (len(pairs.frame), pairs.counts["n_undecided"]) == (1, 1)
    assert any("without a winner" in note for note in pairs.notes)


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no pair is left of 1 rows \(1 undecided\)"):
        read_pairs(write(tmp_path, HELPSTEER))


def test_safer_label_chooses_the_safer_answer_and_is_said(tmp_path: Path) -> None:
    row = {
        "prompt": "q",
        "response_0": "a",
        "response_1": "b",
        "better_response_id": 0,
        "safer_response_id": 1,
        "is_response_0_safe": False,
        "is_response_1_safe": True,
    }
    pairs = read_pairs(write(tmp_path, row), label="safer")
    assert pairs.frame.iloc[0]["chosen"] == "b"
    assert pairs.frame["is_chosen_safe"].dtype == bool
    assert any("chosen is the safer answer" in note for note in pairs.notes)


def test_label_that_a_format_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"trl has no label 'safer', only better"):
        read_pairs(write(tmp_path, AB), label="safer")


def test_forced_format_is_said_and_an_unknown_one_names_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, AB)
    assert "format trl (as asked for)" in read_pairs(path, format="trl").notes[0]
    with pytest.raises(UnknownName, match="Did you mean 'trl'"):
        read_pairs(path, format="trll")


def test_columns_of_no_format_are_listed_with_what_the_nearest_expects(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "q", "chosen": "a", "reject": "b"})
    with pytest.raises(
        DataError, match=r"pairs\.jsonl: found .*reject; .*trl, expects 'rejected'; rename 'reject'"
    ):
        read_pairs(path)
    with pytest.raises(DataError, match=r"no known format of pairs.*rename the columns to prompt"):
        read_pairs(write(tmp_path, {"text": "t"}))


def test_column_that_lacks_in_a_later_row_is_named_with_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, AB, {"prompt": "q", "chosen": "a", "reject": "b"})
    with pytest.raises(DataError, match=r"line 2: found the column 'reject'.*'rejected'"):
        read_pairs(path)


def test_misspelt_optional_column_is_not_silently_ignored(tmp_path: Path) -> None:
    row = {
        "prompt": "q",
        "response_0": "a",
        "response_1": "b",
        "better_response_id": 0,
        "is_response0_safe": True,
    }
    with pytest.raises(DataError, match=r"'is_response0_safe'.*'is_response_0_safe'"):
        read_pairs(write(tmp_path, row))


def test_ids_of_others_are_kept_beside_ours_and_said(tmp_path: Path) -> None:
    pairs = read_pairs(write(tmp_path, {**AB, "prompt_id": "mine", "source": "me"}))
    row = pairs.frame.iloc[0]
    assert (row["original_prompt_id"], row["original_source"]) == ("mine", "me")
    assert any("ids were not those of the content" in note for note in pairs.notes)


def test_domain_is_the_row_s_own_unless_given(tmp_path: Path) -> None:
    path = write(tmp_path, {**AB, "domain": "shift"}, BA)
    assert list(read_pairs(path).frame["domain"]) == ["shift", "in_domain"]
    assert set(read_pairs(path, domain="x").frame["domain"]) == {"x"}


def test_split_comes_from_the_file_s_name_and_unknown_words_are_kept_aside(tmp_path: Path) -> None:
    frame = read_pairs(write(tmp_path, {**AB, "split": "fold3"}, name="my_test.jsonl")).frame
    assert frame.iloc[0][["split", "original_split"]].tolist() == ["test", "fold3"]


def test_split_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    path = write(tmp_path, {**AB, "split": "train"}, {**BA, "split": "validation"})
    assert list(read_pairs(path, split="validation").frame["chosen"]) == ["b"]
    with pytest.raises(DataError, match=r"split 'test'; the splits are train, validation"):
        read_pairs(path, split="test")


def test_splits_that_repeat_others_are_left_out_and_said(tmp_path: Path) -> None:
    row = {
        "prompt": "q",
        "chosen": "a",
        "rejected": "b",
        "chosen_model": "m",
        "rejected_model": "n",
        "subset": "s",
    }
    import datasets

    made = {name: datasets.Dataset.from_list([row]) for name in ("raw", "filtered")}
    datasets.DatasetDict(made).save_to_disk(tmp_path / "bench")
    pairs = read_pairs(tmp_path / "bench")
    assert (pairs.counts["n_rows"], set(pairs.frame["split"])) == (1, {"test"})
    assert "read the split filtered and left out raw" in pairs.notes
    assert read_pairs(tmp_path / "bench", split="raw").counts["n_rows"] == 1


def test_limit_counts_pairs_not_rows(tmp_path: Path) -> None:
    path = write(tmp_path, AB, AB, BA, {**AB, "prompt": "p"})
    assert list(read_pairs(path, limit=2).frame["chosen"]) == ["a", "b"]


def test_content_hash_is_that_of_the_rows_whatever_their_order(tmp_path: Path) -> None:
    first, second = {**AB, "is_chosen_safe": True}, {**BA, "is_chosen_safe": False}
    one = read_pairs(write(tmp_path, first, second)).content_hash
    assert read_pairs(write(tmp_path, second, first)).content_hash == one
    flipped = read_pairs(write(tmp_path, {**first, "is_chosen_safe": False}, second))
    assert flipped.content_hash != one


def test_further_columns_are_of_one_type_each_and_can_be_written(tmp_path: Path) -> None:
    rows = [
        {**AB, "tags": ["x"], "mixed": 1, "flag": True, "gold_margin": 1},
        {**BA, "tags": None, "mixed": "two", "flag": None, "gold_margin": 0.5},
    ]
    frame = read_pairs(write(tmp_path, *rows)).frame
    frame.to_parquet(tmp_path / "out.parquet")
    assert frame["tags"].iloc[0] == '["x"]'
    assert list(frame["mixed"]) == ["1", "two"]
    assert list(frame["gold_margin"]) == [1.0, 0.5]


def test_safety_flag_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column is_chosen_safe must hold true or false"):
        read_pairs(write(tmp_path, {**AB, "is_chosen_safe": "maybe"}))


def test_prompts_of_pairs_are_unique_and_keep_what_speaks_of_the_prompt(tmp_path: Path) -> None:
    common = {"intent": "benign", "annotator": "x", "gold_margin": 1.0}
    rows = [{**AB, **common, "n": 1}, {**BA, **common, "n": 2}, {**AB, "prompt": "p", "n": 3}]
    prompts = read_prompts(write(tmp_path, *rows))
    frame = validate(prompts.frame, PROMPTS)
    assert list(frame["prompt"]) == ["q", "p"]
    assert {"intent"} == set(frame.columns) - set(PROMPTS.column_names)


def test_prompts_of_pairs_are_read_whatever_their_answers(tmp_path: Path) -> None:
    assert len(read_prompts(write(tmp_path, {**AB, "chosen": "b"}, HELPSTEER | AB)).frame) == 1
    assert len(read_prompts(write(tmp_path, HELPSTEER)).frame) == 1


def test_pair_without_an_answer_column_is_named_when_its_prompt_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 2: lacks the column 'chosen', 'rejected'"):
        read_prompts(write(tmp_path, AB, {"prompt": "p"}))


def test_file_of_prompts_keeps_every_column_and_drops_repeats(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "intent": "a"}, {"prompt": "q", "intent": "b"}, {"prompt": [ASK]}]
    prompts = read_prompts(write(tmp_path, *rows))
    assert prompts.frame["intent"].iloc[0] == "a"
    assert (len(prompts.frame), prompts.counts["n_repeated_prompts"]) == (2, 1)
    assert prompts.frame["prompt_messages"].notna().tolist() == [False, True]


def test_text_file_has_one_prompt_per_line(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one\n\n two \n")
    assert list(read_prompts(tmp_path / "p.txt").frame["prompt"]) == ["one", " two "]


def test_written_prompts_are_read_back_with_the_same_content(tmp_path: Path) -> None:
    first = read_prompts(write(tmp_path, {"prompt": [ASK], "domain": "d"}, name="test.jsonl"))
    first.frame.to_json(tmp_path / "again.jsonl", orient="records", lines=True)
    assert read_prompts(tmp_path / "again.jsonl").content_hash == first.content_hash


def test_prompt_that_is_empty_and_file_without_prompts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1: the prompt is empty"):
        read_prompts(write(tmp_path, {"prompt": " "}))
    with pytest.raises(DataError, match=r"found the columns text, expected 'prompt'"):
        read_prompts(write(tmp_path, {"text": "q"}))


@pytest.mark.parametrize("name", ["prompt", "chosen", "rejected"])
def test_half_of_a_character_is_refused_by_place(tmp_path: Path, name: str) -> None:
    row = {"prompt": "q", "chosen": "yes", "rejected": "no"}
    source = write(tmp_path, row | {name: "a\ud800"}, row)
    with pytest.raises(DataError, match=rf"line 1: the {name}.* lone surrogate\) at position 2"):
        read_pairs(source)
    assert read_pairs(source, drop_invalid=True).counts["n_invalid"] == 1


def test_place_of_an_invalid_row_is_said_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read_pairs(write(tmp_path, {"prompt": "q", "chosen": "a", "rejected": "a"}))
    assert str(error.value).count("line 1") == 1
