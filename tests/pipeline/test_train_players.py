"""``dpo-diag train`` with a recipe of players: from options to folders that other commands read."""

import json
from pathlib import Path

import pytest

from dpo_diag.checkpoints import resolve_checkpoint
from dpo_diag.errors import RecipeError
from dpo_diag.pipeline.train import run_training
from dpo_diag.pipeline.work import Work
from dpo_diag.store import RowStore
from tests.training.conftest import make_pairs, write_tiny_model

GAME = """
[variant]
name = "mnpo"
history_weights = [1.0]
[players]
rounds = 1
oracles = {ann = {cost = "sandbox_unhelpfulness"}, bob = {cost = "refusal"}}
[optimizer]
learning_rate = 1e-3
batch_size = 4
max_steps = 1
[online]
oracle = "cost"
oracle_parameters = {scale = 0.01}
prompts_per_round = 8
samples_per_prompt = 8
max_new_tokens = 8
pairing = "sampled"
"""


@pytest.fixture
def options(tmp_path: Path) -> dict[str, object]:
    (tmp_path / "game.toml").write_text(GAME, encoding="utf-8")
    make_pairs().frame.to_json(tmp_path / "pairs.jsonl", orient="records", lines=True)
    return {
        "recipe": str(tmp_path / "game.toml"),
        "model": str(write_tiny_model(tmp_path / "base")),
        "reference": None,
        "pairs": str(tmp_path / "pairs.jsonl"),
        "pair_format": "auto",
        "label": "better",
        "drop_invalid": False,
        "out": tmp_path / "out",
        "seed": 3,
        "overrides": (),
        "resume": False,
    }


def test_players_end_as_run_folders_and_nothing_is_promised(
    options: dict[str, object], tmp_path: Path
) -> None:
    said: list[str] = []
    work = Work(RowStore(tmp_path / "store"), tmp_path / "merged", said.append)
    out = run_training(options, work)
    assert any("no convergence or Nash guarantee" in line for line in said)
    start = resolve_checkpoint(options["model"]).model.fingerprint
    for name in ("ann", "bob"):
        checkpoint = resolve_checkpoint(out / name)
        assert checkpoint.model.fingerprint != start
    (only,) = json.loads((out / "players.json").read_text(encoding="utf-8"))["rounds"]
    assert only["players"]["ann"]["oracle"].startswith("cost(cost='sandbox_unhelpfulness'")
    assert only["players"]["bob"]["oracle"].startswith("cost(cost='refusal'")


def test_a_game_without_a_model_asks_for_one(options: dict[str, object], tmp_path: Path) -> None:
    work = Work(RowStore(tmp_path / "store"), tmp_path / "merged")
    with pytest.raises(RecipeError, match="give --model"):
        run_training({**options, "model": None}, work)
