"""METEOR by nltk with two of its three matching stages: equal words, then equal Porter stems.

The third stage, WordNet synonyms, needs a download and is left out, so values are lower than those
of a full METEOR and not comparable with published ones. Words are runs of letters and digits, other
characters stand alone; case is ignored. Even an identical answer is below 1: it is one run of
matched words, which costs ``gamma / words^beta``. Source: Lavie and Agarwal 2007, as implemented in
nltk.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpo_diag.errors import DataError
from dpo_diag.similarities._base import Similarity
from dpo_diag.similarities._libraries import require_library

_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Meteor(Similarity):
    """METEOR without synonyms of each answer against its reference answer.

    Attributes:
        alpha: weight of recall against precision, between 0 and 1.
        beta: how steeply scattered matches are punished, 0 or more.
        gamma: largest share that scattered matches cost, 0 to 1.
    """

    alpha: float = 0.9
    beta: float = 3.0
    gamma: float = 0.5

    blindness = (
        "synonyms, and meaning beyond shared words; recall weighs nine times as much as precision, "
        "so longer answers gain; languages without spaces are one word"
    )

    def __post_init__(self) -> None:
        for name, is_right, expected in (
            ("alpha", 0 < self.alpha < 1, "between 0 and 1"),
            ("beta", self.beta >= 0, "0 or more"),
            ("gamma", 0 <= self.gamma <= 1, "from 0 to 1"),
        ):
            if not is_right:
                raise DataError(
                    f"similarity meteor: {name} must be {expected}, got {getattr(self, name)}."
                )
        require_library("nltk", "meteor")

    def similarity(self, responses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """METEOR of each answer, shape (N,) float64, 0 to 1."""
        from nltk.translate.meteor_score import single_meteor_score

        values = [
            single_meteor_score(
                _WORD.findall(reference),
                _WORD.findall(response),
                wordnet=_NoSynonyms(),
                alpha=self.alpha,
                beta=self.beta,
                gamma=self.gamma,
            )
            for response, reference in zip(responses, references, strict=True)
        ]
        return np.array(values, dtype=np.float64)


class _NoSynonyms:
    """Stands for WordNet where no word has synonyms."""

    def synsets(self, word: str) -> list[object]:
        return []


SIMILARITY = Meteor
