"""The sandbox on disk: own tables unchanged, the further inputs readable by every reader."""

import json
from pathlib import Path

import pandas as pd
import pytest

from dpo_diag.errors import DataError
from dpo_diag.pairs import read_pairs, read_prompts
from dpo_diag.pipeline.sandbox import FILES, jsonl, make_sandbox
from dpo_diag.sandbox.world import make_world

DATA = Path(__file__).parents[2] / "data" / "sandbox"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables; a base model that is there already is kept, so none is trained."""
    folder = tmp_path_factory.mktemp("sandbox")
    (folder / "base").mkdir()
    (folder / "base" / "model.safetensors").write_bytes(b"finished")
    make_sandbox(folder)
    return folder


def read(path: Path) -> pd.DataFrame:
    return pd.DataFrame(map(json.loads, path.read_text(encoding="utf-8").splitlines()))


def test_the_worlds_own_tables_are_what_they_are_without_the_panel(made: Path) -> None:
    for name, frame in zip(FILES, make_world(0), strict=True):
        assert (made / name).read_text(encoding="utf-8") == jsonl(frame)


def test_a_finished_base_model_is_kept(made: Path) -> None:
    assert (made / "base" / "model.safetensors").read_bytes() == b"finished"


def test_panel_is_read_as_pairs_with_its_columns(made: Path) -> None:
    found = read_pairs(str(made / "panel.jsonl")).frame
    plain = read_pairs(str(made / "pairs.jsonl")).frame
    assert list(found["pair_id"]) == list(plain["pair_id"])
    assert found["judge_agreement"].between(0, 1).all()
    assert found[["score_chosen", "score_rejected"]].notna().all(axis=None)
    harms = [c for c in found.columns if c.startswith("harm_")]
    assert len(harms) == 4 and found[harms].ge(0).all(axis=None)


def test_few_labels_are_read_as_pairs(made: Path) -> None:
    found = read_pairs(str(made / "labelled_few.jsonl"), split="train").frame
    assert len(found) == 259


@pytest.mark.parametrize("name", ["reference_answers.jsonl", "pair_reference_answers.jsonl"])
def test_reference_answers_are_read_as_training_prompts(made: Path, name: str) -> None:
    found = read_prompts(str(made / name), split="train").frame
    assert len(found) == len(read(made / name))
    assert (found["reference_answer"].str.len() > 0).all()


def test_reference_answers_of_the_pairs_are_of_the_training_pairs_prompts(made: Path) -> None:
    pairs = read(made / "pairs.jsonl")
    found = read(made / "pair_reference_answers.jsonl")
    assert set(found["prompt_id"]) == set(pairs.loc[pairs["split"] == "train", "prompt_id"])


def test_unlabelled_answers_are_of_prompts_that_no_table_has(made: Path) -> None:
    found = read(made / "unlabelled.jsonl")
    used = {text for name in FILES for text in read(made / name)["prompt"]}
    assert len(found) == 4000 and not used & set(found["prompt"])


def test_tables_have_the_content_that_the_manifest_records(made: Path) -> None:
    manifest = json.loads((DATA / "manifest.json").read_text(encoding="utf-8"))
    for name, entry in manifest["generated"].items():
        assert len(read(made / name)) == entry["n_rows"]


def test_negative_steps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--steps must be 0 or more, got -1"):
        make_sandbox(tmp_path, steps=-1)
