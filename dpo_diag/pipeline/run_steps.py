"""Which run and training step each model belongs to, and which runs differ in their seed only."""

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from dpo_diag.checkpoints import Checkpoint
from dpo_diag.tables import RUN_STEPS, validate

_SEED = re.compile(r"-\d+$")


def groups_of(checkpoints: Sequence[Checkpoint]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Our own runs of one method that differ only in a trailing ``-<seed>`` as one group.

    A model that no run of ours made is a group of its own: ``llama-2`` is not a seed of ``llama``.
    """
    groups: dict[str, list[str]] = {}
    for checkpoint in checkpoints:
        is_run = checkpoint.manifest is not None
        name = _SEED.sub("", checkpoint.model.name) if is_run else checkpoint.model.name
        groups.setdefault(name, []).append(checkpoint.model.model_id)
    return tuple((name, tuple(members)) for name, members in groups.items())


def run_steps(checkpoints: Sequence[Checkpoint]) -> pd.DataFrame:
    """RUN_STEPS of the checkpoints: their steps, their final models, where training started.

    A model that was asked for by itself is no step of another run, as in ``pipeline.rewards``.
    """
    group = {model: name for name, members in groups_of(checkpoints) for model in members}
    asked = set(group)
    rows: list[dict[str, Any]] = []
    for checkpoint in checkpoints:
        run_id = checkpoint.model.model_id
        common = {"run_id": run_id, "seed_group": group[run_id], "is_start": False}
        final = checkpoint.final_step
        rows += [
            {**common, "model_id": step.model_id, "step": float(step.step)}
            for step in checkpoint.steps
            if step.model_id not in asked
        ]
        rows.append(
            {**common, "model_id": run_id, "step": float("nan") if final is None else final}
        )
        if _starts_at_reference(checkpoint) and checkpoint.reference.model_id != run_id:
            start = {"model_id": checkpoint.reference.model_id, "step": 0.0, "is_start": True}
            rows.append({**common, **start})
    frame = pd.DataFrame(rows, columns=list(RUN_STEPS.column_names))
    return validate(frame.astype({"step": float, "is_start": bool}), RUN_STEPS)


def _starts_at_reference(checkpoint: Checkpoint) -> bool:
    """Whether training started from the reference; taken to be so where no manifest says."""
    manifest = checkpoint.manifest
    if checkpoint.reference is None or manifest is None:
        return checkpoint.reference is not None
    return manifest.base.fingerprint == checkpoint.reference.fingerprint
