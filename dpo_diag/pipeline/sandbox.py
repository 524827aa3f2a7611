"""The sandbox on disk: its tables as JSONL and its base model, ready for every other command.

Start reading at ``make_sandbox``; ``panel_tables`` are what some methods ask for beside the pairs.
"""

import json
from pathlib import Path

import pandas as pd

from dpo_diag.errors import DataError
from dpo_diag.pipeline.work import Bar, no_bar
from dpo_diag.sandbox import panel, tiny_model
from dpo_diag.sandbox.world import World, make_world
from dpo_diag.tables import write_text

FILES = ("pairs.jsonl", "ood.jsonl", "prompts.jsonl", "reworded.jsonl")


def make_sandbox(out: Path, *, seed: int = 0, steps: int = 0, bar: Bar = no_bar) -> list[Path]:
    """Write the world's tables and pre-train its base model; a finished base is kept.

    Args:
        out: folder for the world's tables, those of ``panel_tables`` and ``base/``.
        seed: of the world and of the base model.
        steps: pre-training steps, 0 for the usual number.
        bar: progress bar factory.

    Returns:
        The paths of the tables and of the base model's folder.
    """
    if steps < 0:
        raise DataError(f"--steps must be 0 or more, got {steps}.")
    world = make_world(seed)
    tables = {**dict(zip(FILES, world, strict=True)), **panel_tables(world, seed)}
    paths = [write_text(out / name, jsonl(frame)) for name, frame in tables.items()]
    base = out / "base"
    if not (base / "model.safetensors").exists():
        total = steps or tiny_model.N_STEPS
        with bar("pre-training the base model", total) as advance:
            done = 0

            def log(step: int, _total: int, _loss: float) -> None:
                nonlocal done
                advance(step - done)
                done = step

            tiny_model.pretrain(base, seed=seed, steps=total, log=log)
    return [*paths, base]


def panel_tables(world: World, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Further inputs by file name; each is extra information that a comparison must name.

    ``panel.jsonl`` (the pairs with judges, scores, harm by segment and the groups' votes),
    ``labelled_few.jsonl`` (a tenth of the training prompts' pairs), ``unlabelled.jsonl`` (answers
    without labels), ``reference_answers.jsonl`` (the training prompts without pairs, a good answer
    each) and ``pair_reference_answers.jsonl`` (the same for the prompts of the training pairs).
    """
    used = {text for table in world for text in table["prompt"]}
    columns = ["prompt_id", "prompt", "domain", "split", "source"]
    asked = world.pairs.drop_duplicates("prompt_id")[columns]
    return {
        "panel.jsonl": panel.panel(world.pairs, seed),
        "labelled_few.jsonl": panel.few_labelled(world.pairs, seed),
        "unlabelled.jsonl": panel.unlabelled(used, seed),
        "reference_answers.jsonl": panel.reference_answers(world.prompts, seed),
        "pair_reference_answers.jsonl": panel.reference_answers(asked, seed),
    }


def jsonl(frame: pd.DataFrame) -> str:
    """A table as JSON lines in its own row and column order; a missing value is null."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
