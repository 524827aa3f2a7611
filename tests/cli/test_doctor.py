"""The command: what it prints, its gate, its report, and texts that a terminal would obey."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.run_formats.folders import CHATML, Planted, some_pairs

COMMAND = "\x1b]0;owned\x07\x1b[31m"


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    return Planted("trl").write(tmp_path / "healthy")


@pytest.fixture
def ill(tmp_path: Path) -> Path:
    """A tokenizer without EOS (an error) and a beta of 10 (a warning)."""
    run = Planted("trl")
    run.settings["beta"] = 10.0
    del run.tokenizer["eos_token"]
    return run.write(tmp_path / "ill")


def test_healthy_run_is_told_so(cli: Callable, healthy: Path) -> None:
    ended = cli("doctor", healthy)
    assert ended.status == 0, ended.err
    assert ended.out.startswith("healthy: nothing found\n")
    assert "read as a run of TRL: 45 log rows" in ended.out
    assert "checkpoints 100, 200, a final model" in " ".join(ended.out.split())
    assert "training_args.bin: a pickle" in ended.out
    assert "Looked for and not found: " in ended.out


def test_findings_are_ranked_with_evidence_meaning_fix_and_source(cli: Callable, ill: Path) -> None:
    ended = cli("doctor", ill)
    assert ended.status == 0, ended.err
    assert ended.out.startswith("ill: 1 error, 1 warning\n")
    first, second = ended.out.index("1. [error, certain] "), ended.out.index("2. [warning, ")
    assert first < second
    for label in ("evidence: ", "it means: ", "fix: ", "rule from "):
        assert ended.out.count(label) == 2
    assert "missing_eos in tokenizer_config.json" in ended.out


@pytest.mark.parametrize(
    ("run", "limit", "status"),
    [("ill", "error", 3), ("ill", "warning", 3), ("healthy", "warning", 0), ("ill", None, 0)],
)
def test_gate_is_the_worst_finding(
    cli: Callable, request: pytest.FixtureRequest, run: str, limit: str | None, status: int
) -> None:
    path = request.getfixturevalue(run)
    ended = cli("doctor", path, *(("--fail-on", limit) if limit else ()))
    assert ended.status == status
    assert ("gate failed: The tokenizer has no EOS token." in ended.err) == (status == 3)


def test_warning_passes_a_gate_for_errors(cli: Callable, tmp_path: Path) -> None:
    run = Planted("trl")
    run.settings["beta"] = 10.0
    path = run.write(tmp_path / "run")
    assert cli("doctor", path, "--fail-on", "error").status == 0
    assert cli("doctor", path, "--fail-on", "warning").status == 3


def test_json_is_the_diagnosis_and_nothing_else(cli: Callable, ill: Path) -> None:
    ended = cli("doctor", ill, "--json")
    value = json.loads(ended.out)
    assert value["format"] == "trl" and value["worst"] == "error"
    assert [finding["symptom"] for finding in value["findings"]] == ["missing_eos", "beta_range"]
    assert value["settings"]["beta"] == {"value": 10.0, "source": "dpo_config.yaml"}
    assert value["log"] == {"source": "trainer_state.json", "rows": 45}
    assert "not_finite" in value["passed"]
    assert {"symptom": "template_prefix", "lacking": "there is no chat template"} in value[
        "not_examined"
    ]


def test_report_lists_what_was_read_and_what_could_not_be(
    cli: Callable, ill: Path, tmp_path: Path
) -> None:
    (ill / "special_tokens_map.json").write_text("{", encoding="utf-8")
    ended = cli("doctor", ill, "--out", tmp_path / "new" / "diagnosis.md")
    assert ended.status == 0 and "Wrote " in ended.err
    text = (tmp_path / "new" / "diagnosis.md").read_text(encoding="utf-8")
    assert text.startswith("# ill: 1 error, 2 warnings\n")
    for part in ("## What was read", "## What could not be read", "## Looked for and not found"):
        assert part in text
    assert "| beta | 10.0 | dpo\\_config.yaml |" in text
    assert "special\\_tokens\\_map.json: cannot be read as JSON" in text


def test_pairs_and_test_are_compared(cli: Callable, healthy: Path, tmp_path: Path) -> None:
    for name, rows in (("train", some_pairs(40)), ("test", some_pairs(5))):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    arguments = ("--pairs", tmp_path / "train.jsonl", "--test", tmp_path / "test.jsonl")
    ended = cli("doctor", healthy, *arguments)
    assert "1. [error, certain] Prompts of the test pairs are in the training pairs" in ended.out
    assert "5 of 5 test prompts" in ended.out


def test_test_pairs_alone_are_one_sentence(cli: Callable, healthy: Path) -> None:
    assert "give --pairs too" in cli("doctor", healthy, "--test", "x.jsonl").sentence()


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_no_run_is_one_sentence(cli: Callable, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    sentence = cli("doctor", tmp_path / name).sentence()
    assert "give the output folder of a training run" in sentence


def test_broken_state_is_named_and_the_rest_is_examined(cli: Callable, tmp_path: Path) -> None:
    run = Planted("trl")
    run.files["trainer_state.json"] = '{"log_history": [{"step": 1, "lo'
    ended = cli("doctor", run.write(tmp_path / "run"))
    assert ended.status == 0
    assert "1. [error, certain] The training log is broken." in ended.out
    assert "trainer_state.json: cannot be read as JSON" in ended.out


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_hostile_texts_are_harmless(cli: Callable, tmp_path: Path, how: tuple[str, ...]) -> None:
    run = Planted("trl")
    run.settings |= {
        "loss_type": f"si{COMMAND}mpo",
        "beta": f"{COMMAND}",
        "ref_model": COMMAND * 90,
    }
    run.template = CHATML.replace("assistant\n{%", f"assistant\n{COMMAND}{{%")
    run.tokenizer["eos_token"] = f"<{COMMAND}eos>"
    run.rows[0]["loss"] = COMMAND
    run.rows[1][f"rew{COMMAND}"] = "x"
    run.rows[2]["loss"] = 10**400
    ended = cli("doctor", run.write(tmp_path / f"run{COMMAND}x"), "--out", tmp_path / "d.md", *how)
    assert ended.status == 0, ended.err
    report = (tmp_path / "d.md").read_text(encoding="utf-8")
    for text in (ended.out, ended.err, report):
        assert not set("\x1b\x07\x9b") & set(text)


def test_markup_in_a_setting_is_not_markup_in_the_report(cli: Callable, tmp_path: Path) -> None:
    run = Planted("trl")
    run.settings["loss_type"] = "<script>alert(1)</script>|[x](http://a.b)"
    path = run.write(tmp_path / "run")
    cli("doctor", path, "--out", tmp_path / "d.md")
    report = (tmp_path / "d.md").read_text(encoding="utf-8")
    assert "[x](" not in report and "&lt;script&gt;" in report
    assert "<script" not in report
