"""Runs of the grid: train, measure, keep the numbers; what is done is not done again.

Each process takes one run at a time, one thread each, because small models are fastest so. Start
reading at ``run_grid``. A run counts as done while its recipe, its data and how it is measured are
the same; a change to the code of a loss within one version is not seen: delete ``results`` then.
"""

import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from dpo_diag import __version__, registry
from dpo_diag.errors import DpoDiagError
from dpo_diag.pairs import PairSet, read_pairs, read_prompts
from dpo_diag.pipeline.grid_measure import VERSION, Measure, Plan
from dpo_diag.pipeline.grid_plan import FLIP, STRENGTH, GridPlan, Run
from dpo_diag.pipeline.grid_prepare import SAMPLES, prepare, selected_path
from dpo_diag.pipeline.work import Say
from dpo_diag.store import RowStore
from dpo_diag.tables import content_hash, write_text
from dpo_diag.training.inputs import Inputs
from dpo_diag.training.loop import train
from dpo_diag.training.players import train_players
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.recipe_file import dump_recipe, parse_recipe

PLANS = {
    "main": Plan("test"),
    FLIP: Plan("test", n_samples=2, shifted=False, tail=False),
    STRENGTH: Plan("validation", shifted=False, tail=False),
}
REFERENCES, UNLABELLED = "pair_reference_answers.jsonl", "unlabelled.jsonl"
TIE = 0.005
"""Strengths whose scores lie closer than this are equal; the first listed wins."""


def run_grid(root: Path, plan: GridPlan, workers: int, say: Say) -> dict[str, Any]:
    """Every run that is not done yet: strengths first, then seeds, then flipped labels.

    Args:
        root: folder of the grid.
        plan: what to run.
        workers: processes at once, 0 for one per core.
        say: one line for the user.

    Returns:
        method -> the strength that was chosen.

    Raises:
        DpoDiagError: a run failed; the others' results are kept.
    """
    workers = workers or os.cpu_count() or 1
    prepare(root, plan, say)
    with _pool(root, plan, workers) as pool:
        _finish(pool, root, plan, list(plan.strength_runs()), say)
        chosen = chosen_strengths(root, plan)
        for method, (value, score) in chosen.items():
            say(f"  {method}: {value} (helpfulness less cost {score:.3f} on validation)")
        values = {method: value for method, (value, _) in chosen.items()}
        _finish(pool, root, plan, [*plan.main_runs(values), *plan.flip_runs(values)], say)
    return values


def chosen_strengths(root: Path, plan: GridPlan) -> dict[str, tuple[Any, float]]:
    """Method -> (strength, score): the largest mean helpfulness less mean cost wins."""
    found = {}
    for method, options in strength_scores(root, plan).items():
        best = max(score for _, score in options)
        found[method] = next(o for o in options if o[1] >= best - TIE)
    return found


def strength_scores(root: Path, plan: GridPlan) -> dict[str, list[tuple[Any, float]]]:
    """Method -> (strength, gold helpfulness less gold cost on the validation prompts) of each."""
    scores: dict[str, list[tuple[Any, float]]] = {}
    for run in plan.strength_runs():
        values = read_result(root, run)
        means = values.groupby("statistic")["value"].mean()
        score = float(means["mean_helpfulness"] - means["mean_cost"])
        scores.setdefault(run.method.name, []).append((run.strength, score))
    return scores


def read_result(root: Path, run: Run) -> pd.DataFrame:
    """The values of a run that is done; ``row`` names the table's row."""
    return _with_row(pd.read_parquet(_result(root, run)), run)


def read_answers(root: Path, run: Run) -> pd.DataFrame:
    """A run's answers to the test prompts; ``row`` names the table's row."""
    return _with_row(pd.read_parquet(answers_path(root, run)), run)


def _with_row(rows: pd.DataFrame, run: Run) -> pd.DataFrame:
    return rows if "row" in rows else rows.assign(row=run.method.name)


def read_record(root: Path, run: Run) -> dict[str, Any]:
    """What a run took: ``cpu_seconds``, ``steps``, ``pair_counts``, last row of its log."""
    return json.loads(_result(root, run).with_suffix(".json").read_text(encoding="utf-8"))


def recipe_of(run: Run, plan: GridPlan, root: Path) -> Recipe:
    """The run's recipe: the budget of its kind, the method's settings, its strength and seed."""
    needs = registry.load("variants", run.method.variant).needs
    kind = "samples" if needs.online_samples or needs.online_pairs else "pairs"
    table = run.table(plan.budget[kind])
    table["run"] |= {"model": str(root / "base")}
    return parse_recipe(table, where=run.name)


def _pool(root: Path, plan: GridPlan, workers: int) -> ProcessPoolExecutor:
    # read by torch when a worker starts; small models are fastest on one thread
    os.environ["OMP_NUM_THREADS"] = "1"
    return ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(root, plan),
    )


def _finish(
    pool: ProcessPoolExecutor, root: Path, plan: GridPlan, runs: Sequence[Run], say: Say
) -> None:
    """Run what is missing; a failed run stops the grid after those that are under way."""
    missing = [run for run in runs if not _is_done(root, plan, run)]
    say(f"{len(runs)} runs, {len(runs) - len(missing)} done already")
    futures = {pool.submit(_work, run): run for run in missing}
    for number, future in enumerate(as_completed(futures), 1):
        run = futures[future]
        try:
            seconds = future.result()
        except DpoDiagError as error:
            pool.shutdown(wait=True, cancel_futures=True)
            raise type(error)(f"{run.name}: {error}") from error
        say(f"  [{number}/{len(missing)}] {run.name}: {seconds:.0f} s")


class _Worker:
    """What the runs of one process share."""

    measure: Measure
    plan: GridPlan


def _start(root: Path, plan: GridPlan) -> None:
    """Of a worker process: what all of its runs share."""
    _Worker.measure, _Worker.plan = Measure(root), plan


def _work(run: Run) -> float:
    """Train and measure one run; seconds it took."""
    started, root, plan = time.monotonic(), _Worker.measure.root, _Worker.plan
    folder, result = root / "runs" / run.name, _result(root, run)
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
    recipe = recipe_of(run, plan, root)
    before = time.process_time()
    (train_players if recipe.players else train)(
        recipe,
        training_pairs(run, root),
        out=folder,
        store=RowStore(root / "store"),
        inputs=inputs_of(run, plan, root),
    )
    spent = time.process_time() - before
    record = {"cpu_seconds": round(spent, 2), **_trained(folder), "state": _state(run, plan, root)}
    values, answers = [], []
    for name, player in run.method.rows.items():
        rows, texts = _Worker.measure(folder / player, PLANS[run.arm])
        values.append(rows.assign(row=name))
        answers.append(texts.assign(row=name))
    answers_path(root, run).parent.mkdir(parents=True, exist_ok=True)
    pd.concat(values, ignore_index=True).to_parquet(result)
    pd.concat(answers, ignore_index=True).to_parquet(answers_path(root, run))
    write_text(result.with_suffix(".json"), json.dumps(record, indent=2) + "\n")
    if run.arm != "main":
        shutil.rmtree(folder)
    return time.monotonic() - started


def training_pairs(run: Run, root: Path) -> PairSet:
    """The pairs that a run trains on: the method's table, or what its selector keeps of it."""
    if run.method.select:
        return read_pairs(str(selected_path(root, run.method)))
    return read_pairs(str(root / f"{run.method.pairs}.jsonl"))


def inputs_of(run: Run, plan: GridPlan, root: Path) -> Inputs:
    """The data beside the pairs that the run's variant needs."""
    needs = recipe_of(run, plan, root).build_variant().needs
    prompts = read_prompts(str(root / REFERENCES)) if needs.reference_answers else None
    unlabelled = _jsonl(root / UNLABELLED) if needs.unlabelled else None
    samples = _jsonl(root / SAMPLES) if needs.sample_table else None
    return Inputs(prompts, unlabelled, samples)


def data_files(run: Run, plan: GridPlan, root: Path) -> list[Path]:
    """The files that a run learns from: base model, pairs, and what its variant needs beside."""
    needs = recipe_of(run, plan, root).build_variant().needs
    pairs = selected_path(root, run.method) if run.method.select else None
    files = [root / "base" / "model.safetensors", pairs or root / f"{run.method.pairs}.jsonl"]
    files += [root / REFERENCES] if needs.reference_answers else []
    files += [root / UNLABELLED] if needs.unlabelled else []
    return files + ([root / SAMPLES] if needs.sample_table else [])


def _jsonl(path: Path) -> pd.DataFrame:
    lines = path.read_text(encoding="utf-8").splitlines()
    return pd.DataFrame([json.loads(line) for line in lines])


def _trained(folder: Path) -> dict[str, Any]:
    """Steps (of all rounds and players) and what became of the pairs, from the runs' records."""
    texts = [p.read_text(encoding="utf-8") for p in sorted(folder.rglob("trainer_state.json"))]
    states = [json.loads(text) for text in texts]
    return {
        "steps": sum(state["global_step"] for state in states),
        "pair_counts": states[-1]["pair_counts"],
        "log": states[-1]["log_history"][-1:],
    }


def _is_done(root: Path, plan: GridPlan, run: Run) -> bool:
    record = _result(root, run).with_suffix(".json")
    return record.exists() and read_record(root, run)["state"] == _state(run, plan, root)


def _state(run: Run, plan: GridPlan, root: Path) -> str:
    """What a run's numbers depend on: its recipe as resolved, its data, how it is measured."""
    recipe = dump_recipe(recipe_of(run, plan, root)).replace(str(root), "")
    data = [_file_hash(path) for path in data_files(run, plan, root)]
    measured = [VERSION, dataclasses.asdict(PLANS[run.arm])]
    return content_hash([__version__, recipe, data, measured])


@lru_cache
def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _result(root: Path, run: Run) -> Path:
    return root / "results" / f"{run.name}.parquet"


def answers_path(root: Path, run: Run) -> Path:
    """Where a run's answers to the test prompts are kept."""
    return root / "results" / "answers" / f"{run.name}.parquet"
