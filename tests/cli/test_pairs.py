"""`dpo-diag pairs` as a user types it."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from dpo_diag.pairs import read_pairs


def written(path: Path, rows: list[tuple]) -> Path:
    keys = ("prompt", "chosen", "rejected", "split")
    lines = [json.dumps(dict(zip(keys, row, strict=True))) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [(f"prompt {k}", f"good {k} \x1b[31m", f"bad {k}", "train") for k in range(30)]
    rows += [*rows[:4], ("prompt 9", "bad 9", "good 9 \x1b[31m", "train")]
    rows += [("prompt 3", "new", "old", "test"), ("far away", "new", "old", "test")]
    return written(tmp_path / "my prefs.jsonl", rows)


def test_screen_is_ranked_escaped_and_says_what_to_do(cli: Callable, data: Path) -> None:
    done = cli("pairs", data)
    assert done.status == 0 and "\x1b" not in done.out + done.err
    order = ["37 pairs on 31 prompts", "Repair before training", "Nothing found", "Not checked"]
    shown = " ".join(done.out.split())
    places = [shown.index(words) for words in order]
    assert places == sorted(places)
    assert f"dpo-diag pairs '{data}' --write-clean" in shown
    assert "--model BASE" in done.out


def test_report_folder_is_complete_and_rendered_again(cli: Callable, data: Path, tmp_path) -> None:
    out = tmp_path / "report"
    assert cli("pairs", data, "--out", out).status == 0
    rows = pd.read_parquet(out / "rows" / "PairRows.parquet")
    flagged = pd.read_parquet(out / "rows" / "FlaggedRows.parquet")
    assert len(rows) == 37 and {"duplicates", "contradictions", "leakage"} <= set(flagged["reason"])
    assert "What to do" in (out / "report.md").read_text(encoding="utf-8")
    again = cli("report", out)
    assert again.status == 0 and "copied_pairs" in again.out


def test_json_and_gate(cli: Callable, data: Path) -> None:
    done = cli("pairs", data, "--json", "--fail-if", "copied_pairs.estimate > 0.05")
    assert done.status == 3 and "gate failed" in done.err
    statistics = {row["statistic"] for row in json.loads(done.out)}
    assert {"copied_pairs", "leaked_prompts", "word_model_accuracy"} <= statistics
    assert cli("pairs", data, "--fail-if", "cyclic_pairs.estimate > 0.5").status == 0


def test_clean_file_is_written_and_accounted_for(cli: Callable, data: Path, tmp_path) -> None:
    clean = tmp_path / "clean.jsonl"
    done = cli("pairs", data, "--write-clean", clean, "--drop", "leakage")
    assert done.status == 0
    assert "4 duplicates" in done.err and "2 contradictions" in done.err and "leakage" in done.err
    assert len(read_pairs(clean).frame) == 37 - 4 - 2 - 1


def test_separate_test_set(cli: Callable, data: Path, tmp_path) -> None:
    other = written(tmp_path / "test.jsonl", [("prompt 1", "n", "o", "train")])
    done = cli("pairs", data, "--test", other, "--json")
    found = {r["statistic"]: r for r in json.loads(done.out) if r["slice"] == "all"}
    assert found["leaked_prompts"]["n"] == 3


def test_a_base_model_predicts(cli: Callable, world) -> None:
    done = cli("pairs", world.pairs, "--model", world.base, "--engine", "hf", "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    models = {r["model_id"] for r in found if r["statistic"] == "base_ranking_accuracy"}
    assert len(models) == 1 and models != {Path(world.pairs).name}
    ches = next(r for r in found if r["statistic"] == "mean_ches_per_token")
    assert ches["n"] > 0 and ches["estimate"] is not None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--drop", "leakage"), "--write-clean"),
        (("--write-clean", "x.txt"), ".jsonl"),
        (("--write-clean", "x.jsonl", "--drop", "typos"), "typos"),
        (("--slices", "domain"), "--slices"),
        (("--beta", "-1"), "--beta"),
    ],
)
def test_contradicting_options_are_refused_in_a_sentence(cli, data, arguments, words) -> None:
    done = cli("pairs", data, *arguments)
    assert done.status == 1 and words in done.sentence()


def test_the_data_themselves_are_never_overwritten(cli: Callable, data: Path) -> None:
    before = data.read_bytes()
    done = cli("pairs", data, "--write-clean", data)
    assert "another file" in done.sentence() and data.read_bytes() == before


def test_columns_of_no_format_are_refused(cli: Callable, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "x"}\n')
    assert "no known format" in cli("pairs", path).sentence()
