"""Distances of prompts: against the model run by hand, from the store, by a sentence encoder."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dpo_diag.checkpoints import resolve_checkpoint
from dpo_diag.engines._base import EngineOptions
from dpo_diag.engines._embedding import embedded
from dpo_diag.errors import DataError, EngineError
from dpo_diag.pairs import read_pairs
from dpo_diag.pipeline import distances
from dpo_diag.pipeline.distances import distance_rows, seen_shares
from dpo_diag.pipeline.work import EngineChoice, Work
from dpo_diag.store import RowStore
from dpo_diag.tables import PROMPT_DISTANCES, validate


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(RowStore(tmp_path / "store"), tmp_path / "merged")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer BERT with the sandbox's words."""
    from transformers import BertConfig, BertModel

    from dpo_diag.sandbox.tiny_model import make_tokenizer

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = make_tokenizer(folder)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=64,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    return folder


def slow_states(folder: Path, text: str) -> np.ndarray:
    """Mean last hidden state over the text's tokens, one text at a time, float64."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder, dtype=torch.float64).eval()
    ids = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    with torch.no_grad():
        return model(torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()


def slow_surprise(folder: Path, text: str) -> float:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    ids = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    with torch.no_grad():
        logps = torch.log_softmax(model(torch.tensor([ids])).logits[0], dim=-1)
    return -float(np.mean([logps[i, token] for i, token in enumerate(ids[1:])]))


def slow_distance(point: np.ndarray, base: np.ndarray) -> float:
    """Mean of the five smallest cosine distances, seen from the base's mean."""
    middle = base.mean(axis=0)
    a = (point - middle) / np.linalg.norm(point - middle)
    gaps = sorted(1.0 - a @ (b - middle) / np.linalg.norm(b - middle) for b in base)
    return float(np.mean(gaps[:5]))


def gather(world, work: Work, **options: str):
    test, training = (read_pairs(world.pairs, split=split) for split in ("test", "train"))
    checkpoint = resolve_checkpoint(world.dpo)
    found = distance_rows([checkpoint], test, training, EngineChoice(), work, **options)
    return found, test.frame, training.frame, checkpoint


def test_distances_are_those_of_the_model_run_by_hand(world, work: Work) -> None:
    found, test, training, checkpoint = gather(world, work)
    validate(found.table, PROMPT_DISTANCES)
    assert set(found.table["prompt_id"]) == set(test["prompt_id"])
    assert set(found.table["reference_id"]) == {checkpoint.reference.model_id}
    texts = dict(zip(test["prompt_id"], test["prompt"], strict=True))
    near = training.drop_duplicates("prompt_id")
    base = np.array([slow_states(world.base, text) for text in near["prompt"]])
    for row in found.table.iloc[::5].itertuples():
        point = slow_states(world.base, texts[row.prompt_id])
        assert row.distance == pytest.approx(slow_distance(point, base), abs=1e-5)
        surprise = slow_surprise(world.base, texts[row.prompt_id])
        assert row.prompt_surprise == pytest.approx(surprise, abs=1e-5)
        assert row.nearest_prompt_id in set(near["prompt_id"])


def test_a_second_call_is_answered_from_the_store(world, work: Work, engine_starts) -> None:
    first, *_ = gather(world, work)
    assert engine_starts == ["hf"]
    again, *_ = gather(world, work)
    assert engine_starts == ["hf"]
    np.testing.assert_array_equal(first.table["distance"], again.table["distance"])


def test_other_training_prompts_are_other_distances(world, work: Work) -> None:
    test, other = (read_pairs(world.pairs, split=split) for split in ("test", "validation"))
    first, *_ = gather(world, work)
    checkpoint = resolve_checkpoint(world.dpo)
    second = distance_rows([checkpoint], test, other, EngineChoice(), work)
    assert not np.allclose(first.table["distance"], second.table["distance"])


def test_a_training_prompt_is_not_its_own_neighbour(world, work: Work) -> None:
    training = read_pairs(world.pairs, split="train")
    found = distance_rows(
        [resolve_checkpoint(world.dpo)], training, training, EngineChoice(), work
    ).table
    assert (found["distance"] > 1e-4).all()
    assert (found["nearest_prompt_id"] != found["prompt_id"]).all()
    assert (found["seen_share"] == 1.0).all()


def test_one_reference_of_two_checkpoints_is_asked_once(world, work: Work, engine_starts) -> None:
    test, training = (read_pairs(world.pairs, split=split) for split in ("test", "train"))
    checkpoints = [resolve_checkpoint(folder) for folder in (world.dpo, world.safedpo)]
    found = distance_rows(checkpoints, test, training, EngineChoice(), work)
    assert engine_starts == ["hf"]
    assert found.table["prompt_id"].is_unique


def test_many_training_prompts_are_thinned_and_that_is_said(
    world, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "MOST_TRAINING", 7)
    found, _, training, _ = gather(world, work)
    kept = sorted(training["prompt_id"].unique())[:7]
    assert set(found.table["nearest_prompt_id"]) <= set(kept)
    assert f"from 7 of {training['prompt_id'].nunique()} training prompts" in found.notes[0]


def test_no_training_pairs_are_refused(world, work: Work) -> None:
    from dataclasses import replace

    test = read_pairs(world.pairs, split="test")
    nothing = replace(test, frame=test.frame.head(0))
    with pytest.raises(DataError, match="holds no training pairs"):
        distance_rows([resolve_checkpoint(world.dpo)], test, nothing, EngineChoice(), work)


def test_seen_shares_are_hand_worked():
    """Couples (1,2), (2,3), (3,9): two of three are in the base; one token has no couple."""
    shares = seen_shares([(1, 2, 3, 9), (7,)], [(0, 1, 2), (2, 3)])
    assert shares == pytest.approx([2 / 3, np.nan], nan_ok=True)


# a sentence encoder


def test_an_encoders_vectors_are_means_over_tokens_whatever_the_batch(encoder: Path) -> None:
    texts = ["how do i clean the stove ?", "repair", "tell me how to move the lamp as a gift ?"]
    found = embedded(encoder, texts, EngineOptions(device="cpu"))
    for text, vector in zip(texts, found, strict=True):
        assert vector == pytest.approx(slow_states(encoder, text), abs=1e-5)
        alone = embedded(encoder, [text], EngineOptions(device="cpu"))[0]
        assert vector == pytest.approx(alone, abs=1e-6)


def test_texts_beyond_the_encoders_window_are_cut_and_empty_ones_are_nothing(encoder) -> None:
    long = " ".join(["stove"] * 200)
    cut, whole, empty = embedded(
        encoder, [long, " ".join(["stove"] * 64), ""], EngineOptions(device="cpu")
    )
    assert cut == pytest.approx(whole, abs=1e-6)
    assert not empty.any()


def test_distances_by_an_encoder_are_its_own(world, work: Work, encoder: Path) -> None:
    found, test, training, _ = gather(world, work, encoder=str(encoder))
    near = training.drop_duplicates("prompt_id")
    base = np.array([slow_states(encoder, text) for text in near["prompt"]])
    texts = dict(zip(test["prompt_id"], test["prompt"], strict=True))
    for row in found.table.iloc[::7].itertuples():
        point = slow_states(encoder, texts[row.prompt_id])
        assert row.distance == pytest.approx(slow_distance(point, base), abs=1e-5)
    assert found.table["encoder"].str.startswith(encoder.name).all()
    by_reference, *_ = gather(world, work)
    assert not np.allclose(found.table["distance"], by_reference.table["distance"])


def test_an_encoder_without_weights_is_named(world, work: Work, encoder, tmp_path: Path) -> None:
    for file in encoder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(EngineError, match=str(tmp_path)):
        embedded(tmp_path, ["a"], EngineOptions(device="cpu"))


# the command


@pytest.fixture
def kinds(world, tmp_path: Path) -> Path:
    """The world's shifted pairs without a kind of their own."""
    rows = [json.loads(line) for line in world.shifted.read_text().splitlines()]
    path = tmp_path / "other.jsonl"
    path.write_text(
        "".join(json.dumps({k: v for k, v in r.items() if k != "shift_kind"}) + "\n" for r in rows)
    )
    return path


def ood(cli: Callable, world, tmp_path: Path, *more: object):
    return cli("ood", world.dpo, "--pairs", world.pairs, "--store", tmp_path / "store", *more)


def test_kinds_named_on_the_command_line_reach_the_findings(world, cli, kinds, tmp_path) -> None:
    ended = ood(cli, world, tmp_path, "--shifted", f":prompt={kinds}", "--out", tmp_path / "out")
    assert ended.status == 0, ended.err
    assert "accuracy drop, prompt" in ended.out
    found = json.loads((tmp_path / "out" / "findings.json").read_text())
    rows = found["findings"] if isinstance(found, dict) else found
    slices = {row["slice"] for row in rows}
    assert "kind=prompt" in slices and "kind=unspecified" not in slices
    assert (tmp_path / "out" / "rows" / "PromptDistances.parquet").exists()


def test_without_a_kind_the_set_is_unspecified_and_the_report_asks(
    world, cli, kinds, tmp_path
) -> None:
    ended = ood(cli, world, tmp_path, "--shifted", f"s={kinds}", "--out", tmp_path / "out")
    assert ended.status == 0, ended.err
    assert "accuracy drop, unspecified" in ended.out
    assert "what kind of shift" in (tmp_path / "out" / "report.md").read_text()


def test_distances_can_be_left_out(world, cli, kinds, tmp_path, engine_starts) -> None:
    more = ("--shifted", f":prompt={kinds}", "--no-distances", "--out", tmp_path / "out")
    assert ood(cli, world, tmp_path, *more).status == 0
    assert not (tmp_path / "out" / "rows" / "PromptDistances.parquet").exists()
    assert engine_starts == ["hf"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--distance-model", "no/such/folder"), "no/such/folder"),
        (("--match", " , "), "--match names no stratum"),
        (("--train", "nowhere.jsonl"), "nowhere.jsonl"),
    ],
)
def test_bad_options_are_one_sentence(world, cli, kinds, tmp_path, more, words) -> None:
    ended = ood(cli, world, tmp_path, "--shifted", f":prompt={kinds}", *more)
    assert words in ended.sentence()


def test_an_unknown_kind_is_one_sentence_with_the_four_names(world, cli, kinds, tmp_path) -> None:
    sentence = ood(cli, world, tmp_path, "--shifted", f"s:wording={kinds}").sentence()
    for word in ("'wording'", "prompt", "domain", "response_source", "token_level"):
        assert word in sentence


def test_shifted_pairs_that_were_trained_on_are_left_out_aloud(world, cli, tmp_path) -> None:
    rows = [json.loads(line) for line in world.shifted.read_text().splitlines()]
    trained = json.loads(world.pairs.read_text().splitlines()[0])
    path = tmp_path / "s.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in [*rows, {**trained, "domain": "s"}]))
    ended = ood(cli, world, tmp_path, "--shifted", path, "--no-distances")
    assert ended.status == 0, ended.err
    assert f"1 of {len(rows) + 1} shifted pairs are left out" in ended.err
    assert trained["pair_id"] in ended.err
