import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertModel

from dpo_diag.errors import DataError
from dpo_diag.similarities.bertscore import Bertscore
from tests.similarities.conftest import tiny_encoder

ANSWER, REFERENCE = "wipe the stove", "check the oven with a cloth"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder")
    tiny_encoder(path)
    return path


def embedded(folder: Path, text: str, layer: int) -> np.ndarray:
    """Unit embeddings of the tokens, first and last are the ends, (tokens, width)."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        ids = torch.tensor([tokenizer.encode(text)])
        hidden = model(ids, output_hidden_states=True).hidden_states[layer][0].double()
    return torch.nn.functional.normalize(hidden, dim=-1).numpy()


@pytest.mark.parametrize("layer", [1, 2])
def test_parts_agree_with_the_definition(folder: Path, layer: int) -> None:
    """Recall: each word of the reference and its nearest token of the answer, ends included.

    Precision is the reverse. The ends can be the nearest, but do not count themselves.
    """
    cosines = embedded(folder, REFERENCE, layer) @ embedded(folder, ANSWER, layer).T
    recall = cosines[1:-1].max(axis=1).mean()
    precision = cosines[:, 1:-1].max(axis=0).mean()
    expected = {
        "recall": recall,
        "precision": precision,
        "f1": 2 * recall * precision / (recall + precision),
    }
    for part, value in expected.items():
        measure = Bertscore(model=str(folder), layer=layer, part=part)
        assert measure.similarity([ANSWER], [REFERENCE])[0] == pytest.approx(value, abs=1e-5)


def test_layer_zero_is_the_last(folder: Path) -> None:
    one, other = (
        Bertscore(model=str(folder), layer=layer).similarity([ANSWER], [REFERENCE])
        for layer in (0, 2)
    )
    assert one[0] == other[0]


def test_recall_loses_nothing_by_saying_more(folder: Path) -> None:
    measure = Bertscore(model=str(folder))
    assert measure.part == "recall"
    same, longer = measure.similarity(
        [REFERENCE, f"{REFERENCE} then check the lamp"], [REFERENCE] * 2
    )
    precise = Bertscore(model=str(folder), part="precision")
    shorter = precise.similarity([f"{REFERENCE} soil soil soil soil"], [REFERENCE])[0]
    assert same == pytest.approx(1.0, abs=1e-5)
    assert longer > shorter


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(DataError, match="pickled weights are never read"):
        Bertscore(model=str(tmp_path))
    with pytest.raises(DataError, match="nothing is downloaded"):
        Bertscore(model="roberta-large")


def test_a_path_that_the_library_takes_for_t5_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "port5"
    folder.mkdir()
    tiny_encoder(folder)
    with pytest.raises(DataError, match="rename the folder"):
        Bertscore(model=str(folder))


def test_layers_and_parts_that_are_not_there_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"layer is 3, and .* has 2 layers"):
        Bertscore(model=str(folder), layer=3).similarity([ANSWER], [REFERENCE])
    with pytest.raises(DataError, match="part is 'mean'"):
        Bertscore(model=str(folder), part="mean")
    with pytest.raises(DataError, match="batch_size 1 or more"):
        Bertscore(model=str(folder), batch_size=0)


def test_a_broken_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(DataError, match="cannot be loaded as an encoder") as caught:
        Bertscore(model=str(tmp_path)).similarity(["a"], ["b"])
    assert "\n" not in str(caught.value)
