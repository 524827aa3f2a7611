"""``dpo-diag train`` as it is typed: what is refused, what is resumed, what the folder then is."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dpo_diag.checkpoints import fingerprint

QUICK = (
    *("--set", "optimizer.learning_rate=0.001", "--set", "optimizer.batch_size=8"),
    *("--set", "optimizer.max_steps=6", "--set", "log.save_every=2"),
)


@pytest.fixture
def train(world, cli: Callable, tmp_path: Path) -> Callable:
    """Trains dpo from the small base into ``run``, or what the options say instead."""

    def run(*options: str | Path, recipe: str | Path = "dpo", out: str = "run"):
        return cli(
            *("train", recipe, "--model", world.base, "--pairs", world.pairs),
            *("--out", tmp_path / out, *QUICK, *options),
        )

    return run


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--set", "variant.betta=0.2"), ("no hyper-parameter 'betta'", "beta")),
        (("--set", "variant.beta=-1"), ("beta must be greater than 0", "-1")),
        (("--set", "variant.beta=0"), ("beta must be greater than 0",)),
        (("--set", "variant.beta=much"), ("variant.beta", "float", "'much'")),
        (("--set", "varint.beta=0.2"), ("unknown section [varint]", "Did you mean 'variant'?")),
        (("--set", "optimizer.learning_rte=1"), ("Did you mean 'learning_rate'?",)),
        (("--set", "optimizer.learning_rate=0"), ("learning_rate must be greater than 0",)),
        (("--set", "beta"), ("SECTION.KEY=VALUE",)),
        (("--set", "run.device=cuda"), ("no GPU", "cpu")),
        (("--pairs", "nowhere.jsonl"), ("nowhere.jsonl",)),
        (("--model", "nowhere/at/all/"), ("nowhere/at/all",)),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(options, named, train, tmp_path) -> None:
    sentence = train(*options).sentence()
    assert all(word in sentence for word in named), sentence
    assert not (tmp_path / "run" / "trainer_state.json").exists()


def test_an_unknown_variant_names_the_nearest(train) -> None:
    assert "Did you mean 'safedpo'?" in train(recipe="safedp").sentence()


def test_no_model_asks_for_one(world, cli, tmp_path) -> None:
    sentence = cli("train", "dpo", "--pairs", world.pairs, "--out", tmp_path).sentence()
    assert "--model" in sentence


def test_a_variant_whose_name_is_a_folder_here_is_still_a_variant(
    train, tmp_path, monkeypatch
) -> None:
    (tmp_path / "dpo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert train("--set", "optimizer.max_steps=1").status == 0


def test_labels_that_a_variant_needs(world, cli, tmp_path) -> None:
    rows = [json.loads(line) for line in world.pairs.read_text().splitlines()]
    columns = ("prompt", "chosen", "rejected", "split")
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps({k: r[k] for k in columns}) + "\n" for r in rows))
    sentence = cli(
        "train", "safedpo", "--model", world.base, "--pairs", file, "--out", tmp_path / "run"
    ).sentence()
    assert "is_chosen_safe" in sentence


def test_a_run_is_neither_overwritten_nor_mixed_with_another(train, tmp_path) -> None:
    assert train().status == 0
    before = fingerprint(tmp_path / "run")
    sentence = train().sentence()
    assert "already holds a run" in sentence and "--resume" in sentence
    done = train("--resume")
    assert done.status == 0
    assert fingerprint(tmp_path / "run") == before


def test_a_stopped_run_resumes_to_the_same_bits(train, tmp_path, monkeypatch) -> None:
    """Stopped by Ctrl-C in step 5 of 6, resumed from checkpoint-4."""
    from dpo_diag.training import loop

    assert train(out="whole").status == 0
    real = loop._Run.step

    def stopped(self) -> None:
        if self.step_number == 4:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(loop._Run, "step", stopped)
    ended = train()
    assert ended.status == 130 and "Traceback" not in ended.err
    monkeypatch.setattr(loop._Run, "step", real)
    steps = sorted(p.name for p in (tmp_path / "run").glob("checkpoint-*"))
    assert steps == ["checkpoint-2", "checkpoint-4"]

    assert "--resume" in train().sentence()
    other = train("--resume", "--set", "variant.beta=0.5").sentence()
    assert "recipe" in other
    resumed = train("--resume")
    assert resumed.status == 0, resumed.err
    assert resumed.out.strip() == str(tmp_path / "run")
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")
    logs = [
        json.loads((tmp_path / name / "trainer_state.json").read_text())["log_history"]
        for name in ("run", "whole")
    ]
    times = ("seconds", "runtime", "per_second")

    def kept(log: list[dict]) -> list[dict]:
        return [{k: v for k, v in row.items() if not any(t in k for t in times)} for row in log]

    assert kept(logs[0]) == kept(logs[1]) and logs[0][-1]["step"] == 6


def test_a_saved_recipe_makes_the_same_run_again(train, tmp_path) -> None:
    assert train("--set", "variant.beta=0.2", out="first").status == 0
    recipe = tmp_path / "first" / "recipe.toml"
    assert "beta = 0.2" in recipe.read_text()
    assert train(recipe=recipe, out="again").status == 0
    assert fingerprint(tmp_path / "again") == fingerprint(tmp_path / "first")


def test_lora_writes_an_adapter_that_the_commands_read(world, cli, train, tmp_path) -> None:
    pytest.importorskip("peft")
    assert train("--set", "lora.rank=2").status == 0
    assert (tmp_path / "run" / "adapter_config.json").is_file()
    ended = cli("reversals", tmp_path / "run", "--pairs", world.pairs, "--store", tmp_path / "s")
    assert ended.status == 0, ended.err
    assert "reference: " in ended.err and "beta: 0.1" in ended.err


def test_answers_without_preferences_come_by_option(train, tmp_path) -> None:
    answers = tmp_path / "answers.jsonl"
    row = {"prompt": "how do i clean the stove ?", "response": "wipe the burner ."}
    answers.write_text(json.dumps(row) + "\n", encoding="utf-8")
    run = train("--unlabelled", answers, recipe="sspo")
    assert run.status == 0, run.err
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["pair_counts"]["unlabelled"] == 1


def test_a_variant_without_its_answers_or_column_says_what_it_needs(train) -> None:
    assert "--unlabelled FILE" in train(recipe="sspo").sentence()
    sentence = train(recipe="semidpo_port").sentence()
    assert "judge_agreement" in sentence
    assert "panel.jsonl" in sentence
