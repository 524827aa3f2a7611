"""The command line as a contract: every command helps, wrong usage has its own status."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from dpo_diag.cli.main import group, main

COMMANDS = sorted(
    p.stem
    for p in (Path(__file__).parents[2] / "dpo_diag" / "cli").glob("*.py")
    if p.stem not in {"main", "options"} and not p.stem.startswith("_")
)


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out, shown.err


def test_there_are_the_commands_of_the_readme() -> None:
    assert {"reversals", "ood", "safety", "compare", "report", "train", "demo"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_answers_help(name: str) -> None:
    shown = CliRunner().invoke(group, [name, "--help"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith("Usage:")


def test_help_lists_every_command() -> None:
    shown = CliRunner().invoke(group, ["--help"]).output
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_unknown_command_names_the_nearest_and_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(["reversal"], capsys)
    assert status == 2
    assert "Did you mean 'reversals'?" in err


@pytest.mark.parametrize(
    "family", ["variants", "analyzers", "costs", "engines", "oracles", "selectors"]
)
def test_show_lists_a_family(family: str) -> None:
    shown = CliRunner().invoke(group, ["show", family])
    assert shown.exit_code == 0
    assert len(shown.output.splitlines()) >= 2


def test_unknown_variant_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(["show", "variants", "safdpo"], capsys)
    assert status == 1
    assert err.startswith("dpo-diag: No variant called 'safdpo'. Did you mean 'safedpo'?")


def test_missing_checkpoint_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(["reversals", "nowhere/at-all/", "--pairs", "x.jsonl"], capsys)
    assert status == 1 and out == ""
    assert err.count("\n") == 1 and "nowhere/at-all" in err


def test_module_form_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dpo_diag", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.startswith("dpo-diag, version ")


def test_a_reader_that_leaves_early_sees_no_traceback() -> None:
    """``dpo-diag show costs | head -1``: quiet, and no signal that could kill a longer run."""
    command = f"{sys.executable} -m dpo_diag show costs | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
