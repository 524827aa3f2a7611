"""Pairs without what the checks would leave out, every dropped row with its reason.

Start reading at ``cleaned``. Nothing is dropped that is not counted under one reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dpo_diag import registry
from dpo_diag.errors import DataError
from dpo_diag.pipeline.pair_checks import FAMILY, CheckedPairs
from dpo_diag.pipeline.sandbox import jsonl
from dpo_diag.tables import write_text

ALWAYS = ("duplicates", "contradictions")
UNREAD = "that make no pair"
UNUSABLE = "with an empty text or identical answers"


@dataclass(frozen=True)
class Cleaned:
    """What is left, and what became of the rest.

    Attributes:
        frame: PreferencePairs with further columns, in their order.
        dropped: reason -> rows dropped for it (for the first that applies).
        n_rows: rows there were.
    """

    frame: pd.DataFrame
    dropped: dict[str, int]
    n_rows: int

    def sentence(self) -> str:
        """Everything that was dropped, by reason."""
        parts = [f"{n:,} {reason}" for reason, n in self.dropped.items() if n]
        gone = sum(self.dropped.values())
        why = f": {', '.join(parts)}" if parts else ""
        return f"{len(self.frame):,} of {self.n_rows:,} rows kept, {gone:,} dropped{why}."


def droppable() -> tuple[str, ...]:
    """Everything that a check of the family can leave out, by name."""
    found = [
        name for check in registry.names(FAMILY) for name in registry.load(FAMILY, check).removes
    ]
    return tuple(sorted(found))


def check_names(names: Sequence[str]) -> None:
    """Refuse what no check can leave out.

    Raises:
        DataError: names what there is.
    """
    known = droppable()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataError(
            f"--drop {unknown[0]}: nothing of this name can be dropped, only {', '.join(known)}."
        )


def cleaned(checked: CheckedPairs, also: Sequence[str] = ()) -> Cleaned:
    """The data's own rows without copies, contradictions, unusable rows and what else is named.

    Args:
        checked: what the checks found.
        also: further names of ``droppable()``.

    Raises:
        DataError: no such name, or no row is left.
    """
    check_names(also)
    masks = {"unusable": ~checked.data.is_usable}
    for found in checked.found.values():
        masks |= {name: mask for name, mask in found.drops.items() if name in {*ALWAYS, *also}}
    left = np.ones(checked.n_own, bool)
    dropped = {UNREAD: checked.n_unread}
    for reason in ("unusable", *dict.fromkeys((*ALWAYS, *also))):
        mask = masks.get(reason, np.zeros(checked.data.n, bool))[: checked.n_own] & left
        dropped[UNUSABLE if reason == "unusable" else reason] = int(mask.sum())
        left &= ~mask
    frame = checked.pairs.frame.iloc[: checked.n_own][left]
    n_rows = checked.n_own + checked.n_unread
    if frame.empty:
        why = ", ".join(f"{n} {reason}" for reason, n in dropped.items() if n)
        raise DataError(f"{checked.pairs.source}: no pair would be left: {why} dropped.")
    frame = frame.drop(columns=["row", "place"]).reset_index(drop=True)
    return Cleaned(frame, dropped, n_rows)


def write_cleaned(found: Cleaned, path: Path) -> Path:
    """Write the pairs that are left as JSONL, in dpo-diag's own format."""
    return write_text(path, jsonl(found.frame))
