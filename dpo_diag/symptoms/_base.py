"""What a symptom is: a question put to a run's record, with its source and an answer in sentences.

A symptom file holds one class derived from ``Symptom`` and the module constant ``SYMPTOM`` naming
it. A symptom reads a ``RunRecord`` and nothing else. It says nothing (None) where the record looks
right, and ``lacking`` where the record cannot tell, so that "looked right" and "could not be
looked at" stay apart. Start reading at ``Symptom``.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from dpo_diag.run_formats._base import RunRecord

SEVERITIES = ("error", "warning", "note")
"""Worst first: the run is not what it seems; something is likely wrong; good to know."""
CERTAINTIES = ("certain", "likely", "possible")
"""Surest first: read off a file; a clear pattern; a pattern that has harmless explanations."""


@dataclass(frozen=True)
class Finding:
    """One thing that looks wrong about a run.

    Attributes:
        symptom: name of the file that found it.
        severity: one of ``SEVERITIES``.
        certainty: one of ``CERTAINTIES``.
        title: what looks wrong, one sentence.
        evidence: the numbers behind it, one sentence.
        meaning: what it means, one or two sentences.
        fix: what to do, one or two sentences.
        files: where the evidence is from.
        source: paper or issue behind the rule.
    """

    symptom: str
    severity: str
    certainty: str
    title: str
    evidence: str
    meaning: str
    fix: str
    files: tuple[str, ...]
    source: str


class Symptom(ABC):
    """One rule.

    Attributes:
        question: what it asks of a run, one sentence.
        source: paper or issue it is from; what is ours says so.
        explained_by: symptoms that, once found, are the cause of this one.
    """

    question: ClassVar[str]
    source: ClassVar[str]
    explained_by: ClassVar[tuple[str, ...]] = ()

    def lacking(self, record: RunRecord) -> str:
        """What the record lacks for the question to be put, in words; empty where it can be."""
        return ""

    @abstractmethod
    def examine(self, record: RunRecord) -> Finding | None:
        """The finding, or None where the record looks right; called where nothing is lacking."""

    def found(
        self,
        severity: str,
        certainty: str,
        title: str,
        *,
        evidence: str,
        meaning: str,
        fix: str,
        files: tuple[str, ...],
    ) -> Finding:
        """A finding in this symptom's name and with its source."""
        name = type(self).__module__.rsplit(".", 1)[-1]
        kept = tuple(file for file in dict.fromkeys(files) if file)
        return Finding(name, severity, certainty, title, evidence, meaning, fix, kept, self.source)
