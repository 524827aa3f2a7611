"""Rounds that begin with every pair's margin under the policy of the moment."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dpo_diag.errors import DataError
from dpo_diag.pairs import PairSet
from dpo_diag.store import RowStore
from dpo_diag.training.loop import train
from dpo_diag.training.pair_data import PairData, pair_logps
from dpo_diag.training.policy import load_policy
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.steps import round_begun
from dpo_diag.variants.semidpo_port import SemiDpoPort
from tests.training.test_loop import Stop, stop_after

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def judged(pairs: PairSet) -> PairSet:
    """Every other pair is clean."""
    agreement = [1.0 if i % 2 == 0 else 0.6 for i in range(len(pairs.frame))]
    return dataclasses.replace(pairs, frame=pairs.frame.assign(judge_agreement=agreement))


def log_of(folder: Path) -> list[dict[str, Any]]:
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    return [
        {k: v for k, v in row.items() if k != "seconds_per_step"} for row in state["log_history"]
    ]


@pytest.mark.parametrize(
    ("n_steps", "n_rounds", "begins"),
    [
        (9, 3, {0: 0, 3: 1, 6: 2}),
        (10, 3, {0: 0, 4: 1, 7: 2}),
        (5, 1, {0: 0}),
        (2, 3, {0: 0, 1: 1}),
    ],
)
def test_rounds_split_the_steps_evenly(n_steps: int, n_rounds: int, begins: dict) -> None:
    found = {step: round_begun(step, n_steps, n_rounds) for step in range(n_steps)}
    assert {step: number for step, number in found.items() if number is not None} == begins


def test_margins_are_those_of_the_policy_of_the_moment(
    prepared: Callable[..., PairData],
    recipe: MakeRecipe,
    judged: PairSet,
    moved: Path,
    base: Path,
    tmp_path: Path,
) -> None:
    """Against the loss's own forward pass, with the weights changed after the source was made."""
    policy = load_policy(recipe(model=str(moved), reference=str(base)), tmp_path)
    data = prepared(judged.frame, policy, SemiDpoPort(), RowStore(tmp_path))
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.mul_(1.05)
        batch = pair_logps(policy.model, data, np.arange(len(data)))
    expected = (batch.policy_chosen - batch.ref_chosen) - (
        batch.policy_rejected - batch.ref_rejected
    )
    source, reference = data.sources["round_margins"], data.ref_chosen - data.ref_rejected
    given = source.margins(reference)
    torch.testing.assert_close(given.double(), expected, atol=1e-3, rtol=0)
    assert expected.abs().max() > 0.1


def test_before_the_first_step_the_reference_itself_has_margin_zero(
    prepared: Callable[..., PairData], recipe: MakeRecipe, judged: PairSet, tmp_path: Path
) -> None:
    """Not scored then; at any later step it is, and gives the zeros up to rounding."""
    policy = load_policy(recipe(), tmp_path)
    data = prepared(judged.frame, policy, SemiDpoPort(), RowStore(tmp_path))
    source, reference = data.sources["round_margins"], data.ref_chosen - data.ref_rejected
    assert (source.margins(reference) == 0).all()
    source.begin(1)
    again = source.margins(reference)
    assert again.abs().max() < 1e-4
    assert source.margins(reference + 1.0).mean().item() == pytest.approx(-1.0, abs=1e-4)


def test_rounds_are_in_the_log_and_resume_is_exact(
    tmp_path: Path, recipe: MakeRecipe, judged: PairSet
) -> None:
    made = recipe("semidpo_port", max_steps=6, save_every=1, quantiles=[0.5, 0.0])
    whole = train(made, judged, out=tmp_path / "whole")
    rows = [row for row in log_of(whole) if "loss" in row]
    assert [row["round"] for row in rows] == [0, 0, 1, 1, 2, 2]
    assert [row["kept_rate"] for row in rows[2:]] == [0.5, 0.5, 1.0, 1.0]
    assert {"swap_rate", "false_swap_rate"} <= rows[-1].keys()
    for stop in (1, 2, 3):  # the second checkpoint stands right before a round begins
        out = tmp_path / f"stopped-{stop}"
        with pytest.raises(Stop):
            train(made, judged, out=out, progress=stop_after(stop + 1))
        train(made, judged, out=out, resume=True)
        weights = [load_file(folder / "model.safetensors") for folder in (whole, out)]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
        assert log_of(out) == log_of(whole)


def test_the_missing_column_is_named_with_data_that_carry_it(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    with pytest.raises(DataError, match=r"judge_agreement, which the pairs lack.*panel\.jsonl"):
        train(recipe("semidpo_port"), pairs, out=tmp_path / "run")


def test_flipped_labels_are_agreed_with_by_the_others(
    prepared: Callable[..., PairData], recipe: MakeRecipe, judged: PairSet, tmp_path: Path
) -> None:
    """A flip turns the share who agree, 1 or .6, into 0 or .4: no flipped pair is clean."""
    policy = load_policy(recipe(), tmp_path)
    data = prepared(judged.frame, policy, SemiDpoPort(), RowStore(tmp_path), flip_labels=0.5)
    turned = data.frame["chosen"].to_numpy() != judged.frame["chosen"].to_numpy()
    assert 0 < turned.sum() < len(data)
    given = data.frame["judge_agreement"].to_numpy()
    before = judged.frame["judge_agreement"].to_numpy()
    np.testing.assert_allclose(given, np.where(turned, 1 - before, before))
