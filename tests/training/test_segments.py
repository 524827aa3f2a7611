"""Reasoning and answer tokens, with words as tokens and with pieces of words."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpo_diag.errors import DataError
from dpo_diag.pairs import PairSet
from dpo_diag.sandbox.tiny_model import make_tokenizer
from dpo_diag.store import RowStore
from dpo_diag.training.loop import train
from dpo_diag.training.pair_data import PairData, pair_logps
from dpo_diag.training.policy import load_policy
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.sources.segments import n_reasoning
from dpo_diag.variants.awdpo import AwDpo

MakeRecipe = Callable[..., Recipe]
THOUGHT = "first weigh the naïve plan 🙂</think>then answer — plainly."


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The sandbox's word-level tokenizer."""
    return make_tokenizer(tmp_path_factory.mktemp("words"))


def byte_pieces(specials: list[str]) -> Any:
    """A byte-level BPE tokenizer trained on a few sentences, so that words fall into pieces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<eos>", *specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(["first think, then answer the plain question </think>"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")


def reasoning(text: str, tag: str, tokenizer: Any, n_cut: int = 0) -> tuple[str, str]:
    """Both segments as decoded from the ids on either side of the split."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = ids[: len(ids) - n_cut]
    n = n_reasoning(text, ids, tag, tokenizer)
    return tokenizer.decode(ids[:n]), tokenizer.decode(ids[n:])


def test_words_are_split_after_the_first_tag(words: Any) -> None:
    """Tokens: lift the tyre then | check the oil then wipe the hood ."""
    text = "lift the tyre then check the oil then wipe the hood ."
    assert reasoning(text, "then", words) == (
        "lift the tyre then",
        "check the oil then wipe the hood .",
    )


def test_a_tag_of_several_words(words: Any) -> None:
    text = "here are the steps . wipe the burner ."
    assert reasoning(text, "here are the steps .", words)[1] == "wipe the burner ."


def test_without_the_tag_nothing_is_reasoning(words: Any) -> None:
    assert reasoning("wipe the burner .", "then", words) == ("", "wipe the burner .")


@pytest.mark.parametrize("specials", [[], ["</think>"]])
def test_pieces_of_words_are_split_exactly(specials: list[str]) -> None:
    """Also after a character of several bytes, and where the tag is one special token."""
    tokenizer = byte_pieces(specials)
    ids = tokenizer(THOUGHT)["input_ids"]
    n = n_reasoning(THOUGHT, ids, "</think>", tokenizer)
    before = tokenizer.decode(ids[:n], skip_special_tokens=False)
    assert before == THOUGHT[: THOUGHT.index("</think>") + len("</think>")]
    assert tokenizer.decode(ids[n:]) == "then answer — plainly."


def test_a_token_across_the_end_of_the_tag_is_reasoning() -> None:
    """The BPE merges have " then" as one token: a tag that ends within it takes it whole."""
    tokenizer = byte_pieces([])
    text = "first think, then answer"
    ids = tokenizer(text)["input_ids"]
    n = n_reasoning(text, ids, "think, th", tokenizer)
    pieces = [tokenizer.decode([i]) for i in ids]
    assert " then" in pieces
    assert n == pieces.index(" then") + 1


def test_letters_are_counted_where_decoding_changes_the_spaces(words: Any) -> None:
    """Words joined by spaces do not hold "gas. lift"; the 18th letter is the t of lift."""
    text = "wipe the burner.lift the tyre"
    head, tail = reasoning(text, "burner.lift", words)
    assert (head, tail) == ("wipe the burner . lift", "the tyre")


def test_an_answer_cut_before_its_tag_is_all_reasoning(words: Any) -> None:
    text = "lift the tyre then check the oil"
    assert reasoning(text, "then", words, n_cut=5) == ("lift the", "")


def test_tokens_of_another_text_are_refused(words: Any) -> None:
    ids = words("wipe the burner .")["input_ids"]
    with pytest.raises(DataError, match=r"'then' is in the answer's text, but the tokenizer"):
        n_reasoning("lift the tyre then check the oil .", ids, "then", words)


@pytest.fixture
def harmed(pairs: PairSet) -> PairSet:
    """Every pair with segment harms; one step answer in three, and no refusal, has a "then"."""
    rng = np.random.default_rng(0)
    frame = pairs.frame.copy()
    for side in ("chosen", "rejected"):
        for part in ("reasoning", "answer"):
            frame[f"harm_{part}_{side}"] = rng.random(len(frame))
    both = frame["pair_id"].isin(frame["pair_id"].iloc[:4])
    frame["rejected"] = frame["rejected"].mask(both, "check the oil then lift the hood .")
    frame["chosen"] = frame["chosen"].mask(both, "wipe the burner then check the pan .")
    return dataclasses.replace(pairs, frame=frame)


def test_masks_fit_the_token_log_probs(
    prepared: Callable[..., PairData], recipe: MakeRecipe, harmed: PairSet, tmp_path: Path
) -> None:
    """Pair 0: four of nine tokens (EOS included) come up to "then"; pairs 4 to 9 have no split."""
    policy = load_policy(recipe(), tmp_path)
    data = prepared(harmed.frame, policy, AwDpo(tag="then"), RowStore(tmp_path))
    with torch.no_grad():
        batch = pair_logps(policy.model, data, np.arange(10))
    for side in ("chosen", "rejected"):
        is_reasoning = getattr(batch, f"is_reasoning_{side}")
        assert is_reasoning.shape == getattr(batch, f"token_logps_{side}").shape
        assert not (is_reasoning & ~getattr(batch, f"mask_{side}")).any()
        assert is_reasoning[0].nonzero().flatten().tolist() == [0, 1, 2, 3]
    assert data.counts["pairs_without_tag"] == 6


@pytest.mark.parametrize(("missing", "kept"), [("answer", 8), ("drop", 4)])
def test_pairs_without_the_tag_are_counted_in_the_run_record(
    tmp_path: Path, recipe: MakeRecipe, harmed: PairSet, missing: str, kept: int
) -> None:
    made = recipe("awdpo", tag="then", missing_tag=missing, max_steps=2, eval_every=2)
    run = train(made, harmed, out=tmp_path / "run")
    counts = json.loads((run / "trainer_state.json").read_text(encoding="utf-8"))["pair_counts"]
    assert counts["pairs_without_tag"] == kept - 4
    if missing == "drop":
        assert (counts["kept"], counts["dropped"]) == (4, 4)


def test_first_loss_is_log_two(tmp_path: Path, recipe: MakeRecipe, harmed: PairSet) -> None:
    """At the reference both segments have margin 0, and the weights sum to 1."""
    run = train(recipe("awdpo", tag="then", max_steps=1), harmed, out=tmp_path / "run")
    log = json.loads((run / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    assert log[0]["loss"] == pytest.approx(np.log(2), abs=1e-4)


def test_missing_harm_columns_are_named(
    tmp_path: Path, recipe: MakeRecipe, harmed: PairSet
) -> None:
    bare = dataclasses.replace(harmed, frame=harmed.frame.drop(columns="harm_answer_chosen"))
    with pytest.raises(DataError, match=r"harm_answer_chosen, which the pairs lack.*panel\.jsonl"):
        train(recipe("awdpo", tag="then"), bare, out=tmp_path / "run")
