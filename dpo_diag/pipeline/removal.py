"""Why pairs get reversed, tested by experiment on the sandbox: predict, blame, leave out, retrain.

Each repetition has a world of its own (other pairs, the same base model) and a training seed of its
own. A DPO run is trained on all pairs and explained (``why``); then some training pairs are left
out, once those that are blamed for the held-out pairs it reversed, once as many at random, once as
many wrong labels, and DPO is trained again. Start reading at ``run_removal``. What is done is not
done again.
"""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.checkpoints import Checkpoint, resolve_checkpoint
from dpo_diag.errors import DpoDiagError
from dpo_diag.pairs import PairSet, frame_hash, read_pairs
from dpo_diag.pipeline.analyze import Evidence, analyze, report_input
from dpo_diag.pipeline.compare import Request, gather
from dpo_diag.pipeline.gradients import GradientOptions
from dpo_diag.pipeline.pushes import FORESEEN_REWARD, TRAIN
from dpo_diag.pipeline.rewards import RewardRows, build_variant
from dpo_diag.pipeline.sandbox import jsonl, make_sandbox
from dpo_diag.pipeline.why import Why, WhyOptions, explain
from dpo_diag.pipeline.work import EngineChoice, Say, Work
from dpo_diag.reporting.document import ModelEntry
from dpo_diag.reporting.saved import write_report
from dpo_diag.reporting.summary import Headline
from dpo_diag.sandbox.world import make_world
from dpo_diag.store import RowStore
from dpo_diag.tables import (
    REMOVAL_OUTCOMES,
    SCORED_PAIRS,
    SPECS,
    concat,
    read_table,
    validate,
    write_table,
    write_text,
)
from dpo_diag.training.loop import train
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.recipe_file import load_recipe

GOLD_GAP = 0.1  # held-out pairs whose true utilities lie closer are no targets, nor clean
SHARE = 0.05  # of the training pairs that an arm leaves out
SKETCH = 32768  # columns: cosines to about .006
ALL, RESEEDED = "all pairs", "all pairs, other training seed"
BLAMED, RANDOM = "without the most blamed pairs", "without random pairs"
WRONG = "without wrong labels"
ARMS = (ALL, RESEEDED, RANDOM, WRONG, BLAMED)
_WHY = (
    *("ReversalPredictions", "PairConflicts", "Expressible", "LocalMargins"),
    *("RunSteps", "ImplicitRewards"),
)
HEADLINE = (
    Headline("misspecification", "auc:linearised_dpo"),
    Headline("misspecification", "auc:conflict"),
    Headline("misspecification", "auc:length"),
    Headline("misspecification", "auc:reference_margin"),
    Headline("misspecification", "residual_share"),
)
NOTES = (
    "Each repetition has pairs of its own from the sandbox's grammar, a training seed of its own, "
    "and the base model that all share; a twentieth of its training pairs is left out.",
    f"The prediction stops at a mean reward margin of {FORESEEN_REWARD}, a number that was chosen "
    "on another world, which is not among these; so was how pushes are added up into blame.",
)
REMOVAL_HEADLINE = ("still_reversed", "target_margin", "reversal_rate", "reward_accuracy")
COMMANDS = ("dpo-diag demo why --out why",)


class World(NamedTuple):
    """One repetition: its folder, its seed, and the base model that all share."""

    folder: Path
    seed: int
    base: Path

    @property
    def run(self) -> Path:
        """The run on all pairs."""
        return self.folder / f"dpo-{self.seed}"

    @property
    def pairs(self) -> Path:
        """Its pairs."""
        return self.folder / "pairs.jsonl"

    def work(self) -> Work:
        """Where its rows are kept."""
        return Work(RowStore(self.folder / "store"), self.folder / "store" / "merged")


def run_removal(out: Path, seeds: int, workers: int, say: Say) -> Path:
    """Every repetition that is not done yet, and the report over all.

    Args:
        out: folder for everything.
        seeds: repetitions, at least 2.
        workers: processes at once, 0 for one per core.
        say: one line for the user.

    Returns:
        Path of the report on the removal; the one on the prediction is beside it.

    Raises:
        DpoDiagError: fewer than two seeds, or a repetition failed.
    """
    if seeds < 2:
        raise DpoDiagError(f"--seeds must be 2 or more to tell an effect from chance, got {seeds}.")
    say("the sandbox's base model")
    make_sandbox(out)
    worlds = [World(out / f"world-{seed}", seed, out / "base") for seed in range(1, seeds + 1)]
    missing = [world for world in worlds if not (world.folder / "outcomes.parquet").exists()]
    say(f"{seeds} repetitions, {seeds - len(missing)} done already")
    with _pool(workers or os.cpu_count() or 1) as pool:
        futures = {pool.submit(repetition, world): world.seed for world in missing}
        for number, future in enumerate(as_completed(futures), 1):
            try:
                future.result()
            except DpoDiagError as error:
                pool.shutdown(wait=True, cancel_futures=True)
                raise type(error)(f"repetition {futures[future]}: {error}") from error
            say(f"  [{number}/{len(missing)}] repetition {futures[future]}")
    return _write_reports(out, worlds)


def repetition(world: World) -> None:
    """Train, explain, leave out, train again; the tables are left in the repetition's folder."""
    write_text(world.pairs, jsonl(make_world(world.seed).pairs))
    pairs = read_pairs(str(world.pairs))
    run = _trained(world, pairs, world.run, world.seed)
    gradients = GradientOptions(k=SKETCH, n_workers=1)
    why = explain(
        [run], pairs, EngineChoice(), WhyOptions(gradients, gold_gap=GOLD_GAP), world.work()
    )
    tables = why.evidence.tables()
    for name in _WHY:
        write_table(tables[name], world.folder / f"{name}.parquet", SPECS[name], {})
    parts = []
    for arm, left_out in arms(why, pairs, world.seed).items():
        margins = _margins_without(world, pairs, arm, left_out, why)
        parts.append(outcomes(arm, world.seed, margins, why, pairs.frame, len(left_out)))
    table = concat(parts, REMOVAL_OUTCOMES)
    write_table(table, world.folder / "outcomes.parquet", REMOVAL_OUTCOMES, {})


def arms(why: Why, pairs: PairSet, seed: int) -> dict[str, np.ndarray]:
    """Arm to the ids of the training pairs that it leaves out, equally many where any are.

    Args:
        why: of the run on all pairs.
        pairs: with gold margins.
        seed: of the random draws.
    """
    frame = pairs.frame[pairs.frame["split"] == TRAIN]
    ids = frame["pair_id"].to_numpy()
    wrong = ids[frame["gold_margin"].to_numpy(float) < 0.0]
    n, rng = round(SHARE * len(ids)), np.random.default_rng(seed)
    ((_, blamed),) = why.blamed.items()
    nothing = np.zeros(0, object)
    return {
        ALL: nothing,
        RESEEDED: nothing,
        RANDOM: rng.choice(ids, n, replace=False),
        WRONG: rng.choice(wrong, min(n, len(wrong)), replace=False),
        BLAMED: blamed[:n],
    }


def outcomes(
    arm: str, seed: int, margins: pd.Series, why: Why, frame: pd.DataFrame, n_left_out: int
) -> pd.DataFrame:
    """REMOVAL_OUTCOMES of one arm: the clean held-out pairs after its training.

    Args:
        arm: which pairs were left out.
        seed: which repetition.
        margins: reward margins by pair_id.
        why: of the run on all pairs; names the targets.
        frame: the pairs.
        n_left_out: training pairs left out.
    """
    ((_, targets),) = why.targets.items()
    clean = frame[(frame["split"] != TRAIN) & (frame["gold_margin"] > GOLD_GAP)]
    rows = clean[["pair_id", "prompt_id"]].assign(
        model_id=arm,
        seed=seed,
        margin=margins.loc[clean["pair_id"]].to_numpy(),
        is_target=clean["pair_id"].isin(set(targets)),
        n_left_out=n_left_out,
    )
    return validate(rows[list(REMOVAL_OUTCOMES.column_names)], REMOVAL_OUTCOMES)


def _margins_without(
    world: World, pairs: PairSet, arm: str, left_out: np.ndarray, why: Why
) -> pd.Series:
    if arm == ALL:
        rewards = why.evidence.rewards.rewards
        return rewards.set_index("pair_id")["margin"]
    kept = pairs.frame[~pairs.frame["pair_id"].isin(set(left_out))].reset_index(drop=True)
    fewer = replace(pairs, frame=kept, content_hash=frame_hash(kept, "pair_id"))
    seed = world.seed + 1000 if arm == RESEEDED else world.seed
    name = arm.replace(",", "").replace(" ", "-")
    run = _trained(world, fewer, world.folder / name, seed)
    evidence = gather([run], Request(pairs), world.work())
    return evidence.rewards.rewards.set_index("pair_id")["margin"]


def _trained(world: World, pairs: PairSet, out: Path, seed: int) -> Checkpoint:
    train(_recipe(world, seed), pairs, out=out, resume=True, store=world.work().store)
    return resolve_checkpoint(out)


def _recipe(world: World, seed: int) -> Recipe:
    folder = resources.files("dpo_diag.sandbox").joinpath("recipes")
    with resources.as_file(folder.joinpath("dpo.toml")) as path:
        recipe = load_recipe(path)
    return replace(recipe, run=replace(recipe.run, model=str(world.base), seed=seed))


def _pool(workers: int) -> ProcessPoolExecutor:
    # read by torch when a worker starts; small models are fastest on one thread
    os.environ["OMP_NUM_THREADS"] = "1"
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _write_reports(out: Path, worlds: Sequence[World]) -> Path:
    """What was foretold (``report/``), and what leaving pairs out did (``removal/``)."""
    evidence = _evidence(worlds)
    settings = {"repetitions": str(len(worlds))}
    parameters = {"misspecification": {"gold_gap": GOLD_GAP}}
    foretold = analyze(["misspecification"], evidence, parameters)
    report = report_input(
        "Reversals foretold from gradients at the reference",
        evidence,
        foretold,
        headline=HEADLINE,
        commands=COMMANDS,
        settings=settings,
    )
    write_report(out / "report", report)
    removed = analyze(["removal"], replace(evidence, baseline=RANDOM), {})
    report = report_input(
        "Reversed pairs after training again without some pairs",
        replace(evidence, baseline=RANDOM, checkpoints=()),
        removed,
        headline=tuple(Headline("removal", s) for s in REMOVAL_HEADLINE),
        commands=COMMANDS,
        settings=settings,
    )
    entries = tuple(_entry(arm, evidence.checkpoints[0]) for arm in ARMS)
    return write_report(out / "removal", replace(report, models=entries))


def _entry(arm: str, checkpoint: Checkpoint) -> ModelEntry:
    reference = checkpoint.reference
    return ModelEntry(
        model_id=arm,
        name=arm,
        fingerprint="",
        reference_id=reference.model_id if reference else "",
        reference_fingerprint=reference.fingerprint if reference else "",
        variant=build_variant(checkpoint).reward_def,
        engine="scored by hf",
        dtype="float32",
        note=f"trained on {arm}, one run in each repetition".replace("on without", "without"),
    )


def _evidence(worlds: Sequence[World]) -> Evidence:
    """The repetitions side by side; a pair that two worlds share is one pair."""
    tables = {
        name: concat(
            [read_table(w.folder / f"{name}.parquet", SPECS[name]) for w in worlds], SPECS[name]
        )
        for name in _WHY
    }
    pairs = [read_pairs(str(world.pairs)) for world in worlds]
    frame = pd.concat([p.frame for p in pairs], ignore_index=True).drop_duplicates("pair_id")
    together = replace(
        pairs[0],
        frame=frame.reset_index(drop=True),
        content_hash=frame_hash(frame, "pair_id"),
        source=f"sandbox worlds 1 to {len(worlds)}",
        notes=(f"{len(frame)} pairs of {len(worlds)} worlds",),
    )
    done = [read_table(world.folder / "outcomes.parquet", REMOVAL_OUTCOMES) for world in worlds]
    rewards = RewardRows(tables.pop("ImplicitRewards"), concat([], SCORED_PAIRS), (), {})
    more = {**tables, "RemovalOutcomes": concat(done, REMOVAL_OUTCOMES)}
    checkpoints = tuple(resolve_checkpoint(world.run) for world in worlds)
    return Evidence(checkpoints, pairs=together, rewards=rewards, notes=NOTES, more=more)
