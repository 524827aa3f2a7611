"""``dpo-diag winrates`` as a user types it: report, rows, reuse, refusals."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dpo_diag.tables import WIN_RATES, read_table

ORACLES = ("--oracle", "sandbox_group:group=helpful", "--oracle", "sandbox_group:group=cautious")
DRAWS = ("-n", "4", "--max-new-tokens", "10", "--engine", "hf")


@pytest.fixture(scope="module")
def done(world, cli, tmp_path_factory):
    out = tmp_path_factory.mktemp("winrates")
    command = ("winrates", world.dpo, world.safedpo, "--prompts", world.prompts, *ORACLES, *DRAWS)
    ended = cli(*command, "--store", out / "store", "--out", out / "report")
    assert ended.status == 0, ended.err
    return out, command, ended


def test_opponent_is_the_reference_and_every_model_meets_every_group(done, world) -> None:
    out, _, ended = done
    rows = read_table(out / "report" / "rows" / "WinRates.parquet", WIN_RATES)
    against = rows[rows["kind"] == "against"]
    assert "Win rates are against the reference base" in ended.err
    assert against["opponent_id"].nunique() == 1
    assert against["opponent_id"].iloc[0].startswith("base")
    assert len(against) == 3 * 3 * 10  # models, two groups and their mean, prompts
    opponent = against[against["model_id"] == against["opponent_id"]]
    assert len(opponent) == 30
    np.testing.assert_allclose(opponent["win_rate"], 0.5, atol=1e-12)


def test_report_shows_the_worst_group_and_its_figures(done) -> None:
    out, _, ended = done
    findings = pd.read_csv(out / "report" / "findings.csv")
    assert {"win_rate", "worst_group_win_rate", "exploitability_pool"} <= set(findings["statistic"])
    report = (out / "report" / "report.md").read_text()
    assert "Whom does the model serve" in report and "the worst group is" in report
    assert {p.stem for p in (out / "report" / "figures").glob("*.svg")} >= {"exploitability"}
    assert re.search(r"worst", ended.out, re.IGNORECASE)


def test_a_second_run_samples_nothing_and_says_the_same(done, cli, engine_starts) -> None:
    out, command, _ = done
    again = cli(*command, "--store", out / "store", "--out", out / "again")
    assert again.status == 0 and engine_starts == []
    for name in ("findings.csv", "report.md", "cases.csv"):
        assert (out / "again" / name).read_bytes() == (out / "report" / name).read_bytes()


def test_a_named_opponent_among_the_checkpoints_is_not_drawn_twice(world, cli, tmp_path) -> None:
    ended = cli(
        *("winrates", world.dpo, world.safedpo, "--against", world.safedpo, *DRAWS, *ORACLES[:2]),
        *("--prompts", world.prompts, "--limit", "3", "--store", tmp_path, "--out", tmp_path / "o"),
    )
    assert ended.status == 0, ended.err
    rows = read_table(tmp_path / "o" / "rows" / "WinRates.parquet", WIN_RATES)
    assert rows["model_id"].nunique() == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --oracle NAME; there are .*sandbox_group"),
        (("--oracle", "sandbox_grup:group=helpful"), "Did you mean 'sandbox_group'"),
        (("--oracle", "sandbox_group"), "needs the parameter 'group'"),
        (("--oracle", "sandbox_group:group=kind"), "no annotator group 'kind'"),
        ((*ORACLES[:2], *ORACLES[:2]), "two oracles are called sandbox_group.helpful"),
        ((*ORACLES, "--slices", "intent"), "--slices does not apply"),
    ],
)
def test_wrong_usage_is_one_sentence(world, cli, tmp_path: Path, arguments, message: str) -> None:
    ended = cli(
        *("winrates", world.dpo, "--prompts", world.prompts, "--store", tmp_path),
        *(arguments if arguments else ()),
    )
    assert ended.status == 1 and re.search(message, ended.err), ended.err


def test_a_model_without_reference_needs_an_opponent(world, cli, tmp_path: Path) -> None:
    ended = cli(
        *("winrates", world.base, "--prompts", world.prompts, *ORACLES, "--store", tmp_path)
    )
    assert ended.status == 1 and "give --against CKPT" in ended.err
