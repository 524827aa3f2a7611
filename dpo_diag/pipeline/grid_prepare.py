"""What the grid's runs need before the first one starts: base model, samples, selections.

What is there is kept. Start reading at ``prepare``.
"""

from pathlib import Path

import pandas as pd

from dpo_diag import registry
from dpo_diag.checkpoints import resolve_checkpoint
from dpo_diag.engines._base import EngineOptions
from dpo_diag.pairs import read_pairs
from dpo_diag.pipeline.grid_measure import Measure, Plan, opened
from dpo_diag.pipeline.grid_plan import GridPlan, Method
from dpo_diag.pipeline.sandbox import jsonl, make_sandbox
from dpo_diag.pipeline.select import SelectionPlan, select, write_selection
from dpo_diag.pipeline.selection_inputs import ScoreColumns, Sources
from dpo_diag.pipeline.work import EngineChoice, Say, Work
from dpo_diag.store import RowStore
from dpo_diag.tables import write_text
from dpo_diag.training.loop import train
from dpo_diag.training.recipe_file import parse_recipe

SAMPLES = "samples.jsonl"
N_TABLE, N_TABLE_PROMPTS = 8, 1280
"""Answers per prompt in the fixed sample table, and prompts: as many as 40 steps of 32 take."""
THRESHOLD = 0.05
"""Subtracted from the gold harm in that table, as the on-policy form's recipe does."""
SEED_PAIRS = "labelled_few.jsonl"
"""The random tenth of the pairs that the run behind implicit margins learns from."""


def prepare(root: Path, plan: GridPlan, say: Say) -> None:
    """Make the sandbox, the fixed samples and the selected pairs, where the plan needs them.

    Args:
        root: folder of the grid.
        plan: which methods there are.
        say: one line for the user.
    """
    make_sandbox(root)
    needs = [registry.load("variants", method.variant).needs for method in plan.methods]
    if any(need.sample_table for need in needs) and not (root / SAMPLES).exists():
        say(f"sampling {N_TABLE} answers to training prompts from the base model")
        write_text(root / SAMPLES, jsonl(sample_table(root)))
    for method in plan.methods:
        if method.select and not selected_path(root, method).exists():
            say(f"selecting pairs by {method.select}")
            _select(root, plan, method)


def selected_path(root: Path, method: Method) -> Path:
    """Where a method's selected pairs are."""
    return root / "selected" / f"{method.select}-{round(100 * method.keep)}.jsonl"


def sample_table(root: Path) -> pd.DataFrame:
    """The base model's answers to the pairs' training prompts with gold reward and cost."""
    measure = Measure(root)
    pairs = read_pairs(str(root / "pairs.jsonl")).frame
    prompts = pairs[pairs["split"] == "train"].drop_duplicates("prompt_id")
    prompts = prompts.head(N_TABLE_PROMPTS)
    with opened(measure.base) as engine:
        answers = measure.sample(engine, prompts, Plan("train", n_samples=N_TABLE, seed=5))
    scored = measure.costs_of(answers)
    return scored[["prompt_id", "prompt", "response"]].assign(
        reward=1.0 - scored["unhelpfulness"], cost=scored["mean_cost"] - THRESHOLD
    )


def _select(root: Path, plan: GridPlan, method: Method) -> None:
    selector = registry.build("selectors", method.select, {})
    origins = set(selector.needs.values())
    sources = Sources(
        external=ScoreColumns("score_chosen", "score_rejected") if "external" in origins else None,
        seed_run=resolve_checkpoint(str(_seed_run(root, plan))) if "implicit" in origins else None,
        model=resolve_checkpoint(str(root / "base")) if "states" in origins else None,
    )
    selection = select(
        read_pairs(str(root / "panel.jsonl")),
        SelectionPlan(selector, sources, share=method.keep),
        EngineChoice("hf", EngineOptions()),
        Work(RowStore(root / "store"), root / "cache"),
    )
    write_selection(selection, selected_path(root, method))


def _seed_run(root: Path, plan: GridPlan) -> Path:
    """DPO on the few labels: the model whose implicit margins selectors read."""
    folder = root / "runs" / "seed_dpo"
    if not (folder / "trainer_state.json").exists():
        table = {section: dict(values) for section, values in plan.budget["pairs"].items()}
        table["variant"] = {"name": "dpo"}
        table["run"] = {"model": str(root / "base"), "seed": plan.strength_seed}
        pairs = read_pairs(str(root / SEED_PAIRS))
        train(parse_recipe(table), pairs, out=folder, resume=True, store=RowStore(root / "store"))
    return folder
