"""Votes of several annotators on a pair, from whichever columns a source has.

Start reading at ``with_votes``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dpo_diag.errors import DataError

OPTIONAL = ("vote_share", "n_votes", "votes_chosen", "votes_rejected")


def with_votes(extras: Mapping[str, Any]) -> dict[str, Any]:
    """A pair's further columns, its votes checked and, of two counts, made a share.

    ``votes_chosen`` and ``votes_rejected`` become ``vote_share`` (the share for chosen) and
    ``n_votes``, and stay; two zeros are no vote. A missing value is no vote.

    Raises:
        DataError: a share outside [0, 1], a count that is no whole number from 0 on, one count
            without the other, a share of so many votes that cannot be, or both ways at odds.
    """
    found = dict(extras)
    if not set(OPTIONAL) & found.keys():
        return found
    share = _share(found.get("vote_share"))
    n_votes = _count(found, "n_votes")
    counts = [_count(found, name) for name in OPTIONAL[2:]]
    if (counts[0] is None) != (counts[1] is None):
        raise DataError(
            "columns votes_chosen and votes_rejected must both be there or both be missing"
        )
    if counts[0] is not None and counts[1] is not None:
        total = counts[0] + counts[1]
        counted = counts[0] / total if total else None
        for name, given, own in (("vote_share", share, counted), ("n_votes", n_votes, total)):
            if given is not None and (own is None or abs(given - own) > 1e-3):
                raise DataError(
                    f"column {name} is {given:g}, but votes_chosen and votes_rejected are "
                    f"{counts[0]} and {counts[1]}; leave one of the two out"
                )
        share, n_votes = counted, total or None
    if share is not None and n_votes is not None and not _is_possible(share, n_votes):
        raise DataError(
            f"columns vote_share and n_votes do not fit: {share:g} of {n_votes} votes is no whole "
            "number of votes"
        )
    return found | {"vote_share": share, "n_votes": n_votes if share is not None else None}


def of_strengths(strengths: Sequence[float], sign: int) -> dict[str, Any]:
    """Votes from signed strengths of single annotators; a strength of 0 is half a vote.

    Args:
        strengths: one per annotator, of one sign for either answer.
        sign: 1 where positive strengths are for the chosen answer, -1 where negative ones are.
    """
    if not strengths:
        return {}
    votes = sum(0.5 if s == 0 else float(s * sign > 0) for s in strengths)
    return {"vote_share": votes / len(strengths), "n_votes": len(strengths)}


def _is_possible(share: float, n_votes: int) -> bool:
    """Whether so many votes, halves for ties, give such a share to three digits."""
    halves = 2.0 * share * n_votes
    return n_votes > 0 and abs(halves - round(halves)) <= 2.0 * n_votes * 1e-2


def _share(value: Any) -> float | None:
    number = _number(value, "vote_share", "a share from 0 to 1")
    if number is not None and not 0.0 <= number <= 1.0:
        raise DataError(f"column vote_share must be a share from 0 to 1, got {number:g}")
    return number


def _count(row: Mapping[str, Any], column: str) -> int | None:
    number = _number(row.get(column), column, "a whole number from 0 on")
    if number is not None and (number < 0 or number != int(number)):
        raise DataError(f"column {column} must be a whole number from 0 on, got {number:g}")
    return None if number is None else int(number)


def _number(value: Any, column: str, expected: str) -> float | None:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not math.isfinite(number):
        raise DataError(f"column {column} must be {expected}, got {value!r:.40}")
    return number
