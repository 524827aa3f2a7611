"""Where a run's models stand on its axis of training steps, as its own files say.

A step is believed when folder name and ``trainer_state.json`` agree; the final model's step is read
from the run's state, from a step with the same weights, or from the number of steps that the last
state planned. Rank 2: imports errors and its siblings ``model_folders`` and ``weights``. Start
reading at ``final_step``.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpo_diag.errors import CheckpointError
from dpo_diag.model_folders import ModelRef, step_folders
from dpo_diag.weights import read_json

TRAINER_STATE = "trainer_state.json"


def ordered_steps(run: Path) -> list[tuple[int, Path]]:
    """The ``checkpoint-<step>`` folders of a run in numeric order, each step once.

    Raises:
        CheckpointError: two folders of one step, or a folder whose state is of another step.
    """
    found = step_folders(run)
    for (step, folder), (following, other) in itertools.pairwise(found):
        if step == following:
            raise CheckpointError(
                f"{run}: {folder.name} and {other.name} are both step {step}; move one of them out "
                "of the run's folder."
            )
    for step, folder in found:
        recorded = recorded_step(folder)
        if recorded not in (None, step):
            raise CheckpointError(
                f"{folder / TRAINER_STATE}: says global_step {recorded}, but the folder is named "
                f"for step {step}, so the steps are out of order; give the folder its own name."
            )
    return found


def recorded_step(folder: Path, key: str = "global_step") -> int | None:
    """A step number in a folder's ``trainer_state.json``; None without the file or the number.

    Raises:
        CheckpointError: the file is not JSON, or the number is no step.
    """
    path = folder / TRAINER_STATE
    if not path.is_file():
        return None
    value = read_state(path).get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise CheckpointError(
            f"{path}: {key} is {value!r}, expected a whole number of steps; the file is broken, "
            "take it away or write it anew."
        )
    return value


def read_state(path: Path) -> dict[str, Any]:
    """A ``trainer_state.json``.

    Raises:
        CheckpointError: it is not a JSON object.
    """
    try:
        return read_json(path)
    except CheckpointError as error:
        raise CheckpointError(
            f"{str(error).rstrip('.')}; copy it again from where the run was trained, or take it "
            "away."
        ) from error


def final_step(run: Path, model: ModelRef, steps: Sequence[ModelRef]) -> tuple[int | None, str]:
    """The training step of a run's final model and where that is written; None where nowhere.

    Args:
        run: the run's folder.
        model: its final model.
        steps: its steps in numeric order.

    Raises:
        CheckpointError: an unreadable state, or one that is behind a step beside it.
    """
    if model.step >= 0:
        return model.step, "the folder's name"
    step, why = recorded_step(run), TRAINER_STATE
    if step is None:
        same = [s.step for s in steps if s.fingerprint == model.fingerprint]
        step, why = (same[-1], f"has the weights of step {same[-1]}") if same else (None, "")
    if step is None and steps:
        last = steps[-1].adapter or steps[-1].path
        step = recorded_step(last, "max_steps") or None
        why = f"max_steps in {last.name}/{TRAINER_STATE}"
    if step is None:
        return None, "not recorded in the folder"
    if steps and steps[-1].step > step:
        raise CheckpointError(
            f"{run}: its final model is of step {step} ({why}), but there is a checkpoint of step "
            f"{steps[-1].step}: the steps are out of order; move what another run left there away."
        )
    return step, why
