"""chrF: F-score of character n-grams, by sacrebleu, divided by 100.

Needs no words, no model and no download, so it works for any language and for the sandbox. Recall
counts ``beta`` squared times as much as precision. Source: Popovic 2015 (chrF), 2017 (chrF++);
sacrebleu's implementation, whose defaults are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpo_diag.errors import DataError
from dpo_diag.similarities._base import Similarity
from dpo_diag.similarities._libraries import require_library


@dataclass(frozen=True)
class Chrf(Similarity):
    """Character n-gram F-score of each answer against its reference answer.

    Attributes:
        char_order: longest character n-gram, at least 1.
        word_order: longest word n-gram; 2 is chrF++, 0 takes characters only.
        beta: weight of recall, at least 1.
        lowercase: whether case is ignored.
    """

    char_order: int = 6
    word_order: int = 0
    beta: int = 2
    lowercase: bool = False

    blindness = (
        "meaning: a paraphrase in other words scores low, a negation of the same words high; "
        "recall weighs more, so longer answers gain"
    )

    def __post_init__(self) -> None:
        for name, least in (("char_order", 1), ("word_order", 0), ("beta", 1)):
            if getattr(self, name) < least:
                raise DataError(
                    f"similarity chrf: {name} must be {least} or more, got {getattr(self, name)}."
                )
        require_library("sacrebleu", "chrf")

    def similarity(self, responses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Value of chrF / 100 of each answer, shape (N,) float64, 0 to 1."""
        from sacrebleu.metrics import CHRF

        measure = CHRF(
            char_order=self.char_order,
            word_order=self.word_order,
            beta=self.beta,
            lowercase=self.lowercase,
        )
        values = [
            measure.sentence_score(response, [reference]).score / 100.0
            for response, reference in zip(responses, references, strict=True)
        ]
        return np.clip(np.array(values, dtype=np.float64), 0.0, 1.0)


SIMILARITY = Chrf
