"""A fixed table of scored samples: what is usable of it, its steps, a run that resumes."""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from dpo_diag.engines._base import ScoreRequest
from dpo_diag.errors import CheckpointError, DataError
from dpo_diag.pairs import PairSet
from dpo_diag.store import RowStore
from dpo_diag.training.inputs import Inputs
from dpo_diag.training.loop import train
from dpo_diag.training.pair_data import Material
from dpo_diag.training.policy import load_policy
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.sample_table import SampleTableSteps, usable_samples
from tests.training.conftest import OBJECTS, REFUSAL, STEPS
from tests.training.test_loop import Stop, log_of, stop_after


def make_samples(n: int = 6) -> pd.DataFrame:
    """Three answers to each of n prompts: good, useless, harmful."""
    return pd.DataFrame(
        [
            {
                "prompt": f"how do i clean the {OBJECTS[i]} ?",
                "response": response,
                "reward": reward,
                "cost": cost,
            }
            for i in range(n)
            for response, reward, cost in (
                (STEPS[0], 0.9, -0.2),
                (REFUSAL, 0.1, -0.3),
                (STEPS[2], 0.8, 0.5),
            )
        ]
    )


def make_steps(made: Recipe, samples: pd.DataFrame | None, cache: Path) -> SampleTableSteps:
    policy, inputs = load_policy(made, cache), Inputs(samples=samples)
    return SampleTableSteps(
        Material(policy, made.build_variant(), made, RowStore(cache / "rows"), inputs, cache)
    )


def test_samples_of_a_prompt_are_put_side_by_side_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of 9 rows: 1 of the test split, 1 without cost, 1 cut, 1 alone; prompts b and a are left."""
    frame = pd.DataFrame(
        {
            "prompt_id": ["b", "a", "b", "a", "c", "b", "a", "a", "b"],
            "prompt": "how ?",
            "response": list("qrstuvwxy"),
            "reward": [1, 2, 3, 4, 5, 6, 7, 8, 9],
            "cost": [0.1, 0.2, 0.3, 0.4, 0.5, None, 0.7, 0.8, 0.9],
            "split": ["train"] * 8 + ["test"],
            "finish_reason": ["stop"] * 7 + ["length", "stop"],
        }
    )
    with caplog.at_level(logging.WARNING):
        table = usable_samples(frame, "repo_offline")
    assert table.prompt_ids == ("b", "a")
    assert table.frame["response"].tolist() == ["q", "s", "r", "t", "w"]
    assert table.starts.tolist() == [0, 2, 5]
    assert table.rows(np.array([1])).tolist() == [2, 3, 4]
    assert table.counts == {
        "rows": 9,
        "other_split": 1,
        "without_score": 1,
        "cut": 1,
        "alone_on_their_prompt": 1,
        "prompts": 2,
        "samples": 5,
    }
    assert "1 of 8 samples are left out: without_score" in caplog.text


@pytest.mark.parametrize("column", ["prompt", "response", "reward", "cost"])
def test_a_missing_column_is_named_with_what_makes_it(column: str) -> None:
    with pytest.raises(DataError, match=f"needs the column {column} .*dpo-diag sample"):
        usable_samples(make_samples().drop(columns=column), "repo_offline")


def test_no_table_at_all_says_which_option_gives_one() -> None:
    with pytest.raises(DataError, match="give --samples FILE"):
        usable_samples(None, "repo_offline")


def test_a_score_that_is_no_number_is_named() -> None:
    frame = make_samples(1).assign(reward=["high", 1, 2])
    with pytest.raises(DataError, match=r"reward must be numbers.*'high' in row 1"):
        usable_samples(frame, "repo_offline")


def test_prompts_with_one_sample_each_leave_nothing() -> None:
    frame = make_samples().drop_duplicates("prompt")
    with pytest.raises(DataError, match=r"two answers.*6 alone_on_their_prompt"):
        usable_samples(frame, "repo_offline")


def test_empty_answers_are_left_out_and_counted() -> None:
    frame = make_samples(2)
    frame.loc[0, "response"] = " "
    table = usable_samples(frame, "repo_offline")
    assert (table.counts["empty"], table.counts["samples"]) == (1, 5)


def test_ids_are_those_of_the_prompts_text_where_none_are_given() -> None:
    table = usable_samples(make_samples(2), "repo_offline")
    assert table.counts["prompts"] == 2
    assert table.starts.tolist() == [0, 3, 6]


def test_every_step_takes_all_samples_of_its_prompts_with_the_starting_models_log_probs(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    steps = make_steps(recipe("repo_offline"), make_samples(), tmp_path)
    first, second = steps.units(0), steps.units(1)
    assert sorted([*first, *second]) == list(range(6))
    found = steps.loss(first, 4)
    assert found.n == 4 and len(found.batch.policy) == 12
    assert found.batch.prompt_index.tolist() == [u for u in first for _ in range(3)]
    np.testing.assert_allclose(found.batch.policy, found.batch.behaviour, atol=1e-4)
    policy, text = steps._policy, make_samples()["prompt"][3 * first[0]]
    encoded = policy.encoder.response(text, STEPS[0])
    logp = policy.scores([ScoreRequest(encoded.prompt_ids, encoded.response_ids)]).logp[0]
    assert found.batch.ref[0].item() == pytest.approx(logp, abs=1e-4)


def test_loss_is_the_mean_over_prompts_of_the_mean_over_their_samples(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """At the reference e = (A_R - A_C) / 2, lambda 1; two prompts, of 3 and of 2 samples.

    [C]+ is 0, 0, .5. A_R: .9 - .45, .1 - .85, .8 - .5 = .45, -.75, .3; A_C: -.25, -.25, .5;
    e = .35, -.25, -.1; e^2/2 = .06125, .03125, .005: mean .0325.
    Of .9 and .1 alone: A_R = +-.8, e^2/2 = .08. Mean of both .05625.
    """
    samples = make_samples(2).iloc[:5]
    steps = make_steps(recipe("repo_offline"), samples, tmp_path)
    assert steps.loss(np.array([0, 1]), 2).loss.item() == pytest.approx(0.05625, abs=1e-5)


def test_a_run_learns_the_table_and_counts_it(
    recipe: Callable[..., Recipe], pairs: PairSet, tmp_path: Path
) -> None:
    made = recipe("repo_offline", max_steps=30, batch_size=6, learning_rate=5e-3)
    run = train(made, pairs, out=tmp_path / "run", inputs=Inputs(samples=make_samples()))
    rows = [row for row in log_of(run) if "loss" in row]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    values = [row["lambda"] for row in rows]
    assert values == sorted(values) and values[-1] > 1.0
    assert rows[-1]["policy_rectified_cost"] < rows[0]["policy_rectified_cost"]
    assert "eval_rewards/accuracies" in log_of(run)[-1]
    state = json.loads((run / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["pair_counts"] == {"rows": 18, "prompts": 6, "samples": 18}


def test_accumulated_passes_equal_one(
    recipe: Callable[..., Recipe], pairs: PairSet, tmp_path: Path
) -> None:
    one, many = (
        log_of(
            train(
                recipe("repo_offline", max_steps=1, micro_batch_size=micro),
                pairs,
                out=tmp_path / str(micro),
                inputs=Inputs(samples=make_samples()),
            )
        )[0]
        for micro in (0, 1)
    )
    for key in ("loss", "grad_norm", "reward", "cost", "lambda", "policy_rectified_cost"):
        assert one[key] == pytest.approx(many[key], rel=1e-4, abs=1e-6)


def test_resume_is_exact_and_refuses_other_samples(
    recipe: Callable[..., Recipe], pairs: PairSet, tmp_path: Path
) -> None:
    made = recipe("repo_offline", save_every=1, max_steps=5, learning_rate=1e-2)
    inputs = Inputs(samples=make_samples())
    whole = train(made, pairs, out=tmp_path / "whole", inputs=inputs)
    with pytest.raises(Stop):
        train(made, pairs, out=tmp_path / "parts", progress=stop_after(3), inputs=inputs)
    other = Inputs(samples=make_samples().assign(reward=0.5))
    with pytest.raises(CheckpointError, match="started with other samples"):
        train(made, pairs, out=tmp_path / "parts", resume=True, inputs=other)
    parts = train(made, pairs, out=tmp_path / "parts", resume=True, inputs=inputs)
    one, two = (load_file(run / "model.safetensors") for run in (whole, parts))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert [r.get("lambda") for r in log_of(whole)] == [r.get("lambda") for r in log_of(parts)]


def test_another_reference_gives_its_own_log_probs(
    recipe: Callable[..., Recipe], moved: Path, tmp_path: Path
) -> None:
    steps = make_steps(recipe("repo_offline", reference=str(moved)), make_samples(1), tmp_path)
    batch = steps.loss(np.array([0]), 1).batch
    assert math.isfinite(batch.ref.sum().item())
    assert (batch.ref - batch.behaviour).abs().min().item() > 1e-3
