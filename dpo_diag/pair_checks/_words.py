"""Texts as word numbers: one pass over the characters, everything after it is arrays.

A word is a run of letters and digits without case, one Chinese or Japanese character, or one mark
of punctuation. Shared by the checks, not a plug-in. Start reading at ``tokenised``.
"""

import re
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|[^\w\s]")


@dataclass(frozen=True)
class Words:
    """The words of several texts, one after the other.

    Attributes:
        ids: (T,) int32 numbers of the words.
        starts: (m + 1,) where each text begins in ``ids``, and the end.
        vocabulary: word of each number.
    """

    ids: np.ndarray
    starts: np.ndarray
    vocabulary: tuple[str, ...]

    def of(self, text: int) -> np.ndarray:
        """Numbers of one text's words."""
        return self.ids[self.starts[text] : self.starts[text + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Words of each text, (m,)."""
        return np.diff(self.starts)

    def same_words(self) -> np.ndarray:
        """Code of each text, (m,): equal where they have the same words in the same order.

        Punctuation counts only in texts that have nothing else.
        """
        spelled = np.array([word[0].isalnum() for word in self.vocabulary], bool)
        codes: dict[bytes, int] = {}
        found = np.zeros(len(self.starts) - 1, np.int64)
        for text in range(len(found)):
            ids = self.of(text)
            plain = ids[spelled[ids]] if len(ids) else ids
            key = (plain if len(plain) else ids).tobytes()
            found[text] = codes.setdefault(key, len(codes))
        return found


def tokenised(texts: Iterable[str]) -> Words:
    """Words of each text; equal words have equal numbers in all of them."""
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    ids, starts = array("i"), [0]
    for text in texts:
        ids.extend(map(numbers.__getitem__, _WORD.findall(folded(text))))
        starts.append(len(ids))
    flat = np.frombuffer(ids, np.intc) if ids else np.zeros(0, np.intc)  # no copy: it may be large
    return Words(flat, np.array(starts, np.int64), tuple(numbers))


def folded(text: str) -> str:
    """Text without differences of case or of Unicode composition."""
    return unicodedata.normalize("NFKC", text).casefold()
