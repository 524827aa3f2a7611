"""What a run folder says, as facts with their files; and what a reader of one trainer's folder is.

A format file holds one class derived from ``RunFormat`` and the module constant ``RUN_FORMAT``
naming it. Files are read through ``Folder``, so that anybody's folder is read with limits and
without running its code. Start reading at ``RunRecord``.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dpo_diag.run_formats._files import Folder, Problem

REFERENCE_FREE = {"simpo", "orpo", "cpo", "slic"}
"""Losses that take no reference model."""


class Fact(NamedTuple):
    """One value and the file that says it."""

    value: Any
    source: str


@dataclass(frozen=True)
class LogRow:
    """One row of a log.

    Attributes:
        step: optimiser step.
        values: numbers by normalised name; NaN for what was written as not a number.
    """

    step: int
    values: Mapping[str, float]


class Series(NamedTuple):
    """A logged quantity over steps.

    Attributes:
        step: (N,) steps, in order of the log.
        value: (N,) values.
    """

    step: np.ndarray
    value: np.ndarray

    def __len__(self) -> int:
        return self.value.size


@dataclass(frozen=True)
class TokenizerFacts:
    """What the tokenizer's files say.

    Attributes:
        source: file.
        eos, bos, pad: special tokens as text; None where none is set.
        adds_bos: whether plain text gets BOS in front; None where the files do not say.
        vocabulary: special tokens that exist.
        template: text of the chat template; None without one.
    """

    source: str
    eos: str | None = None
    bos: str | None = None
    pad: str | None = None
    adds_bos: bool | None = None
    vocabulary: frozenset[str] = frozenset()
    template: str | None = None


@dataclass(frozen=True)
class TemplateFacts:
    """What the chat template made of conversations.

    Attributes:
        n: conversations rendered.
        n_not_prefix: of these, where the prompt is no prefix of prompt and answer.
        n_without_eos: where nothing after the answer holds the EOS token.
        n_double_bos: where the text begins with BOS twice.
        begins_with_bos: whether the text begins with BOS.
        example: end of a prompt that the whole conversation lacks.
        tail: what follows the first conversation's answer.
        of: ``the training pairs`` or ``a made-up conversation``.
        error: why nothing could be rendered; empty where it could.
    """

    n: int = 0
    n_not_prefix: int = 0
    n_without_eos: int = 0
    n_double_bos: int = 0
    begins_with_bos: bool = False
    example: str = ""
    tail: str = ""
    of: str = "a made-up conversation"
    error: str = ""


@dataclass(frozen=True)
class DataFacts:
    """What the training pairs, and the test pairs, look like; counts unless said otherwise.

    Attributes:
        source: file, folder or hub id.
        n: training pairs.
        n_prompts: different prompts in training.
        n_test_prompts: different prompts in the test part.
        n_shared: prompts of the test part that are in training too.
        n_scored: pairs whose answers have scores (``score_chosen``, ``score_rejected``).
        n_score_reversed: of these, where the rejected answer has the higher one.
        n_chosen_refusal, n_rejected_refusal: answers that are empty or a bare refusal.
        n_begin_bos: prompts that begin with the BOS token as text.
        n_end_eos: answers that end with the EOS token as text.
        n_conversations: pairs whose prompt is a conversation.
        words: (n,) words of prompt and longer answer together: no tokenizer makes fewer tokens.
        prompt_words: (n,) words of the prompt.
    """

    source: str
    n: int = 0
    n_prompts: int = 0
    n_test_prompts: int = 0
    n_shared: int = 0
    n_scored: int = 0
    n_score_reversed: int = 0
    n_chosen_refusal: int = 0
    n_rejected_refusal: int = 0
    n_begin_bos: int = 0
    n_end_eos: int = 0
    n_conversations: int = 0
    words: np.ndarray = field(default_factory=lambda: np.zeros(0))
    prompt_words: np.ndarray = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class RunRecord:
    """A training run as its folder tells it.

    Attributes:
        folder: the run's.
        format: name of the reader.
        log: rows in the order of the file.
        log_source: file they are from; empty without one.
        raw: the rows as they stand in the file.
        settings: normalised name to fact; see ``settings.NAMES``.
        tokenizer: its facts; None without a tokenizer.
        checkpoints: steps of the saved models, in numeric order.
        has_final: whether a final model or adapter lies in the folder itself.
        read: files that were read.
        not_read: files that were not, with the reason.
        problems: what could not be read as it should.
        template: what the chat template renders; None where it was not tried.
        data: the training data; None where none was given.
    """

    folder: Path
    format: str
    log: tuple[LogRow, ...] = ()
    log_source: str = ""
    raw: tuple[Mapping[str, Any], ...] = ()
    settings: Mapping[str, Fact] = field(default_factory=dict)
    tokenizer: TokenizerFacts | None = None
    checkpoints: tuple[int, ...] = ()
    has_final: bool = False
    read: tuple[str, ...] = ()
    not_read: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    template: TemplateFacts | None = None
    data: DataFacts | None = None

    def series(self, name: str, *, finite: bool = True) -> Series:
        """A logged quantity over steps; rows without it are left out.

        Args:
            name: normalised, such as ``rewards/margins`` or ``eval_loss``.
            finite: leave rows out whose value is not a finite number.
        """
        rows = [(row.step, row.values[name]) for row in self.log if name in row.values]
        kept = [(s, v) for s, v in rows if math.isfinite(v) or not finite]
        return Series(
            np.array([s for s, _ in kept], dtype=float), np.array([v for _, v in kept], dtype=float)
        )

    def get(self, name: str) -> Any:
        """A setting's value; None where the folder does not say."""
        return self.settings[name].value if name in self.settings else None

    def where(self, name: str) -> str:
        """The file that says a setting; empty where none does."""
        return self.settings[name].source if name in self.settings else ""

    @property
    def loss_type(self) -> str:
        """The loss's name in lower case; empty where the folder does not say."""
        return str(self.get("loss_type") or "").lower()

    @property
    def is_logistic(self) -> bool:
        """Whether the loss at the reference is ln 2: DPO's, its smoothed and shared forms."""
        return self.loss_type in {"", "sigmoid", "dpo", "cdpo", "robust", "rdpo", "sigmoid_norm"}

    @property
    def takes_reference(self) -> bool:
        """Whether rewards are ratios to a reference, as far as the folder says."""
        return self.loss_type not in REFERENCE_FREE and self.get("reference_free") is not True

    @property
    def is_tiny(self) -> bool:
        """Whether the model is far smaller than any the field's ranges were found on."""
        hidden = self.get("hidden_size")
        return hidden is not None and hidden < 512


class RunFormat(ABC):
    """One trainer's way of leaving a run folder.

    Attributes:
        title: the trainer's name as people write it.
    """

    title: ClassVar[str]

    @abstractmethod
    def claim(self, folder: Folder) -> int:
        """How sure the format is that the folder is its own, 0 where it is not; 10 is certain."""

    @abstractmethod
    def read(self, folder: Folder) -> RunRecord:
        """The folder's facts; broken files become ``problems``."""
