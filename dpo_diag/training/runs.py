"""The run folder: what is on disk during and after training, and how a run is taken up again.

Layout as transformers and TRL have it: the final model, its tokenizer and ``trainer_state.json``
in the folder itself, ``checkpoint-<step>`` folders beside them, each with ``training_state.pt``
(optimiser, random state, the variant's state; tensors and plain values only, read with
``weights_only``). Ours are ``dpo_diag.json``, the manifest, and ``recipe.toml``. A checkpoint
appears under its name only once it is complete. Start reading at ``RunFolder``.
"""

import json
import os
import pickle
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dpo_diag.checkpoints import (
    ModelRecord,
    PairsRecord,
    RunManifest,
    read_manifest,
    write_manifest,
)
from dpo_diag.engines._weights import without_bars
from dpo_diag.errors import CheckpointError
from dpo_diag.tables import write_text

STATE_FILE = "training_state.pt"
TRAINER_STATE = "trainer_state.json"
RECIPE_FILE = "recipe.toml"
# what torch and json raise for a file that was cut short or overwritten
_UNREADABLE = (OSError, ValueError, RuntimeError, LookupError, EOFError, pickle.UnpicklingError)
_STEP = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Stopped:
    """A run as its last checkpoint left it.

    Attributes:
        folder: the checkpoint's.
        step: optimiser steps done.
        log: rows of ``log_history`` so far.
        state: content of ``training_state.pt``.
    """

    folder: Path
    step: int
    log: list[dict[str, Any]]
    state: dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """One run's folder and what is written into each of its models.

    Attributes:
        path: the folder.
        recipe: the recipe as TOML, every key stated.
        manifest: written beside each model.
    """

    path: Path
    recipe: str
    manifest: RunManifest

    def save_model(self, model: Any, tokenizer: Any, summary: dict[str, Any]) -> Path:
        """Write the final model into the folder.

        Args:
            model: transformers or PEFT model.
            tokenizer: goes with it.
            summary: fields of ``trainer_state.json``.
        """
        self._write(self.path, model, tokenizer, summary)
        return self.path

    def save_checkpoint(
        self, model: Any, tokenizer: Any, summary: dict[str, Any], state: dict[str, Any]
    ) -> Path:
        """Write ``checkpoint-<step>``, whole or not at all."""
        target = self.path / f"checkpoint-{summary['global_step']}"
        partial = self.path / f".{target.name}.{os.getpid()}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        self._write(partial, model, tokenizer, summary)
        torch.save(state, partial / STATE_FILE)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
        return target

    def checkpoints(self) -> dict[int, Path]:
        """Step -> folder of each complete checkpoint."""
        return {int(m[1]): p for p in self.path.glob("checkpoint-*") if (m := _match(p))}

    def last_checkpoint(self) -> Stopped | None:
        """The last complete checkpoint; None where there is none.

        Raises:
            CheckpointError: its recipe, pairs or base differ from this run's, or it is unreadable.
        """
        steps = self.checkpoints()
        if not steps:
            return None
        step = max(steps)
        folder = steps[step]
        self._require_same()
        try:
            state = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
            summary = json.loads((folder / TRAINER_STATE).read_text(encoding="utf-8"))
        except _UNREADABLE as error:
            raise CheckpointError(
                f"{folder}: cannot be resumed from ({type(error).__name__}); delete it to go on "
                "from the checkpoint before."
            ) from error
        return Stopped(folder, step, summary["log_history"], state)

    def start(self) -> None:
        """Write recipe and manifest before the first step, so that a stopped run explains itself.

        Raises:
            CheckpointError: the folder cannot be written.
        """
        try:
            write_text(self.path / RECIPE_FILE, self.recipe)
            write_manifest(self.path, self.manifest)
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be written: {error}.") from error

    def _require_same(self) -> None:
        require_recipe(self.path, self.recipe)
        before, now = read_manifest(self.path), self.manifest
        for what, one, other in (
            ("other pairs", before.pairs, now.pairs),
            ("another starting model", before.base, now.base),
            ("another reference", before.reference, now.reference),
        ):
            if _content(one) != _content(other):
                raise CheckpointError(
                    f"{self.path}: was started with {what}; resume with the "
                    "same, or take another folder."
                )

    def _write(self, folder: Path, model: Any, tokenizer: Any, summary: dict[str, Any]) -> None:
        with without_bars():
            model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_text(folder / TRAINER_STATE, json.dumps(summary, indent=2) + "\n")
        write_manifest(folder, self.manifest)


def require_recipe(folder: Path, recipe: str) -> None:
    """Refuse to take up, or to take for done, a run of another recipe.

    Raises:
        CheckpointError: the folder records other settings.
    """
    recorded = folder / RECIPE_FILE
    if recorded.is_file() and recorded.read_text(encoding="utf-8") != recipe:
        raise CheckpointError(
            f"{folder}: its {RECIPE_FILE} differs from this run's recipe, so going on would "
            "mix two runs; resume with the same recipe, or take another folder."
        )


def is_finished(folder: Path) -> bool:
    """Whether a run folder holds its final model."""
    return (folder / TRAINER_STATE).is_file()


def trainer_state(
    log: list[dict[str, Any]], *, step: int, n_steps: int, epoch: float, batch_size: int
) -> dict[str, Any]:
    """``trainer_state.json`` as transformers' Trainer writes it, for tools that read it."""
    from transformers import TrainerState

    state = TrainerState(
        epoch=epoch,
        global_step=step,
        max_steps=n_steps,
        num_train_epochs=max(1, round(epoch * n_steps / max(1, step))),
        train_batch_size=batch_size,
        log_history=log,
    )
    return {k: v for k, v in vars(state).items() if k != "stateful_callbacks"}


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's generators; data order and sampling need none."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put torch's generators back."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _content(record: ModelRecord | PairsRecord | None) -> str | None:
    """What a record stands for, wherever it lies."""
    if record is None:
        return None
    return record.content_hash if isinstance(record, PairsRecord) else record.fingerprint


def _match(path: Path) -> re.Match[str] | None:
    match = _STEP.fullmatch(path.name)
    return match if match and (path / STATE_FILE).is_file() else None
