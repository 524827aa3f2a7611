"""What a check of preference data is: pairs as they stand in, what looks wrong and the remedy out.

A file holds one class derived from ``Check`` and the module constant ``CHECK`` naming it. Contract:
the order of the rows does not matter to the numbers; inputs are unchanged; no rows, one row and
hostile text give an answer, not an exception; every measure has unit, direction and n; a check
that lacks what it needs says so. May import: errors, content, tables, stats, numpy, scipy, pandas.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pandas as pd

from dpo_diag.pair_checks._words import Words, tokenised
from dpo_diag.stats.intervals import Interval

# from the most to the least pressing; pipeline and screen show checks in this order
REPAIR, LOOK, KNOW, CLEAN, UNSEEN = "repair", "look", "know", "clean", "not checked"
CONCERNS = (REPAIR, LOOK, KNOW, CLEAN, UNSEEN)
EVALUATION = ("validation", "test")


@dataclass(frozen=True)
class PairData:
    """The pairs and what else may be known of them.

    Attributes:
        rows: PairRows in order, index 0, 1, ...; checks never change it.
        tables: further tables by the name of their spec (``ScoredPairs`` and ``PairStates`` of a
            base model, ``ReversalPredictions``), keyed by pair_id.
        unread: rows of the source that make no pair, each with its reason.
        refusals: (2, n) bool, which chosen and which rejected answers decline; None where nobody
            looked.
        ci_level: of the intervals, in (0, 1).
        beta: of the planned run, for what depends on it.
        n_cases: most examples of one kind.
    """

    rows: pd.DataFrame
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    refusals: np.ndarray | None = None
    ci_level: float = 0.95
    beta: float = 0.1
    n_cases: int = 10

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.rows)

    @functools.cached_property
    def prompts(self) -> np.ndarray:
        """Code of each row's prompt, (n,): the clusters."""
        return pd.factorize(self.rows["prompt_id"], sort=True)[0]

    @functools.cached_property
    def asked(self) -> tuple[np.ndarray, Words]:
        """Code of each row's prompt text, (n,), and the words of every different one."""
        codes, texts = pd.factorize(self.rows["prompt"])
        return codes, tokenised(texts)

    @functools.cached_property
    def _answers(self) -> tuple[np.ndarray, pd.Index]:
        both = pd.concat([self.rows["chosen"], self.rows["rejected"]], ignore_index=True)
        codes, texts = pd.factorize(both)
        return codes.reshape(2, -1), pd.Index(texts)

    @property
    def answers(self) -> np.ndarray:
        """Code of each row's chosen and rejected answer, (2, n); equal text, equal code."""
        return self._answers[0]

    @property
    def texts(self) -> pd.Index:
        """Every different answer, by its code."""
        return self._answers[1]

    @functools.cached_property
    def words(self) -> Words:
        """Words of every different answer, by its code."""
        return tokenised(self.texts)

    @functools.cached_property
    def alike(self) -> np.ndarray:
        """As ``answers``, but case, punctuation and white space do not count, (2, n)."""
        return self.words.same_words()[self.answers] if self.n else self.answers

    @functools.cached_property
    def is_usable(self) -> np.ndarray:
        """Rows that can be trained on, (n,): no text empty, answers not identical."""
        texts = [self.rows[name].str.strip() != "" for name in ("prompt", "chosen", "rejected")]
        differ = self.answers[0] != self.answers[1]
        return np.logical_and.reduce([text.to_numpy(bool) for text in texts]) & differ


@dataclass(frozen=True)
class Measure:
    """One number of a check.

    Attributes:
        statistic: its name, unlike that of any other check's.
        interval: estimate with interval, n and clusters.
        unit: in words; ``share of ...`` is shown in per cent.
        better: ``lower``, ``higher`` or ``neither``.
        part: ``all`` or ``column=value``.
        flag: what speaks against it beside small numbers.
        p_value, p_adjusted: of a test, NaN where none was made.
    """

    statistic: str
    interval: Interval
    unit: str
    better: str = "lower"
    part: str = "all"
    flag: str = ""
    p_value: float = np.nan
    p_adjusted: float = np.nan


@dataclass(frozen=True)
class Case:
    """An example: position of the row, what it shows, how strongly, one line about it."""

    row: int
    kind: str
    severity: float
    note: str


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        concern: one of ``CONCERNS``.
        summary: what was found, one sentence with its numbers.
        advice: what to do, one sentence; empty where nothing is to be done. ``{data}`` stands for
            the source on the command line.
        measures: every number.
        cases: the most telling rows.
        drops: reason -> (n,) bool, rows that the repair would leave out.
        notes: what else to know: what was sampled, what was left out.
        weight: rows concerned, as a share; ranks checks of equal concern.
    """

    concern: str
    summary: str
    advice: str = ""
    measures: tuple[Measure, ...] = ()
    cases: tuple[Case, ...] = ()
    drops: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    weight: float = 0.0


class Check:
    """Base of every check.

    Class attributes:
        question: the question it answers, one sentence.
        reading: how to read its numbers.
        misleads: when they mislead.
        headline: statistics that stand first.
        removes: names of what its repair may leave out, the keys of ``Checked.drops``.
        about_model: its numbers are about a base model, not about the data alone.
    """

    question: ClassVar[str] = ""
    reading: ClassVar[str] = ""
    misleads: ClassVar[str] = ""
    headline: ClassVar[tuple[str, ...]] = ()
    removes: ClassVar[tuple[str, ...]] = ()
    about_model: ClassVar[bool] = False

    def run(self, data: PairData, rng: np.random.Generator) -> Checked:
        """What the pairs show; ``rng`` draws samples and folds."""
        raise TypeError(f"{type(self).__name__} does not implement run().")
