"""Training an explicit reward: TRL's loss, the head's position, resuming, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dpo_diag.checkpoints import read_manifest
from dpo_diag.engines._base import EngineOptions, ScoreRequest
from dpo_diag.engines._heads import RewardModel, answer_scores, load_scorer, start_scorer
from dpo_diag.engines._weights import load_model
from dpo_diag.errors import EngineError, RecipeError
from dpo_diag.pairs import PairSet
from dpo_diag.store import RowStore
from dpo_diag.training.loop import TrainProgress, train
from dpo_diag.training.pair_data import PairData
from dpo_diag.training.policy import PAD_TOKEN, _give_padding, load_policy
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.steps import PairSteps, Schedule

MakeRecipe = Callable[..., Recipe]


class Stop(Exception):
    """Ends a run from its progress callback, as Ctrl-C would."""


def stop_after(step: int) -> Callable[[TrainProgress], None]:
    def progress(state: TrainProgress) -> None:
        if state.step == step:
            raise Stop

    return progress


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """A sequence classifier started from the tiny model, saved with its head."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("reward")
    start_scorer(base, EngineOptions(), seed=3).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("centre", [0.0, 0.01])
def test_loss_and_gradients_are_trls(
    centre: float,
    tmp_path: Path,
    recipe: MakeRecipe,
    pairs: PairSet,
    reward_model: Path,
    prepared: Callable[..., PairData],
) -> None:
    """The same pairs and weights in TRL's RewardTrainer: the same loss and the same gradients."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    frame = pairs.frame[pairs.frame["split"] == "train"]
    columns = ["prompt", "chosen", "rejected"]
    theirs = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(reward_model, dtype=torch.float32),
        args=RewardConfig(
            output_dir=str(tmp_path / "trl"),
            per_device_train_batch_size=len(frame),
            center_rewards_coefficient=centre or None,
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(frame[columns].to_dict("records")),
        processing_class=AutoTokenizer.from_pretrained(reward_model),
    )
    theirs.model.train()
    expected = theirs.compute_loss(theirs.model, next(iter(theirs.get_train_dataloader())))
    expected.backward()
    made = recipe("reward", model=str(reward_model), centre=centre)
    policy, variant = load_policy(made, tmp_path), made.build_variant()
    data = prepared(frame, policy, variant, RowStore(tmp_path / "store"))
    steps = PairSteps(policy.model, data, variant, Schedule(0, len(data)))
    ours = steps.loss(np.arange(len(data)), len(data)).loss
    ours.backward()
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)
    grads = {name: p.grad for name, p in theirs.model.named_parameters()}
    for name, parameter in policy.model.named_parameters():
        torch.testing.assert_close(parameter.grad, grads[name], rtol=1e-4, atol=1e-6)


def test_score_is_read_at_the_last_token_whatever_the_padding(reward_model: Path) -> None:
    """By hand: the head's row times the trunk's last state of the unpadded sequence."""
    answers = [
        ScoreRequest((5, 6, 7), (8, 9, 1)),
        ScoreRequest((5,), (1,)),
        ScoreRequest((9,), (4,)),
    ]
    model = load_scorer(reward_model, EngineOptions())
    together = answer_scores(model, answers)[:, 0]
    for answer, score in zip(answers, together, strict=True):
        ids = torch.tensor([[*answer.prompt_ids, *answer.response_ids]])
        state = model.model(input_ids=ids).last_hidden_state[0, -1]
        torch.testing.assert_close(score, model.score.weight[0] @ state, rtol=1e-5, atol=1e-6)


def test_run_is_a_classifier_that_any_tool_reads(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    """The library alone gives the scores that our engine gives."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    run = train(recipe("reward", save_every=2), pairs, out=tmp_path / "run")
    for folder in (run, run / "checkpoint-2"):
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder, output_loading_info=True
        )
        assert not info["missing_keys"]
        assert model.config.num_labels == 1
    tokenizer = AutoTokenizer.from_pretrained(run)
    texts = [f"{p}{c}{tokenizer.eos_token}" for p, c in [("how ", "wipe it ."), ("a", "sorry ,")]]
    batch = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
    batch.pop("token_type_ids", None)
    expected = AutoModelForSequenceClassification.from_pretrained(run)(**batch).logits[:, 0]
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    with RewardModel(run, EngineOptions()) as scorer:
        found = scorer.rewards([ScoreRequest(tuple(row[:1]), tuple(row[1:])) for row in rows])
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5)


def test_training_learns_the_pairs_and_the_manifest_says_what_it_is(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    run = train(recipe("reward", epochs=20, eval_every=20), pairs, out=tmp_path / "run")
    log = json.loads((run / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    assert log[0]["loss"] > 0.5
    assert log[-2]["rewards/accuracies"] == 1.0
    assert not [key for row in log for key in row if "logps" in key]
    assert "eval_loss" in log[-1]
    manifest = read_manifest(run)
    assert (manifest.variant, manifest.reference) == ("reward", None)
    assert manifest.pairs.content_hash == pairs.content_hash


def test_resumed_run_is_the_same_bit_for_bit(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    made = recipe("reward", epochs=3, save_every=2)
    whole = train(made, pairs, out=tmp_path / "whole")
    with pytest.raises(Stop):
        train(made, pairs, out=tmp_path / "parts", progress=stop_after(3))
    parts = train(made, pairs, out=tmp_path / "parts", resume=True)
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, parts))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_passes_of_any_size_give_the_same_step(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    runs = [
        train(recipe("reward", micro_batch_size=n, centre=0.01), pairs, out=tmp_path / str(n))
        for n in (1, 4)
    ]
    one, other = (load_file(run / "model.safetensors") for run in runs)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=2e-5)


def test_head_is_a_function_of_the_seed_alone(base: Path) -> None:
    torch.manual_seed(1)
    one = start_scorer(base, EngineOptions(), seed=5).score.weight
    state = torch.get_rng_state()
    other = start_scorer(base, EngineOptions(), seed=5).score.weight
    assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(one, start_scorer(base, EngineOptions(), seed=6).score.weight)


def test_a_pad_token_that_ends_answers_is_replaced(base: Path) -> None:
    """With EOS as padding a score would be read before the EOS, by us and by everybody."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.eos_token
    model = start_scorer(base, EngineOptions())
    _give_padding(model, tokenizer, (tokenizer.eos_token_id,))
    assert tokenizer.pad_token == PAD_TOKEN
    assert model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.get_input_embeddings().num_embeddings >= len(tokenizer)


def test_a_language_model_is_no_reward_model_and_the_other_way_round(
    base: Path, reward_model: Path
) -> None:
    with pytest.raises(EngineError, match=r"no trained score head.*lack score\.weight"):
        RewardModel(base, EngineOptions())
    with pytest.raises(EngineError, match="is a sequence classifier"):
        load_model(reward_model, EngineOptions())


def test_several_outputs_need_a_stated_label(tmp_path: Path, base: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    model.save_pretrained(tmp_path)
    with pytest.raises(EngineError, match=r"has 3 outputs .*--explicit-label"):
        RewardModel(tmp_path, EngineOptions())
    with pytest.raises(EngineError, match="has no output 3"):
        RewardModel(tmp_path, EngineOptions(), label=3)
    answers = [ScoreRequest((5, 6), (8, 1)), ScoreRequest((5,), (4, 9, 1))]
    with RewardModel(tmp_path, EngineOptions(), label=2) as scorer:
        expected = answer_scores(load_scorer(tmp_path, EngineOptions()), answers)[:, 2]
        np.testing.assert_allclose(scorer.rewards(answers), expected.numpy(), rtol=1e-6)


def test_an_answer_beyond_the_window_is_refused(reward_model: Path) -> None:
    with (
        RewardModel(reward_model, EngineOptions(max_length=4)) as scorer,
        pytest.raises(EngineError, match=r"answer 1 has 5 tokens, the window .* is 4"),
    ):
        scorer.rewards([ScoreRequest((5,), (1,)), ScoreRequest((5, 6), (7, 8, 1))])


def test_lora_is_refused(recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match=r"remove \[lora\]"):
        recipe("reward", rank=4)
