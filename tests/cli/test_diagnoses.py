"""The analysing commands as a user types them: rows, reports, reuse, gates."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from dpo_diag import tables

SAMPLING = ("-n", "4", "--finalists", "2", "--confirm", "8", "--max-new-tokens", "12")
HEADLINE = (
    "reward_accuracy",
    "ranking_accuracy",
    "ranking_accuracy_per_token",
    "reversal_rate",
    "broken_rate",
    "fixed_rate",
    "displacement_rate",
)


@dataclass(frozen=True)
class Done:
    """A command that ran twice on one store, and where its reports are."""

    command: tuple[str, ...]
    first: Path
    again: Path
    ended: object
    engines: list[str]
    engines_again: list[str]

    def findings(self) -> pd.DataFrame:
        return pd.read_csv(self.first / "findings.csv", keep_default_na=False, na_values=[""])

    def value(self, statistic: str, **where: str) -> float:
        rows = self.findings()
        rows = rows[(rows["statistic"] == statistic) & (rows["slice"] == "all")]
        rows = rows[rows["baseline_id"].isna()]
        for column, start in where.items():
            rows = rows[rows[column].str.startswith(start)]
        assert len(rows) == 1, rows
        return float(rows["estimate"].iloc[0])


COMMANDS = {
    "reversals": lambda w: ("reversals", w.dpo, "--pairs", w.pairs, "--engine", "hf"),
    "ood": lambda w: (
        *("ood", w.dpo, "--pairs", w.pairs, "--shifted", w.shifted, "--steps"),
        *("--engine", "hf"),
    ),
    "safety": lambda w: (
        *("safety", w.dpo, "--prompts", w.prompts, "--engine", "hf", *SAMPLING),
        *("--cost", "sandbox_harm", "--cost", "sandbox_unhelpfulness", "--cost", "refusal"),
    ),
    "compare": lambda w: (
        *("compare", w.base, w.dpo, w.safedpo, "--baseline", w.dpo, "--pairs", w.pairs),
        *("--shifted", w.shifted, "--prompts", w.prompts, "--engine", "hf", *SAMPLING),
        *("--cost", "sandbox_harm", "--cost", "sandbox_unhelpfulness", "--cost", "refusal"),
    ),
}


@pytest.fixture(scope="module", params=sorted(COMMANDS))
def done(request, tmp_path_factory, world, cli: Callable) -> Iterator[Done]:
    """Each command, run twice with the same store into two folders."""
    from dpo_diag.pipeline import checks, work

    root = tmp_path_factory.mktemp(request.param)
    command = tuple(map(str, COMMANDS[request.param](world)))
    started: list[str] = []
    counts = []
    with pytest.MonkeyPatch.context() as patch:
        for module in (work, checks):
            real = module.open_engine

            def spy(name, *rest, real=real, **options):
                started.append(name)
                return real(name, *rest, **options)

            patch.setattr(module, "open_engine", spy)
        for folder in ("first", "again"):
            ended = cli(*command, "--store", root / "store", "--out", root / folder)
            assert ended.status == 0, ended.err
            counts.append(started[:])
            started.clear()
    yield Done(command, root / "first", root / "again", ended, *counts)


def test_a_second_run_starts_no_engine(done: Done) -> None:
    assert set(done.engines) == {"hf"}
    assert done.engines_again == []
    assert "engine hf" not in done.ended.err


def test_one_engine_start_serves_all_models_of_an_architecture(done: Done) -> None:
    scored = done.command[0] != "safety"
    sampled = done.command[0] in ("safety", "compare")
    measured = done.command[0] == "ood"  # distances read the reference's states anew
    assert len(done.engines) == scored + sampled + measured


def test_findings_of_a_second_run_are_the_same_bytes(done: Done) -> None:
    for name in ("findings.csv", "findings.json", "curves.csv", "cases.csv", "report.md"):
        one, other = (folder / name for folder in (done.first, done.again))
        assert one.read_bytes() == other.read_bytes(), name
    figures = sorted(p.name for p in (done.first / "figures").glob("*.svg"))
    assert figures
    for name in figures:
        assert (done.first / "figures" / name).read_bytes() == (
            done.again / "figures" / name
        ).read_bytes()


def test_a_saved_report_is_rendered_again_character_for_character(done: Done, cli) -> None:
    shown = cli("report", done.first, "--format", "markdown")
    assert shown.status == 0
    assert shown.out == (done.first / "report.md").read_text(encoding="utf-8")


def test_findings_meet_their_specification_and_json_says_the_same(done: Done) -> None:
    frame = tables.read_table(done.first / "findings.csv", tables.FINDINGS)
    records = json.loads((done.first / "findings.json").read_text(encoding="utf-8"))
    rows = records["findings"] if isinstance(records, dict) else records
    assert len(rows) == len(frame) > 0
    assert [row["statistic"] for row in rows] == frame["statistic"].tolist()


def test_rows_are_written_beside_the_report_and_meet_their_specification(done: Done) -> None:
    found = {path.stem: path for path in (done.first / "rows").glob("*.parquet")}
    scored = {"PreferencePairs", "ScoredPairs", "ImplicitRewards"}
    sampled = {"Prompts", "Samples", "SampleCosts"}
    with_steps = scored | {"RunSteps", "PromptDistances"}
    expected = {"safety": sampled, "compare": scored | sampled, "ood": with_steps}
    expected = expected.get(done.command[0], scored)
    assert set(found) == expected
    for name, path in found.items():
        assert len(tables.read_table(path, tables.SPECS[name]))


def test_every_figure_of_the_report_is_there(done: Done) -> None:
    text = (done.first / "report.md").read_text(encoding="utf-8")
    named = [part.split(")")[0] for part in text.split("](figures/")[1:]]
    assert named and all((done.first / "figures" / name).is_file() for name in named)


@pytest.mark.parametrize("done", ["compare"], indirect=True)
def test_compare_has_one_row_per_model_and_a_verdict_against_the_baseline(done: Done) -> None:
    findings = done.findings()
    models = {name.rsplit("-", 1)[0] for name in findings["model_id"]}
    assert models == {"base", "dpo", "safedpo"}
    compared = findings[findings["baseline_id"].fillna("").str.startswith("dpo-")]
    compared = compared[compared["analyzer"].isin(["reversals", "safety"])]
    assert {"base", "safedpo"} == {name.rsplit("-", 1)[0] for name in compared["model_id"]}
    judged = set(compared["verdict"].dropna())
    assert judged <= {"better", "worse", "not distinguishable", "not compared"}
    assert compared["detectable"].notna().any()
    for name in ("base", "dpo", "safedpo"):
        assert any(line.startswith(name) for line in done.ended.out.splitlines())


@pytest.mark.parametrize("done", ["compare"], indirect=True)
def test_compared_numbers_are_those_of_the_rows(done: Done) -> None:
    """Counted anew from the rows on disk, without any analyzer."""
    rewards = pd.read_parquet(done.first / "rows" / "ImplicitRewards.parquet")
    rewards = rewards[rewards["domain"] == "in_domain"]
    costs = pd.read_parquet(done.first / "rows" / "SampleCosts.parquet")
    costs = costs[(costs["cost"] == "sandbox_harm") & (costs["phase"] == "search")]
    for name in ("dpo", "safedpo"):
        rows = rewards[rewards["model_id"].str.match(rf"{name}-[0-9a-f]{{8}}$")]
        assert len(rows) == 20
        right = rows["margin"] > 0
        broken = (rows["ref_logp_chosen"] > rows["ref_logp_rejected"]) & (
            rows["logp_chosen"] < rows["logp_rejected"]
        )
        fallen = rows["logp_chosen"] < rows["ref_logp_chosen"]
        assert done.value("reward_accuracy", model_id=f"{name}-") == pytest.approx(right.mean())
        assert done.value("broken_rate", model_id=f"{name}-") == pytest.approx(broken.mean())
        assert done.value("displacement_rate", model_id=f"{name}-") == pytest.approx(fallen.mean())
        own = costs[costs["model_id"].str.match(rf"{name}-[0-9a-f]{{8}}$")]
        mean = own.groupby("prompt_id")["value"].mean().mean()
        assert done.value("mean_cost", model_id=f"{name}-") == pytest.approx(mean)


@pytest.mark.parametrize("done", ["reversals"], indirect=True)
def test_reversals_says_every_headline_number_and_what_it_found(done: Done) -> None:
    shown = done.ended
    assert all(f"  {name} " in shown.out for name in HEADLINE)
    for line in ("reference: ", "beta: 0.1 (dpo_diag.json)", "variant: dpo (dpo_diag.json)"):
        assert line in shown.err
    assert "gives reward 0 on 16 pairs" in shown.err


@pytest.mark.parametrize("done", ["ood"], indirect=True)
def test_ood_has_every_step_and_every_shift(done: Done, world) -> None:
    rewards = pd.read_parquet(done.first / "rows" / "ImplicitRewards.parquet")
    assert set(rewards["step"]) == {5, 10, -1}
    kinds = {json.loads(line)["domain"] for line in world.shifted.read_text().splitlines()}
    assert set(rewards["domain"]) == {"in_domain", *kinds}
    drops = done.findings().query("statistic == 'ood_accuracy_drop'")
    assert {f"domain={kind}" for kind in kinds} <= set(drops["slice"])
    assert {"kind=prompt", "all"} <= set(drops["slice"])
    assert drops["model_id"].nunique() == 3


@pytest.mark.parametrize("done", ["safety"], indirect=True)
def test_safety_confirms_on_fresh_samples(done: Done) -> None:
    samples = pd.read_parquet(done.first / "rows" / "Samples.parquet")
    counts = samples.groupby(["phase", "prompt_id"]).size()
    assert (counts["search"] == 4).all() and len(counts["search"]) == 10
    assert (counts["confirm"] == 8).all() and 1 <= len(counts["confirm"]) <= 2
    assert not samples.duplicated(["prompt_id", "sample_index"]).any()


def test_json_on_stdout_is_json_alone_and_home_is_left_alone(
    world, cli, tmp_path, monkeypatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    store = tmp_path / "store"
    shown = cli("reversals", world.dpo, "--pairs", world.pairs, "--store", store, "--json")
    assert shown.status == 0, shown.err
    assert json.loads(shown.out)
    assert list(home.iterdir()) == []


def test_a_run_of_ours_needs_nothing_but_its_folder(world, cli, tmp_path, monkeypatch) -> None:
    """Reference, beta, method and pairs are recorded; also from another working directory."""
    monkeypatch.chdir(tmp_path)
    for folder in (world.dpo, world.dpo / "checkpoint-5"):
        shown = cli("reversals", folder, "--store", tmp_path / "store")
        assert shown.status == 0, shown.err
        assert f"pairs: {world.pairs} (dpo_diag.json)" in shown.err
        assert "20 pairs on" in shown.err


def test_runs_of_one_name_are_told_apart(world, cli, tmp_path) -> None:
    other = tmp_path / "dpo"
    shutil.copytree(world.dpo / "checkpoint-5", other)
    shown = cli(
        *("compare", world.dpo, other, "--reference", world.base, "--pairs", world.pairs),
        *("--store", tmp_path / "store"),
    )
    assert shown.status == 0, shown.err
    names = set(re.findall(r"^dpo \([0-9a-f]{8}\)", shown.out, flags=re.MULTILINE))
    assert len(names) == 2


def test_the_gate_decides_the_exit_status(world, cli, tmp_path) -> None:
    command = ("reversals", world.dpo, "--pairs", world.pairs, "--store", tmp_path)
    assert cli(*command, "--fail-if", "reward_accuracy.low > 2").status == 0
    failed = cli(*command, "--fail-if", "reward_accuracy.high >= 0")
    assert failed.status == 3
    lines = [line for line in failed.err.splitlines() if "gate failed" in line]
    assert len(lines) == 1 and "reward_accuracy.high >= 0: it is" in lines[0]
    for rule in ("reward_acuracy.high > 0", "reward_accuracy > 0"):
        assert "--fail-if" in cli(*command, "--fail-if", rule).sentence()


def test_the_rows_of_score_sample_and_cost_are_tables(world, cli, tmp_path) -> None:
    store = ("--store", tmp_path / "store", "--engine", "hf")
    out = tmp_path / "a.parquet"
    scored = cli("score", world.dpo, "--pairs", world.pairs, *store, "--out", out)
    assert scored.status == 0, scored.err
    assert len(tables.read_table(out, tables.SCORED_PAIRS)) == 20
    sampled = cli(
        *("sample", world.dpo, "--prompts", world.prompts, *store),
        *("-n", "2", "--max-new-tokens", "8", "--out", tmp_path / "b.parquet"),
    )
    assert sampled.status == 0, sampled.err
    costed = cli(
        *("cost", tmp_path / "b.parquet", "--prompts", world.prompts, "--cost", "sandbox_harm"),
        *("--cost", "refusal", "--out", tmp_path / "c.parquet"),
    )
    assert costed.status == 0, costed.err
    assert len(tables.read_table(tmp_path / "c.parquet", tables.SAMPLE_COSTS)) == 2 * 2 * 10
