"""Sources of the fields of ``PairLogps`` that only some variants need.

Start reading at ``FieldSource``; ``columns.py`` is the shortest example.
"""

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from dpo_diag.encoded import EncodedResponse
from dpo_diag.errors import DataError
from dpo_diag.training.forward import ResponseLogps
from dpo_diag.training.inputs import Inputs
from dpo_diag.training.policy import Policy
from dpo_diag.training.recipe import Recipe
from dpo_diag.variants._base import Needs, Variant

# column -> which data carry it, for the message when it is missing
CARRIED_BY: dict[str, str] = {
    "is_chosen_safe": "PKU-SafeRLHF, the sandbox",
    "is_rejected_safe": "PKU-SafeRLHF, the sandbox",
    "judge_agreement": "the sandbox's panel.jsonl",
    "harm_reasoning_chosen": "the sandbox's panel.jsonl",
    "harm_reasoning_rejected": "the sandbox's panel.jsonl",
    "harm_answer_chosen": "the sandbox's panel.jsonl",
    "harm_answer_rejected": "the sandbox's panel.jsonl",
    "annotator": "the sandbox, HelpSteer-like sets with annotator ids, any JSONL with the column",
    "reference_answer": "the sandbox's reference_answers.jsonl, or any prompts or pairs in JSONL, "
    "CSV or Parquet with such a column",
}


@dataclass(frozen=True)
class Context:
    """What a source is made from: the pairs of one split, already relabelled.

    Attributes:
        frame: n rows of PreferencePairs with their extra columns; sides are as trained on.
        chosen, rejected: their token ids.
        policy: model, reference, text rule.
        variant, recipe: of the run.
        inputs: data beside the pairs.
        is_training: false for the validation pairs.
        folder: where a source may leave artefacts of the run.
    """

    frame: pd.DataFrame
    chosen: Sequence[EncodedResponse]
    rejected: Sequence[EncodedResponse]
    policy: Policy
    variant: Variant
    recipe: Recipe
    inputs: Inputs
    is_training: bool
    folder: Path

    def __len__(self) -> int:
        return len(self.frame)


@dataclass(frozen=True)
class Pass:
    """What came out of one forward pass of B pairs.

    Attributes:
        chosen, rejected: of one width; with ``attribution`` where the variant needs it.
        beside: of the source's own ``answers``; None where it gave none.
    """

    chosen: ResponseLogps
    rejected: ResponseLogps
    beside: ResponseLogps | None = None


class FieldSource(Protocol):
    """Gives some fields of ``PairLogps``; derive from it for the hooks that do nothing."""

    #: what became of the pairs, for the run record
    counts: Mapping[str, int] = {}

    def begin(self, step: int) -> None:
        """Called before each optimiser step (from 0) of the training pairs."""

    def fields(self, index: np.ndarray) -> Mapping[str, Any]:
        """Fields of ``PairLogps`` for the pairs at ``index``, (B,); ``extra`` is merged."""
        return {}

    def answers(self, index: np.ndarray) -> Sequence[EncodedResponse]:
        """Answers that pass the model beside the pairs at ``index``, (B,), to the same prompts.

        They go through the one forward pass of the pairs, with gradient; none as a rule.
        """
        return ()

    def fields_of_pass(self, index: np.ndarray, seen: Pass) -> Mapping[str, Any]:
        """Fields of ``PairLogps`` that are made from the pass of the pairs at ``index``."""
        return {}

    def artefacts(self, folder: Path) -> None:
        """Write what the run should leave behind; called whenever a model is saved."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and texts that a resumed run needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a stored state."""


def make_sources(context: Context) -> dict[str, FieldSource]:
    """The sources of the variant's needs, by need."""
    defaults, sources = Needs(), {}
    for item in dataclasses.fields(Needs):
        wanted = getattr(context.variant.needs, item.name)
        if wanted != getattr(defaults, item.name) and has_source(item.name):
            module = importlib.import_module(f"dpo_diag.training.sources.{item.name}")
            sources[item.name] = module.make_source(context)
    return sources


def has_source(need: str) -> bool:
    """Whether a file in this folder provides a need."""
    return (Path(__file__).parent / f"{need}.py").is_file()


def required_column(frame: pd.DataFrame, column: str, variant: Variant) -> pd.Series:
    """A column of the pairs without missing values.

    Raises:
        DataError: the column is missing (the data that carry it are named) or has holes.
    """
    if column not in frame.columns:
        where = CARRIED_BY.get(column)
        raise DataError(
            f"{variant.name} needs the column {column}, which the pairs lack; take "
            f"{f'pairs that carry it ({where})' if where else 'pairs with it'} or another variant."
        )
    missing = frame[column].isna().to_numpy()
    if missing.any():
        row = int(np.flatnonzero(missing)[0])
        raise DataError(
            f"{variant.name} needs {column} on every pair; {int(missing.sum())} are missing, "
            f"first at pair_id {frame['pair_id'].iloc[row]}."
        )
    return frame[column]
