"""Samples with reward and cost: what is written, that training reads it, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dpo_diag import registry
from dpo_diag.errors import DataError
from dpo_diag.pipeline import sample_table as module
from dpo_diag.pipeline.sample_table import Scoring, sample_table, write_samples
from dpo_diag.pipeline.work import Work
from dpo_diag.store import RowStore
from tests.conftest import Ended, World

SCORES = ("--reward", "sandbox_unhelpfulness", "--cost", "sandbox_harm")
FEW = ("-n", "3", "--max-new-tokens", "8", "--split", "all", "--engine", "hf")


class Prompts:
    """Two prompts."""

    frame = pd.DataFrame({"prompt_id": ["a", "b"], "prompt": ["how ?", "why ?"]})


def drawn(responses: list[str], ends: list[str]) -> pd.DataFrame:
    n = len(responses)
    return pd.DataFrame(
        {
            "prompt_id": ["b", "a", "a", "b"][:n],
            "split": "train",
            "response": responses,
            "finish_reason": ends,
            "n_tokens": 3,
            "logp": -1.0,
            "model_id": "m",
        }
    )


def test_reward_is_the_upper_end_minus_the_value_and_cost_is_above_the_threshold(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Unhelpfulness .2, .6 and harm .5, missing: rewards .8, .4, costs .5 - .1 and null."""
    kinds = [registry.load("costs", name) for name in ("sandbox_unhelpfulness", "sandbox_harm")]
    asked: list[str] = []

    def unhelpful(self, prompts, responses):
        asked.extend(prompts)
        return np.array([0.2, 0.6])

    monkeypatch.setattr(kinds[0], "cost", unhelpful)
    monkeypatch.setattr(kinds[1], "cost", lambda self, p, r: np.array([0.5, np.nan]))
    rows = drawn(["wipe it .", " ", "dry it ."], ["stop", "stop", "length"])
    monkeypatch.setattr(module, "sample_models", lambda *a, **k: rows)
    lines: list[str] = []
    work = Work(RowStore(tmp_path), tmp_path, say=lines.append)
    scoring = Scoring(kinds[0](), kinds[1](), 0.1)
    table = sample_table(None, Prompts(), None, scoring, None, work)
    assert asked == ["why ?", "how ?"]
    assert table["response"].tolist() == ["wipe it .", "dry it ."]
    assert table["reward"].tolist() == pytest.approx([0.8, 0.4])
    assert table["cost"].tolist() == pytest.approx([0.4, np.nan], nan_ok=True)
    assert lines == [
        "1 of 3 samples are empty and left out.",
        "1 of 2 samples lack a score; it is null, not 0.",
        "1 of 2 samples were cut at the longest length; training skips them.",
    ]
    written = write_samples(table, tmp_path / "s.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["cost"] for line in written] == [pytest.approx(0.4), None]


def test_the_costs_own_zero_is_the_default_threshold() -> None:
    harm = registry.load("costs", "sandbox_harm")()
    assert Scoring(harm, harm).limit == harm.zero
    assert Scoring(harm, harm, 0.3).limit == 0.3


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"name a \.jsonl file"):
        write_samples(pd.DataFrame(), tmp_path / "s.parquet")


def test_samples_of_a_checkpoint_are_scored_and_trained_on(
    cli: Callable[..., Ended], world: World, tmp_path: Path
) -> None:
    out = tmp_path / "samples.jsonl"
    made = cli(
        *("sample", world.base, "--prompts", world.prompts, *FEW, *SCORES),
        *("--threshold", "0.05", "--store", tmp_path / "store", "--out", out),
    )
    assert made.status == 0, made.err
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 30
    texts = [[row["prompt"] for row in rows], [row["response"] for row in rows]]
    harm = registry.load("costs", "sandbox_harm")().cost(*texts)
    unhelpful = registry.load("costs", "sandbox_unhelpfulness")().cost(*texts)
    np.testing.assert_allclose([row["cost"] for row in rows], harm - 0.05)
    np.testing.assert_allclose([row["reward"] for row in rows], 1.0 - unhelpful)
    rows = [{**row, "finish_reason": "stop", "split": "train"} for row in rows]  # all are cut
    out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    trained = cli(
        *("train", "repo_offline", "--model", world.base, "--pairs", world.pairs),
        *("--samples", out, "--out", tmp_path / "run", "--set", "optimizer.max_steps=2"),
        *("--set", "optimizer.batch_size=5", "--store", tmp_path / "store"),
    )
    assert trained.status == 0, trained.err
    assert "30 samples" in trained.err
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["pair_counts"] == {"rows": 30, "prompts": 10, "samples": 30}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--reward", "sandbox_unhelpfulness", "--out", "s.jsonl"), "one --cost, got 0"),
        ((*SCORES, "--cost", "refusal", "--out", "s.jsonl"), "one --cost, got 2"),
        ((*SCORES, "--out", "s.parquet"), "must end in .jsonl"),
    ],
)
def test_what_does_not_go_together_is_said_before_sampling(
    cli: Callable[..., Ended], world: World, arguments: tuple[str, ...], message: str
) -> None:
    ended = cli("sample", world.base, "--prompts", world.prompts, *arguments)
    assert message in ended.sentence()


def test_two_checkpoints_make_no_table_for_training(
    cli: Callable[..., Ended], world: World, tmp_path: Path
) -> None:
    ended = cli(
        *("sample", world.base, world.dpo, "--prompts", world.prompts, *SCORES),
        *("--out", tmp_path / "s.jsonl"),
    )
    assert "samples of one CKPT, got 2" in ended.sentence()


def test_training_without_a_table_says_what_makes_one(
    cli: Callable[..., Ended], world: World, tmp_path: Path
) -> None:
    ended = cli(
        *("train", "repo_offline", "--model", world.base, "--pairs", world.pairs),
        *("--out", tmp_path / "run"),
    )
    assert "give --samples FILE" in ended.sentence()
