"""HelpSteer3 preferences: two answers, a signed overall strength and each annotator's own.

Strengths run from -3 to 3, positive prefers the second answer; an overall 0 has no winner and such
rows are left out and counted. The strengths of the single annotators (``score`` of each entry of
``individual_preference``) become ``vote_share`` and ``n_votes``, a 0 half a vote for either side:
the overall preference need not be their majority, so a share can lie below one half. The column
``domain`` (code, stem ...) is kept as ``task_domain``: it is no shift.

Source: nvidia/HelpSteer3, preference; columns as its card names them, ``score`` from memory and
checked on every row.
"""

from typing import Any

from dpo_diag.conversations import as_turns, rendering
from dpo_diag.errors import DataError
from dpo_diag.pair_formats._base import (
    Draft,
    LeftOut,
    PairFormat,
    Row,
    extras_of,
    integer_of,
    text_of,
)
from dpo_diag.pair_formats._votes import of_strengths

STRENGTHS = range(-3, 4)


class Helpsteer3(PairFormat):
    """HelpSteer3 pairs, the winner told by the sign of ``overall_preference``."""

    required = ("context", "response1", "response2", "overall_preference")
    optional = ("domain", "language", "individual_preference")

    def drafts(self, row: Row, label: str) -> list[Draft]:
        """One pair with its votes; the overall strength survives with its sign."""
        strength = integer_of(row, "overall_preference", STRENGTHS)
        if strength == 0:
            raise LeftOut("undecided")
        winner, loser = ("response2", "response1") if strength > 0 else ("response1", "response2")
        asked = self.prompt(row)
        used = {"context", "response1", "response2", "individual_preference", "domain"}
        extras: dict[str, Any] = {**extras_of(row, used), "overall_preference": strength}
        if isinstance(row.get("domain"), str):
            extras["task_domain"] = row["domain"]
        extras |= of_strengths(_strengths(row), 1 if strength > 0 else -1)
        answers = text_of(row, winner), text_of(row, loser)
        return [Draft(asked.prompt, *answers, asked.turns, extras)]

    def prompt(self, row: Row) -> Draft:
        """The context as a conversation, whether or not the comparison has a winner."""
        turns = as_turns(row["context"], "context")
        return Draft(rendering(turns), "", "", turns)


FORMAT = Helpsteer3


def _strengths(row: Row) -> list[int]:
    """The single annotators' strengths.

    Raises:
        DataError: an entry is no mapping with a ``score`` from -3 to 3.
    """
    given = row.get("individual_preference")
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(entry, dict) for entry in given):
        raise DataError(
            "column individual_preference must be a list of entries with a score, got "
            f"{given!r:.60}"
        )
    found = []
    for number, entry in enumerate(given, 1):
        try:
            found.append(integer_of(entry, "score", STRENGTHS))
        except DataError as error:
            raise DataError(f"column individual_preference, entry {number}: {error}") from error
    return found
