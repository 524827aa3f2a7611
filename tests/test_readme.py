"""The README tells the truth: its generated blocks are current and its commands run."""

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from dpo_diag.cli.main import group

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def shell_lines() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line]


def test_generated_blocks_are_up_to_date() -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("readme_blocks", ROOT / "tests/readme_blocks.py")
    blocks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(blocks)
    assert blocks.rendered(README) == README, "run python tests/readme_blocks.py"


@pytest.mark.parametrize("line", [x for x in shell_lines() if x.startswith("make ")])
def test_make_targets_of_the_readme_exist(line: str) -> None:
    target = line.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("line", [x for x in shell_lines() if x.startswith("dpo-diag ")])
def test_commands_of_the_readme_parse(line: str) -> None:
    """Every option in the README exists: a wrong one is a usage error, status 2."""
    words = shlex.split(line)[1:]
    command = group.get_command(None, words[0])
    assert command is not None, words[0]
    command.make_context(words[0], words[1:])


@pytest.fixture
def as_written(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the names that the README uses lead to the small world."""
    from dpo_diag.costs.classifier import example_parameters

    names = {"ckpt": world.dpo, "dpo": world.dpo, "base": world.base, "safedpo": world.safedpo}
    names |= {"prefs.jsonl": world.pairs, "para.jsonl": world.shifted}
    names |= {"prompts.jsonl": world.prompts, "few.jsonl": world.pairs, "train": ROOT / "train"}
    names |= {"new.jsonl": world.prompts, "run-0": world.dpo, "run-1": world.safedpo}
    names |= {"outputs/my-dpo-run": world.dpo}
    (tmp_path / "outputs").mkdir()
    for name, target in names.items():
        (tmp_path / name).symlink_to(target)
    rows = [json.loads(line) for line in world.pairs.read_text(encoding="utf-8").splitlines()]
    answers = [{"prompt": row["prompt"], "response": row["rejected"]} for row in rows]
    text = "".join(json.dumps(row) + "\n" for row in answers)
    (tmp_path / "answers.jsonl").write_text(text, encoding="utf-8")
    benched = [
        {key: row[key] for key in ("prompt", "chosen", "rejected")}
        | {"subset": "alpacaeval-easy", "id": number, "chosen_model": "a", "rejected_model": "b"}
        for number, row in enumerate(rows[:4])
    ]
    text = "".join(json.dumps(row) + "\n" for row in benched)
    (tmp_path / "reward-bench.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "guard").mkdir()
    example_parameters(tmp_path / "guard")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def runnable() -> list[str]:
    """All but the grid, which takes hours, and a judge model: a random one decides nothing.

    tests/pipeline/test_grid.py and tests/pipeline/test_judge.py run both in small.
    """
    left_out = ("demo variants", "language_model")
    lines = [x for x in shell_lines() if x.startswith("dpo-diag ")]
    return [x for x in lines if not any(part in x for part in left_out)]


@pytest.mark.parametrize("line", runnable())
def test_commands_of_the_readme_run(line: str, as_written: Path, cli) -> None:
    """Each as it stands, but for a store of its own, the engine and how many samples."""
    words = shlex.split(line)[1:]
    quick = ["--samples", "2", "--confirm", "4"] if words[0] == "safety" else []
    known = {option for p in group.get_command(None, words[0]).params for option in p.opts}
    settings = {"--engine": "hf", "--store": as_written / "store"}
    quick += [x for name, value in settings.items() if name in known for x in (name, value)]
    ended = cli(*words, *quick)
    expected = {0, 3} if "--fail-if" in words else {0}
    assert ended.status in expected, ended.err
    assert ended.out


@pytest.mark.parametrize("path", re.findall(r"\]\(((?!http)[^)#]+)\)", README))
def test_links_of_the_readme_lead_somewhere(path: str) -> None:
    assert (ROOT / path).exists()


def test_help_is_the_same_without_a_terminal() -> None:
    assert CliRunner().invoke(group, ["--help"]).exit_code == 0
