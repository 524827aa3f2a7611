"""What the folders of every trainer built on transformers share: state, steps, weights.

Start reading at ``assemble``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_diag.model_folders import step_folders
from dpo_diag.run_formats._base import LogRow, RunRecord
from dpo_diag.run_formats._files import LARGEST_TEXT, Folder
from dpo_diag.run_formats._log import printed_rows, rows_of
from dpo_diag.run_formats._settings import Settings, model_facts
from dpo_diag.run_formats._tokenizer import tokenizer_facts
from dpo_diag.weights import INDEX_FILE, MODEL_FILE

STATE = "trainer_state.json"
_FINAL = (MODEL_FILE, INDEX_FILE, "adapter_model.safetensors", "adapter_model.bin")
_FINAL_OLD = ("pytorch_model.bin", "pytorch_model.bin.index.json")

Rows = tuple[tuple[LogRow, ...], tuple[Mapping[str, Any], ...]]


def state_file(folder: Folder) -> str:
    """``trainer_state.json`` of the run, or of its last checkpoint; empty without one."""
    steps = [f"{step.name}/{STATE}" for _, step in reversed(step_folders(folder.path))]
    return next((name for name in (STATE, *steps) if folder.has(name)), "")


def state_log(folder: Folder, settings: Settings) -> tuple[Rows, str]:
    """The log in ``trainer_state.json``, and the file; the state's own numbers become settings."""
    source = state_file(folder)
    if not source:
        return _printed_log(folder)
    state = folder.json(source)
    for name in ("global_step", "max_steps", "logging_steps"):
        settings.put(name, state.get(name), source)
    settings.put("batch_size", state.get("train_batch_size"), source)
    settings.put("epochs", state.get("num_train_epochs"), source)
    history = state.get("log_history", [])
    if not isinstance(history, list):
        folder.say(source, "log_history is not a list, so there is no log to read")
        history = []
    return rows_of(history, folder, source), source


def _printed_log(folder: Folder) -> tuple[Rows, str]:
    """The log that was printed and saved as text, where no state was left."""
    for name in folder.logs():
        entries = printed_rows(folder.text(name, LARGEST_TEXT) or "")
        if entries:
            return rows_of(entries, folder, name), name
    return ((), ()), ""


def assemble(
    folder: Folder,
    name: str,
    settings: Settings,
    *,
    rows: Rows,
    source: str,
    steps: Sequence[int] = (),
) -> RunRecord:
    """The record of a run from its log, its settings and what every folder has.

    Args:
        folder: read so far.
        name: of the format.
        settings: read so far; model and adapter facts are added.
        rows: log rows and raw entries.
        source: file of the log, empty without one.
        steps: further checkpoints than ``checkpoint-*`` folders.
    """
    model_facts(settings)
    tokenizer = tokenizer_facts(folder)
    checkpoints = {step for step, _ in step_folders(folder.path)} | set(steps)
    return RunRecord(
        folder=folder.path,
        format=name,
        log=rows[0],
        log_source=source,
        raw=rows[1],
        settings=settings.facts,
        tokenizer=tokenizer,
        checkpoints=tuple(sorted(checkpoints)),
        has_final=any(folder.has(n) for n in (*_FINAL, *_FINAL_OLD)),
        read=tuple(folder.read),
        not_read=tuple(folder.not_read()),
        problems=tuple(folder.problems),
    )
