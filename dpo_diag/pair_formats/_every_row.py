"""Every pair of a source as it stands: nothing dropped, so that what is wrong can be seen.

``Collected`` makes a set to train on; this keeps what it would refuse or drop (duplicates, empty
and identical answers) with the place where it was read. Start reading at ``EveryRow.row_frame``.
"""

from collections.abc import Iterator

import pandas as pd

from dpo_diag.pair_formats._base import Draft, PairFormat, Row
from dpo_diag.pair_formats._collected import Collected, _conversation, _key
from dpo_diag.pair_formats._sources import Part
from dpo_diag.tables import PAIR_ROWS, content_id


class EveryRow(Collected):
    """Pairs as they are read, in order, each with its place.

    Attributes:
        unread: place and reason of every row that makes no pair at all (a missing text, half of a
            character).
    """

    def __init__(self, source: str, *, split: str | None = None, limit: int = 0) -> None:
        super().__init__(source, split=split, limit=limit, drop_invalid=True)
        self.unread: list[str] = []
        self._place_read = ""
        self._problems: list[str] = []

    def row_frame(self) -> pd.DataFrame:
        """PAIR_ROWS with the source's further columns, in the order they were read.

        Raises:
            DataError: no pair is left, or a further column cannot be kept.
        """
        return self._frame(PAIR_ROWS, "pair")

    def _rows(self, part: Part) -> Iterator[tuple[str, Row]]:
        for where, row in super()._rows(part):
            self._place_read = where
            yield where, row

    def _drafts(self, where: str, row: Row, form: PairFormat, label: str) -> list[Draft]:
        self._problems = []
        drafts = super()._drafts(where, row, form, label)
        whole = [draft for draft in drafts if _is_encodable(draft)]
        if len(whole) < len(drafts):
            self.unread.append(f"{where}: holds half of a character (a lone surrogate)")
        elif self._problems and not drafts:
            self.unread.append(f"{where}: {self._problems[0]}")
        return whole

    def _is_valid(self, where: str, problem: str) -> bool:
        """Everything is kept here; a format's refusal of a row is remembered by ``_drafts``."""
        if problem:
            self._problems.append(problem)
        return True

    def _add_pair(self, draft: Draft, part: Part, form: PairFormat) -> None:
        extras = dict(draft.extras)
        split = self._split_of(extras, part, form.default_split)
        if split is None:
            return
        key = _key(draft)
        ids = {
            "pair_id": content_id(key, draft.chosen, draft.rejected),
            "prompt_id": content_id(key),
        }
        number = len(self._records)
        self._splits_of[ids["prompt_id"]].add(split)
        self._records[str(number)] = {
            "row": number,
            "place": self._place_read,
            **ids,
            "prompt": draft.prompt,
            "chosen": draft.chosen,
            "rejected": draft.rejected,
            **self._place(extras, split, ids),
            **_conversation(draft),
            **extras,
        }


def _is_encodable(draft: Draft) -> bool:
    try:
        f"{draft.prompt}{draft.chosen}{draft.rejected}".encode()
    except UnicodeEncodeError:
        return False
    return True
