"""The grid of methods: its plan, its rule for strengths, its runs and its report, in small."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dpo_diag import registry
from dpo_diag.errors import DataError
from dpo_diag.pipeline import grid_prepare, grid_run
from dpo_diag.pipeline.grid_plan import GridPlan, Method, Run, read_plan, sandbox_plan
from dpo_diag.pipeline.grid_report import (
    gathered,
    information,
    played,
    read_claims,
    write_grid_report,
)
from dpo_diag.pipeline.grid_run import chosen_strengths, recipe_of, run_grid
from dpo_diag.pipeline.sandbox import jsonl
from dpo_diag.sandbox.panel import panel
from dpo_diag.sandbox.world import make_world
from dpo_diag.tables import write_text
from tests.training.conftest import write_tiny_model

BUDGET = {
    "pairs": {"optimizer": {"learning_rate": 1e-3, "batch_size": 8, "max_steps": 2}},
    "samples": {
        "optimizer": {"learning_rate": 1e-3, "batch_size": 4, "max_steps": 1},
        "online": {"prompts_per_round": 4, "samples_per_prompt": 2, "max_new_tokens": 8},
    },
}
REPO = {"online": {"reward": "sandbox_unhelpfulness", "cost": "sandbox_harm", "threshold": 0.05}}


def small_plan(**changes: Any) -> GridPlan:
    methods = (
        Method("dpo", "dpo", strength="variant.beta", values=(0.1, 0.3), flips=True),
        Method("dpo_random", "dpo", select="random", keep=0.5),
        Method("repo", "repo", settings=REPO),
    )
    options = {"seeds": 2, "strength_seed": 9, "flip_rates": (0.4,), "flip_seeds": 1}
    return GridPlan("dpo", methods, BUDGET, **{**options, **changes})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random base model and a few rows of each table."""
    folder = tmp_path_factory.mktemp("grid")
    write_tiny_model(folder / "base")
    config = folder / "base" / "config.json"  # its window has no room for the grid's 48 new tokens
    longer = json.loads(config.read_text(encoding="utf-8")) | {"max_position_embeddings": 128}
    write_text(config, json.dumps(longer))
    world = make_world(0)
    pairs = pd.concat([world.pairs[world.pairs["split"] == s].head(24) for s in ("train", "test")])
    prompts = pd.concat(
        [
            part.head(4)
            for _, part in world.prompts.groupby(["split", "is_trap", "domain"])
            if part["domain"].iloc[0] == "in_domain"
        ]
    )
    for name, frame in (
        ("pairs", pairs),
        ("panel", panel(pairs.reset_index(drop=True), 0)),
        ("ood", world.shifted_pairs.groupby("domain").head(3)),
        ("prompts", prompts),
    ):
        write_text(folder / f"{name}.jsonl", jsonl(frame.reset_index(drop=True)))
    return folder


@pytest.fixture(scope="module")
def done(root: Path) -> tuple[Path, GridPlan, dict[str, Any], list[str]]:
    """The small grid, run once in one process."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid_prepare, "make_sandbox", lambda root: [])
        plan = small_plan()
        return root, plan, run_grid(root, plan, 1, said.append), said


def test_the_shipped_plan_is_complete_and_every_recipe_of_it_is_valid(tmp_path: Path) -> None:
    plan = sandbox_plan()
    assert plan.seeds >= 5
    policies = {
        name
        for name in registry.names("variants")
        if not registry.load("variants", name).needs.score_head  # an explicit reward is no policy
    }
    assert {m.variant for m in plan.methods} == policies
    for run in (
        *plan.strength_runs(),
        *plan.flip_runs({m.name: m.values[:1] and m.values[0] for m in plan.methods if m.values}),
    ):
        recipe = recipe_of(run, plan, tmp_path)
        assert recipe.run.seed == run.seed
        assert recipe.data.flip_labels == run.flip_rate
    for method in plan.methods:
        assert recipe_of(Run(method, "main", 3, next(iter(method.values), None)), plan, tmp_path)


def test_methods_on_pairs_have_one_budget(tmp_path: Path) -> None:
    """Whoever has another number of steps or learning rate says so in its note."""
    plan = sandbox_plan()
    for method in plan.methods:
        recipe = recipe_of(Run(method, "main", 0, next(iter(method.values), None)), plan, tmp_path)
        kind = "samples" if recipe.online else "pairs"
        budget = plan.budget[kind]["optimizer"]
        own = {key: getattr(recipe.optimizer, key) for key in budget if key != "epochs"}
        if own != {key: value for key, value in budget.items() if key != "epochs"}:
            assert method.note


def test_claims_are_about_methods_of_the_plan_and_there_is_one_for_each_survey_method() -> None:
    names = {method.name for method in sandbox_plan().methods}
    claims = read_claims()
    for claim in claims:
        assert claim.treatment in names
        assert claim.control in {*names, ""}
    treated = {claim.treatment for claim in claims} | {claim.control for claim in claims}
    survey = {"auxdpo_3ep", "safedpo", "repo", "tidpo", "inpo", "mnpo", "sspo", "refalign", "re_po"}
    assert survey | {"semidpo_port", "awdpo", "dpo_bees30", "dpo_ches30"} <= treated


def test_names_of_runs_are_unique() -> None:
    plan = sandbox_plan()
    chosen = {method.name: next(iter(method.values), None) for method in plan.methods}
    runs = [*plan.strength_runs(), *plan.main_runs(chosen), *plan.flip_runs(chosen)]
    assert len({run.name for run in runs}) == len(runs)


def test_of_keeps_the_baseline_and_refuses_unknown_methods() -> None:
    assert [m.name for m in small_plan().of(["repo"], 1).methods] == ["dpo", "repo"]
    with pytest.raises(DataError, match="no method 'rep'; it has dpo, dpo_random, repo"):
        small_plan().of(["rep"], 1)
    with pytest.raises(DataError, match="--seeds must be 1 or more, got 0"):
        small_plan().of([], 0)
    assert small_plan().of([], None) == small_plan()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[grid", "cannot be read as TOML"),
        ("[grid]\nbaseline = 'dpo'\n", "baseline 'dpo' is not among"),
        ("[[method]]\nname = 'dpo'\n", "variant"),
        ("[[method]]\nname = 'a'\nvariant = 'dpo'\nsped = 1\n", "sped"),
        ("[[method]]\nname = 'a'\nvariant = 'dpo'\nvalues = [1]\n", "strength and values"),
        ("[[method]]\nname = 'a'\nvariant = 'dpo'\nkeep = 2.0\n", "keep must be above 0"),
        (
            "[grid]\nbaseline = 'a'\nstrength_seed = 1\n[[method]]\nname = 'a'\nvariant = 'dpo'\n",
            "strength_seed must not be",
        ),
    ],
)
def test_a_bad_plan_is_refused_in_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_plan(path)


def test_the_largest_score_wins_and_near_ties_go_to_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scores = {"dpo": [(0.1, 0.500), (0.3, 0.504), (0.03, 0.4)], "repo": [(1.0, 0.1), (3.0, 0.2)]}
    monkeypatch.setattr(grid_run, "strength_scores", lambda root, plan: scores)
    assert chosen_strengths(tmp_path, small_plan()) == {"dpo": (0.1, 0.5), "repo": (3.0, 0.2)}


def test_every_run_leaves_values_and_a_record(done: tuple) -> None:
    root, plan, chosen, _ = done
    runs = [*plan.main_runs(chosen), *plan.flip_runs(chosen)]
    assert len(runs) == 2 * 3 + 1
    for run in runs:
        values = grid_run.read_result(root, run)
        assert {"mean_helpfulness", "mean_cost", "gold_reward_accuracy"} <= set(values["statistic"])
        assert values["value"].notna().all()
        record = grid_run.read_record(root, run)
        assert record["steps"] == (1 if run.method.name == "repo" else 2)
        assert record["cpu_seconds"] > 0
    flipped = [run for run in runs if run.flip_rate]
    assert 0 < grid_run.read_record(root, flipped[0])["pair_counts"]["flipped"] < 24


def test_half_the_training_pairs_are_selected(done: tuple) -> None:
    root, plan, chosen, _ = done
    run = next(r for r in plan.main_runs(chosen) if r.method.name == "dpo_random")
    assert grid_run.read_record(root, run)["pair_counts"]["pairs"] == 12


def test_a_second_call_runs_nothing(done: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    root, plan, chosen, _ = done
    monkeypatch.setattr(grid_prepare, "make_sandbox", lambda root: [])
    said: list[str] = []
    assert run_grid(root, plan, 1, said.append) == chosen
    assert [line for line in said if "done already" in line] == [
        "2 runs, 2 done already",
        "7 runs, 7 done already",
    ]


def test_other_settings_are_run_again(done: tuple) -> None:
    root, plan, chosen, _ = done
    run = next(plan.main_runs(chosen))
    assert grid_run._is_done(root, plan, run)
    other = GridPlan(
        "dpo",
        plan.methods,
        {**BUDGET, "pairs": {"optimizer": {**BUDGET["pairs"]["optimizer"], "max_steps": 3}}},
        seeds=2,
    )
    assert not grid_run._is_done(root, other, run)


def test_values_are_those_of_the_runs(done: tuple) -> None:
    """A method's mean in MethodValues is the mean of its run's own file."""
    root, plan, chosen, _ = done
    values = gathered(root, plan, chosen)
    run = next(iter(plan.main_runs(chosen)))
    own = grid_run.read_result(root, run)
    for statistic in ("mean_helpfulness", "gold_reward_accuracy", "win_rate:cyclic"):
        mine = values[
            (values["model_id"] == "dpo")
            & (values["arm"] == "main")
            & (values["seed"] == 0)
            & (values["statistic"] == statistic)
        ]
        assert mine["value"].mean() == pytest.approx(
            own.loc[own["statistic"] == statistic, "value"].mean()
        )
    assert set(values["arm"]) == {"main", "0.4"}


def test_exploitability_is_a_number_per_run_within_one_half(done: tuple) -> None:
    root, plan, chosen, _ = done
    rows = list(played(root, plan, chosen))
    assert len(rows) == 6
    for _, frame in rows:
        assert -0.5 <= frame["value"].iloc[0] <= 0.5


def test_the_report_says_what_each_method_was_given(done: tuple) -> None:
    root, plan, chosen, said = done
    path = write_grid_report(root, plan, chosen, said.append)
    text = path.read_text(encoding="utf-8")
    assert "sandbox\\_harm (gold)" in text or "sandbox_harm (gold)" in text
    assert "variant.beta" in text.replace("\\", "")
    assert (root / "report" / "strengths.csv").read_text(encoding="utf-8").count("\n") == 3
    run = next(r for r in plan.main_runs(chosen) if r.method.name == "repo")
    given = information(run, plan, root)
    assert given.startswith("prompts, its own samples")
    assert "gold" in given


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("awdpo", "harm_answer_chosen (gold)"),
        ("refalign", "reference answers (gold: the best of 16)"),
        ("repo_offline", "prompts, the base model's samples, gold reward and cost of each"),
        ("dpo_bees30", "an outside scorer's margins, margins of DPO on a tenth of the labels"),
        ("dpo_ches30", "pairs kept by ches (30 %), the base model's hidden states"),
    ],
)
def test_what_went_into_a_method_beside_the_pairs_is_said(method: str, words: str) -> None:
    plan = sandbox_plan()
    runs = {run.method.name: run for run in plan.main_runs({m.name: 1.0 for m in plan.methods})}
    assert words in information(runs[method], plan, Path("anywhere"))


def test_selected_pairs_and_their_scores_are_kept(done: tuple) -> None:
    root = done[0]
    lines = (root / "selected" / "random-50.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert sum(row["split"] == "train" for row in rows) == 12
    assert np.isfinite([row["score_chosen"] for row in rows]).all()
