"""When each pair's order turned, as a table: what the timeline analyzer counts, pair by pair."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _timelines
from dpo_diag.analyzers.timeline import NAME
from dpo_diag.checkpoints import Checkpoint
from dpo_diag.errors import CheckpointError
from dpo_diag.pipeline.analyze import IN_DOMAIN, Evidence
from dpo_diag.pipeline.run_steps import groups_of
from dpo_diag.tables import PAIR_TIMELINES, concat, validate


def require_steps(checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse runs in which there is nothing to follow: no steps, and no two seeds of one method.

    Raises:
        CheckpointError: names the runs and what to do.
    """
    asked = {checkpoint.model.model_id for checkpoint in checkpoints}
    has_steps = any(s.model_id not in asked for c in checkpoints for s in c.steps)
    if has_steps or any(len(members) > 1 for _, members in groups_of(checkpoints)):
        return
    named = ", ".join(str(checkpoint.model.source) for checkpoint in checkpoints)
    raise CheckpointError(
        f"{named}: no checkpoint-* step beside a final model, so there is no time to follow; give "
        "the folder of a run that saved steps (log.save_every of a recipe, save_steps of TRL)."
    )


def pair_timelines(evidence: Evidence, *, from_step: int = 1) -> pd.DataFrame:
    """PAIR_TIMELINES of every run that has steps, for the pairs in distribution.

    Args:
        evidence: implicit rewards of final models and steps.
        from_step: as in the analyzer.
    """
    if evidence.rewards is None:
        return concat([], PAIR_TIMELINES)
    rewards = evidence.rewards.rewards
    inside = rewards[rewards["domain"] == IN_DOMAIN]
    rewards = inside if len(inside) else rewards
    panels = _timelines.panels_of(rewards, evidence.tables().get("RunSteps"), NAME)
    frames = [
        _of_order(panel, order, from_step)
        for panel in panels.values()
        if len(panel.steps) > 1
        for order in _timelines.ORDERS
    ]
    return validate(concat(frames, PAIR_TIMELINES), PAIR_TIMELINES)


def _of_order(panel: _timelines.Panel, order: str, from_step: int) -> pd.DataFrame:
    difference, steps = _timelines.with_start(panel, order)
    found = _timelines.timeline_columns(difference, steps, from_step=from_step)
    kept = panel.rows[["pair_id", "prompt_id", "domain", "split"]]
    numbers = {name: found[name] for name in PAIR_TIMELINES.column_names if name in found}
    whole = {name: numbers[name].astype(np.int64) for name in ("n_flips", "n_flips_back")}
    frame = kept.assign(model_id=panel.run_id, order=order, **(numbers | whole))
    return frame[list(PAIR_TIMELINES.column_names)].reset_index(drop=True)
