"""Answers without preferences beside the pairs: log-probs, order, resume, what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from dpo_diag.errors import CheckpointError, DataError
from dpo_diag.pairs import PairSet
from dpo_diag.store import RowStore
from dpo_diag.training.inputs import Inputs
from dpo_diag.training.loop import train
from dpo_diag.training.pair_data import PairData, pair_logps
from dpo_diag.training.policy import load_policy
from dpo_diag.training.recipe import Recipe
from dpo_diag.variants.sspo import Sspo
from tests.training.conftest import OBJECTS, STEPS
from tests.training.test_loop import Stop, stop_after
from tests.training.test_round_margins import log_of

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def answers() -> pd.DataFrame:
    """Seven answers."""
    rows = [(f"how do i clean the {name} ?", STEPS[i % 3]) for i, name in enumerate(OBJECTS[:7])]
    return pd.DataFrame(rows, columns=["prompt", "response"])


def test_log_probs_are_the_policys_with_gradient(
    prepared: Callable[..., PairData],
    recipe: MakeRecipe,
    pairs: PairSet,
    answers: pd.DataFrame,
    tmp_path: Path,
) -> None:
    """Against transformers' own logits, token by token, for the answers of the first step."""
    policy = load_policy(recipe(), tmp_path)
    inputs = Inputs(unlabelled=answers)
    data = prepared(
        pairs.frame, policy, Sspo(unlabelled_per_batch=3), RowStore(tmp_path), inputs=inputs
    )
    source = data.sources["unlabelled"]
    source.begin(0)
    batch = pair_logps(policy.model, data, np.arange(2))
    expected = []
    for row in source._now:
        ids = policy.encoder.response(*answers.iloc[row])
        whole = torch.tensor([[*ids.prompt_ids, *ids.response_ids]])
        logp = policy.model(whole).logits.log_softmax(-1)[0]
        n = len(ids.prompt_ids)
        expected.append(sum(logp[n + k - 1, t] for k, t in enumerate(ids.response_ids)))
    torch.testing.assert_close(batch.unlabelled_policy, torch.stack(expected), atol=1e-4, rtol=0)
    assert batch.unlabelled_policy.requires_grad
    assert batch.unlabelled_ref.isnan().all()
    assert data.counts["unlabelled"] == 7


def test_each_answer_comes_once_before_any_comes_again(
    prepared: Callable[..., PairData],
    recipe: MakeRecipe,
    pairs: PairSet,
    answers: pd.DataFrame,
    tmp_path: Path,
) -> None:
    policy = load_policy(recipe(), tmp_path)
    inputs = Inputs(unlabelled=answers)
    data = prepared(
        pairs.frame, policy, Sspo(unlabelled_per_batch=3), RowStore(tmp_path), inputs=inputs
    )
    source, seen = data.sources["unlabelled"], []
    for step in range(6):
        source.begin(step)
        seen.append(source._now.tolist())
    for epoch in (seen[:3], seen[3:]):
        assert [len(step) for step in epoch] == [3, 3, 1]
        assert sorted(row for step in epoch for row in step) == list(range(7))
    assert seen[:3] != seen[3:]


def test_training_logs_the_threshold_and_resumes_exactly(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet, answers: pd.DataFrame
) -> None:
    made = recipe("sspo", max_steps=4, save_every=1, unlabelled_per_batch=3, decay=0.5)
    inputs = Inputs(unlabelled=answers)
    whole = train(made, pairs, out=tmp_path / "whole", inputs=inputs)
    rows = [row for row in log_of(whole) if "loss" in row]
    assert all(0 <= row["pseudo_winner_rate"] <= 1 for row in rows)
    weights = [row["labelled_weight"] for row in rows]
    # the first row stands after the first step; 8 / (8 + 7) = .533333 is the least
    assert weights == pytest.approx([0.606531, 0.533333, 0.533333, 0.533333], abs=1e-6)
    with pytest.raises(Stop):
        train(made, pairs, out=tmp_path / "run", progress=stop_after(3), inputs=inputs)
    other = Inputs(unlabelled=answers.iloc[1:])
    with pytest.raises(CheckpointError, match="other answers without preferences"):
        train(made, pairs, out=tmp_path / "run", resume=True, inputs=other)
    train(made, pairs, out=tmp_path / "run", resume=True, inputs=inputs)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_unlabelled_answers_move_the_model(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet, answers: pd.DataFrame
) -> None:
    made = recipe("sspo", max_steps=1, g_init=0.6)
    runs = [
        train(made, pairs, out=tmp_path / str(i), inputs=Inputs(unlabelled=table))
        for i, table in enumerate((answers, answers.assign(response=STEPS[0])))
    ]
    one, two = (load_file(run / "model.safetensors") for run in runs)
    assert not all(torch.equal(one[key], two[key]) for key in one)


def test_without_answers_the_option_is_named(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    with pytest.raises(DataError, match=r"give --unlabelled FILE with the columns prompt and resp"):
        train(recipe("sspo"), pairs, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.rename(columns={"response": "text"}), "lack the column response; found"),
        (lambda t: t.iloc[:0], "there are none"),
        (lambda t: t.assign(response=[*t["response"][:2], None, *t["response"][3:]]), "row 3 of"),
        (lambda t: t.assign(response=[" ", *t["response"][1:]]), "row 1 of .* is empty"),
    ],
)
def test_bad_answers_are_named(
    tmp_path: Path,
    recipe: MakeRecipe,
    pairs: PairSet,
    answers: pd.DataFrame,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    message: str,
) -> None:
    with pytest.raises(DataError, match=message):
        train(recipe("sspo"), pairs, out=tmp_path / "r", inputs=Inputs(unlabelled=change(answers)))
