"""Explicit rewards of pairs: the classifier's own numbers, stored by content, or refused."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dpo_diag.engines._base import EngineOptions
from dpo_diag.engines._heads import start_scorer
from dpo_diag.errors import CheckpointError, DataError, EngineError
from dpo_diag.pairs import PairSet, read_pairs
from dpo_diag.pipeline import explicit
from dpo_diag.pipeline.explicit import ExplicitChoice, with_explicit_rewards
from dpo_diag.pipeline.work import EngineChoice, Work
from dpo_diag.store import RowStore
from tests.conftest import World


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory, world: World) -> Path:
    """A classifier on the world's base with a head of noise, saved as a trained one is."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("reward")
    start_scorer(world.base, EngineOptions(), seed=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(world.base).save_pretrained(folder)
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(RowStore(tmp_path / "store"), tmp_path / "cache")


@pytest.fixture(scope="module")
def pairs(world: World) -> PairSet:
    return read_pairs(world.pairs, split="test")


def test_scores_are_the_classifiers_own_at_the_last_token(
    reward_model: Path, pairs: PairSet, work: Work
) -> None:
    """Each answer alone through transformers: text, EOS, one row, its logit."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    found = with_explicit_rewards(pairs, ExplicitChoice(str(reward_model)), EngineChoice(), work)
    model = AutoModelForSequenceClassification.from_pretrained(reward_model).eval()
    tokenizer = AutoTokenizer.from_pretrained(reward_model)
    for side in ("chosen", "rejected"):
        for row in found.frame.head(4).itertuples():
            text = row.prompt + getattr(row, side) + tokenizer.eos_token
            ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
            with torch.no_grad():
                expected = model(ids).logits[0, 0].item()
            assert getattr(row, f"explicit_reward_{side}") == pytest.approx(expected, abs=1e-5)


def test_second_time_no_model_is_loaded_and_the_numbers_are_the_same(
    reward_model: Path, pairs: PairSet, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = ExplicitChoice(str(reward_model))
    first = with_explicit_rewards(pairs, choice, EngineChoice(), work)
    monkeypatch.setattr(explicit, "RewardModel", None)  # calling it would raise
    again = with_explicit_rewards(pairs, choice, EngineChoice(), work)
    assert first.frame.equals(again.frame)


def test_order_of_pairs_and_batch_size_do_not_matter(
    reward_model: Path, pairs: PairSet, work: Work, tmp_path: Path
) -> None:
    choice = ExplicitChoice(str(reward_model))
    one = with_explicit_rewards(pairs, choice, EngineChoice(), work).frame
    turned = dataclasses.replace(pairs, frame=pairs.frame.iloc[::-1].reset_index(drop=True))
    small = EngineChoice(options=EngineOptions(batch_tokens=1))
    other_work = Work(RowStore(tmp_path / "other"), tmp_path)
    other = with_explicit_rewards(turned, choice, small, other_work).frame.iloc[::-1]
    for name in explicit.COLUMNS.values():
        np.testing.assert_allclose(one[name], other[name].to_numpy(), rtol=1e-4, atol=1e-5)


def test_language_model_is_refused(world: World, pairs: PairSet, work: Work) -> None:
    with pytest.raises(EngineError, match="no trained score head"):
        with_explicit_rewards(pairs, ExplicitChoice(str(world.base)), EngineChoice(), work)


def test_adapter_is_refused(tmp_path: Path, world: World, pairs: PairSet, work: Work) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(world.base)
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="is an adapter"):
        choice = ExplicitChoice(str(tmp_path / "adapter"))
        with_explicit_rewards(pairs, choice, EngineChoice(), work)


def test_columns_that_are_there_already_are_not_overwritten(
    reward_model: Path, pairs: PairSet, work: Work
) -> None:
    given = dataclasses.replace(pairs, frame=pairs.frame.assign(explicit_reward_chosen=0.0))
    with pytest.raises(DataError, match="explicit_reward_chosen already"):
        with_explicit_rewards(given, ExplicitChoice(str(reward_model)), EngineChoice(), work)


def test_trained_from_the_command_line_and_set_beside_the_implicit_reward(
    tmp_path: Path, world: World, cli: Callable
) -> None:
    """`train reward`, then `ood --explicit`: an explicit accuracy beside the implicit."""
    import pandas as pd

    run = tmp_path / "rm"
    ended = cli(
        *("train", "reward", "--model", world.base, "--pairs", world.pairs, "--out", run),
        *("--set", "optimizer.learning_rate=0.001", "--set", "optimizer.max_steps=12"),
        *("--set", "optimizer.batch_size=8"),
    )
    assert ended.status == 0, ended.err
    ended = cli(
        *("ood", world.dpo, "--pairs", world.pairs, "--shifted", world.shifted),
        *("--engine", "hf", "--explicit", run, "--out", tmp_path / "report"),
        *("--store", tmp_path / "store"),
    )
    assert ended.status == 0, ended.err
    found = pd.read_csv(tmp_path / "report" / "findings.csv")
    rows = found[found["statistic"] == "explicit_reward_accuracy"]
    rows = rows[rows["slice"].str.startswith("domain=")]
    assert len(rows) == 3
    assert rows["estimate"].between(0, 1).all()
    assert (
        "Explicit rewards are the scores of rm" in (tmp_path / "report" / "report.md").read_text()
    )

    ended = cli("reversals", run, "--pairs", world.pairs, "--store", tmp_path / "store")
    assert "is an explicit reward (reward), which has no implicit one" in ended.sentence()


def test_reward_model_is_refused_where_a_policy_is_expected(
    tmp_path: Path, reward_model: Path, world: World, cli: Callable
) -> None:
    ended = cli(
        *("reversals", reward_model, "--reference", world.base, "--pairs", world.pairs),
        *("--engine", "hf", "--store", tmp_path / "store"),
    )
    assert "is a sequence classifier" in ended.sentence()
    assert "--explicit" in ended.sentence()
