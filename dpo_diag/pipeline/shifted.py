"""Shifted sets beside the in-distribution pairs: their names, their kinds, what overlaps.

A shifted pair that the in-distribution set, the training pairs or an earlier shifted set holds
already is left out, counted and named: it is not off distribution. Start reading at ``joined``.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from dpo_diag.errors import DataError
from dpo_diag.pairs import PairSet, frame_hash
from dpo_diag.pipeline.analyze import IN_DOMAIN

KINDS = ("prompt", "domain", "response_source", "token_level")
_LOOSE = re.compile(r"[\s.,;:!?'\"]+")


@dataclass(frozen=True)
class Shifted:
    """A shifted set as the user names it.

    Attributes:
        pairs: its pairs; those with a domain of their own keep it.
        name: domain of pairs that have none.
        kind: one of ``KINDS``; empty where nobody said, then the pairs' own ``shift_kind`` counts.
    """

    pairs: PairSet
    name: str
    kind: str = ""


def check_kind(kind: str, where: str) -> str:
    """The kind of shift itself, once it is one.

    Raises:
        DataError: it is not one of the four.
    """
    if kind and kind not in KINDS:
        raise DataError(
            f"{where}: {kind!r} is no kind of shift; take one of {', '.join(KINDS)}, or name none."
        )
    return kind


def joined(pairs: PairSet, shifted: Sequence[Shifted], training: PairSet | None = None) -> PairSet:
    """In-distribution and shifted pairs as one set, each shifted set under its own domain.

    Args:
        pairs: the in-distribution pairs; where none is called so, all are, and what their source
            calls them stays as ``original_domain``.
        shifted: further sets; one whose pairs carry domains of their own keeps them.
        training: what the models were trained on, where it is known: not joined, only compared.

    Returns:
        The joined set; its notes count what was left out of each shifted set.

    Raises:
        DataError: nothing is left of a shifted set, a shifted set is called ``in_domain``, or a
            kind of shift is unknown or contradicts the pairs' own.
    """
    frames, notes = [_in_domain(pairs.frame)], []
    known = [("the in-distribution pairs", pairs)]
    if training is not None:
        known.append(("the training pairs", training))
    for extra in shifted:
        frame = _named(extra)
        for where, other in known:
            frame, said = _without(frame, extra, where, other)
            notes += said
        frames.append(frame)
        known.append((f"the shifted set {extra.name}", replace(extra.pairs, frame=frame)))
    frame = pd.concat(frames, ignore_index=True)
    return replace(
        pairs,
        frame=frame,
        content_hash=frame_hash(frame, "pair_id"),
        source=", ".join([pairs.source, *(extra.pairs.source for extra in shifted)]),
        notes=(*pairs.notes, *(note for extra in shifted for note in extra.pairs.notes), *notes),
    )


def overlap_notes(whole: PairSet, *parts: PairSet) -> tuple[str, ...]:
    """The notes that joining added: those that no part had."""
    had = {note for part in parts for note in part.notes}
    return tuple(note for note in whole.notes if note not in had)


def text_keys(frame: pd.DataFrame) -> np.ndarray:
    """What two pairs of the same words have in common, (n,).

    Case, spacing, marks of punctuation and the order of the two answers do not count; signs that
    mean something in code or mathematics do.
    """
    prompts = _plain(frame["prompt"])
    chosen, rejected = _plain(frame["chosen"]), _plain(frame["rejected"])
    return np.array(
        [
            "\x1f".join((prompt, *sorted(answers)))
            for prompt, *answers in zip(prompts, chosen, rejected, strict=True)
        ],
        dtype=object,
    )


def _plain(texts: Iterable[str]) -> list[str]:
    return [_LOOSE.sub(" ", str(text).casefold()).strip() for text in texts]


def _named(extra: Shifted) -> pd.DataFrame:
    """The set's rows under its name and with its kind."""
    source, frame = extra.pairs.source, extra.pairs.frame
    if extra.name == IN_DOMAIN:
        raise DataError(f"{source}: a shifted set cannot be called {IN_DOMAIN}.")
    if not set(frame["domain"]) - {IN_DOMAIN}:
        frame = frame.assign(domain=extra.name)
    kind = check_kind(extra.kind, extra.name)
    own = pd.Series([], dtype=object)
    if "shift_kind" in frame.columns:
        own = frame["shift_kind"].dropna()
        own = own[own != ""]
    for value in own.unique():
        check_kind(str(value), f"{source}: column shift_kind")
        if kind and value != kind:
            raise DataError(
                f"{source}: was called a {kind} shift, but its pairs say {value} (column "
                "shift_kind); leave one of the two out."
            )
    return frame.assign(shift_kind=kind) if kind else frame


def _without(
    frame: pd.DataFrame, extra: Shifted, where: str, other: PairSet
) -> tuple[pd.DataFrame, list[str]]:
    """The rows that another set does not hold, and what was left out or is shared, in words."""
    source, theirs = extra.pairs.source, other.frame
    same = frame["pair_id"].isin(set(theirs["pair_id"])).to_numpy()
    alike = np.isin(text_keys(frame), text_keys(theirs)) & ~same
    gone = same | alike
    if len(frame) and gone.all():
        raise DataError(
            f"{source}: {len(frame)} of its pairs are also in {where} ({other.source}), first "
            f"{frame['pair_id'].min()}; a shifted set must be other data."
        )
    notes = []
    if gone.any():
        first = frame.loc[gone, "pair_id"].min()
        notes.append(
            f"{source}: {int(gone.sum())} of {len(frame)} shifted pairs are left out: "
            f"{int(same.sum())} are also in {where} ({other.source}) and {int(alike.sum())} are "
            f"but for case, punctuation or the order of the answers; first {first}."
        )
    kept = frame[~gone]
    asked = kept["prompt_id"].isin(set(theirs["prompt_id"])).to_numpy()
    if asked.any():
        n = int(kept.loc[asked, "prompt_id"].nunique())
        first = kept.loc[asked, "prompt_id"].min()
        notes.append(
            f"{source}: {n} prompts of {int(asked.sum())} shifted pairs are also in {where} "
            f"({other.source}), first {first}; they are kept, but are no new prompts."
        )
    return kept, notes


def _in_domain(frame: pd.DataFrame) -> pd.DataFrame:
    if (frame["domain"] == IN_DOMAIN).any():
        return frame
    return frame.assign(domain=IN_DOMAIN, original_domain=frame["domain"])
