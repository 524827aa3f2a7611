"""Third answers: equal models give ratio 0, scores are the engine's, a second call starts none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dpo_diag.checkpoints import Checkpoint, resolve_checkpoint
from dpo_diag.engines._base import EngineOptions, SamplingSettings
from dpo_diag.errors import DataError, EngineError
from dpo_diag.pairs import PairSet, read_pairs
from dpo_diag.pipeline.explain import Further
from dpo_diag.pipeline.third_answers import third_answers, which_answer
from dpo_diag.pipeline.work import EngineChoice, Work
from dpo_diag.store import RowStore
from dpo_diag.tables import SAMPLE_LOGPS, validate

HF = EngineChoice("hf", EngineOptions(device="cpu"))
SETTINGS = SamplingSettings(2, 8)


@pytest.fixture(scope="module")
def pairs(world) -> PairSet:
    return read_pairs(world.pairs, split="test")


@pytest.fixture(scope="module")
def dpo(world) -> Checkpoint:
    return resolve_checkpoint(world.dpo)


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Work:
    root = tmp_path_factory.mktemp("third")
    return Work(RowStore(root), root / "merged")


@pytest.fixture(scope="module")
def found(dpo, pairs, work):
    return third_answers([dpo], pairs, SETTINGS, HF, work)


def test_every_prompt_has_answers_of_both(found, pairs, dpo) -> None:
    rows = validate(found.logps, SAMPLE_LOGPS)
    samplers = {dpo.model.model_id, dpo.reference.model_id}
    assert set(rows["sampled_by"]) == samplers
    assert len(rows) == 2 * 2 * pairs.frame["prompt_id"].nunique()
    assert rows.groupby(["sampled_by", "prompt_id"]).size().eq(2).all()


def test_scores_are_those_that_the_samples_came_with(found, dpo) -> None:
    """Temperature 1: re-scoring what a model drew gives its own log-prob."""
    keys = ["sampled_by", "prompt_id", "sample_index"]
    own = found.samples.rename(columns={"model_id": "sampled_by", "logp": "drawn"})
    rows = found.logps.merge(own[[*keys, "drawn"]], on=keys)
    is_policy = rows["sampled_by"] == dpo.model.model_id
    assert rows["logp"][is_policy].to_numpy() == pytest.approx(rows["drawn"][is_policy], abs=1e-3)
    assert rows["ref_logp"][~is_policy].to_numpy() == pytest.approx(
        rows["drawn"][~is_policy], abs=1e-3
    )
    assert (rows["logp"] - rows["ref_logp"]).abs().max() > 0.01


def test_a_policy_that_is_its_reference_gives_ratio_zero(dpo, pairs, work) -> None:
    same = replace(dpo, model=dpo.reference)
    rows = third_answers([same], pairs, SETTINGS, HF, work).logps
    assert len(rows) and np.abs(rows["logp"] - rows["ref_logp"]).max() == 0.0


def test_a_second_call_starts_no_engine(found, dpo, pairs, work, engine_starts) -> None:
    again = third_answers([dpo], pairs, SETTINGS, HF, work)
    pd.testing.assert_frame_equal(again.logps, found.logps)
    assert engine_starts == []


def test_answers_of_the_pair_are_recognised_by_text() -> None:
    pairs = pd.DataFrame(
        {"prompt_id": ["a", "b"], "chosen": ["yes", "no"], "rejected": ["no", "x"]}
    )
    samples = pd.DataFrame(
        {"prompt_id": ["a", "a", "a", "b", "b"], "response": ["yes ", "no", "x", "no", "yes"]}
    )
    assert which_answer(samples, pairs).tolist() == [
        "chosen", "rejected", "third", "chosen", "third",
    ]  # fmt: skip


def test_cut_answers_are_said(found) -> None:
    cut = (found.samples["finish_reason"] == "length").sum()
    assert cut and any(f"{cut} of {len(found.samples)} sampled" in note for note in found.notes)


def test_another_temperature_is_refused(dpo, pairs, work) -> None:
    with pytest.raises(EngineError, match=r"drawn at temperature 1 and top_p 1, got 0.7"):
        third_answers([dpo], pairs, SamplingSettings(1, 4, temperature=0.7), HF, work)


def test_a_model_without_reference_is_left_out_and_said(dpo, pairs, tmp_path: Path) -> None:
    work = Work(RowStore(tmp_path), tmp_path / "merged")
    found = third_answers([replace(dpo, reference=None)], pairs, SETTINGS, HF, work)
    assert found.tables() == {}
    assert found.notes == (f"{dpo.model.name} has no reference: no third answers were drawn.",)


def test_a_judge_without_answers_is_refused() -> None:
    from dpo_diag.costs.sandbox_harm import COST

    with pytest.raises(DataError, match="--cost judges sampled answers; give --answers N"):
        Further(0, 8, (COST(),))
    with pytest.raises(DataError, match="two costs are called sandbox_harm"):
        Further(1, 8, (COST(), COST()))
