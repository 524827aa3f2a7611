"""Preference pairs and prompts from the ecosystem's data sets, with ids of their content.

The format of a source is recognised from its columns (or forced), each row becomes one or more
pairs, and what is wrong with them is counted: duplicates are dropped, contradictory labels kept
(annotators disagree), prompts shared between splits kept. ``notes`` says all of it in sentences.
The formats are in ``pair_formats/``, one file each. Start reading at ``read_pairs``.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dpo_diag import registry
from dpo_diag.errors import DataError
from dpo_diag.pair_formats._base import PairFormat, Row
from dpo_diag.pair_formats._collected import Collected
from dpo_diag.pair_formats._every_row import EveryRow
from dpo_diag.pair_formats._sources import Part, parts_of
from dpo_diag.tables import content_hash

_FAMILY = "pair_formats"


@dataclass(frozen=True)
class PairSet:
    """Preference pairs and what was found while reading them.

    Attributes:
        frame: PreferencePairs with the source's further columns.
        format: name of the format they were read as.
        source: file, folder or hub id.
        notes: what was found, in sentences to say aloud.
        counts: rows, pairs, prompts, and each thing that was dropped or noticed.
        content_hash: SHA-256 (hex) of all columns, rows in order of their ids.
    """

    frame: pd.DataFrame
    format: str
    source: str
    notes: tuple[str, ...]
    counts: dict[str, int]
    content_hash: str


@dataclass(frozen=True)
class PromptSet:
    """Prompts without pairs and what was found while reading them; fields as in ``PairSet``."""

    frame: pd.DataFrame
    source: str
    notes: tuple[str, ...]
    counts: dict[str, int]
    content_hash: str


@dataclass(frozen=True)
class EveryPair:
    """Pairs as they stand in their source, nothing dropped.

    Attributes:
        frame: PairRows with the source's further columns.
        format: name of the format they were read as.
        source: file, folder or hub id.
        notes: how they were read, in sentences to say aloud.
        unread: place and reason of every row that makes no pair.
        content_hash: SHA-256 (hex) of all columns, rows in order.
    """

    frame: pd.DataFrame
    format: str
    source: str
    notes: tuple[str, ...]
    unread: tuple[str, ...]
    content_hash: str


def read_pairs(
    source: Path | str,
    *,
    format: str = "auto",
    split: str | None = None,
    label: str = "better",
    revision: str | None = None,
    limit: int = 0,
    domain: str | None = None,
    drop_invalid: bool = False,
) -> PairSet:
    """Preference pairs from a file, a folder or the hub.

    Args:
        source: JSONL, JSON, CSV or Parquet file, a folder of them (its ``pairs`` file where there
            is one), a folder of ``datasets.save_to_disk``, or a hub id ``owner/name[:part]``.
        format: a file name of ``pair_formats/``, or ``auto`` to recognise it.
        split: only this split: its own name in the source, or ``train``, ``validation``, ``test``.
        label: what decides which answer is chosen: ``better``, or ``safer`` where it is known.
        revision: branch, tag or commit of a hub id.
        limit: only the first so many pairs; 0 means all.
        domain: written into every row; otherwise the source's own, else ``in_domain``.
        drop_invalid: leave rows with an empty or missing text or identical answers out, counted.

    Raises:
        DataError: nothing to read, columns that are no known format, a row that is no pair; names
            file, row, column found and column expected.
        UnknownName: no such format.
    """
    parts = parts_of(source, stem="pairs", revision=revision)
    form, name, why = _format_of(parts, format)
    if label not in form.labels:
        raise DataError(
            f"{source}: the format {name} has no label {label!r}, only {', '.join(form.labels)}."
        )
    found = Collected(
        _set_name(source, revision),
        split=split,
        domain=domain,
        limit=limit,
        drop_invalid=drop_invalid,
    )
    read = _parts_to_read(parts, form, split)
    for part in read:
        found.add_pairs(part, form, name=name, label=label)
    frame = found.pair_frame()
    n_prompts = int(frame["prompt_id"].nunique())
    counts = {"n_pairs": len(frame), "n_prompts": n_prompts, **found.finish()}
    head = f"{source}: {len(frame)} pairs on {n_prompts} prompts, format {name} ({why})"
    notes = (head, *_reading_notes(form, label, parts, read), *_count_notes(counts))
    return PairSet(frame, name, str(source), notes, counts, frame_hash(frame, "pair_id"))


def read_every_pair(
    source: Path | str,
    *,
    format: str = "auto",
    split: str | None = None,
    label: str = "better",
    limit: int = 0,
) -> EveryPair:
    """Every pair of a source, the ones that ``read_pairs`` drops or refuses included.

    Args:
        source: as in ``read_pairs``.
        format: as in ``read_pairs``.
        split: as in ``read_pairs``.
        label: as in ``read_pairs``.
        limit: only the first so many pairs; 0 means all.

    Raises:
        DataError: nothing to read, columns that are no known format, a label that makes no sense.
        UnknownName: no such format.
    """
    parts = parts_of(source, stem="pairs")
    form, name, why = _format_of(parts, format)
    if label not in form.labels:
        raise DataError(
            f"{source}: the format {name} has no label {label!r}, only {', '.join(form.labels)}."
        )
    found = EveryRow(_set_name(source, None), split=split, limit=limit)
    read = _parts_to_read(parts, form, split)
    for part in read:
        found.add_pairs(part, form, name=name, label=label)
    frame = found.row_frame()
    head = f"{source}: {len(frame)} pairs, format {name} ({why})"
    left_out = {key: n for key, n in found.finish().items() if key != "n_shared_prompts"}
    notes = (head, *_reading_notes(form, label, parts, read), *_count_notes(left_out))
    unread = tuple(found.unread)
    return EveryPair(frame, name, str(source), notes, unread, frame_hash(frame, "row"))


def read_prompts(
    source: Path | str,
    *,
    split: str | None = None,
    revision: str | None = None,
    limit: int = 0,
    domain: str | None = None,
) -> PromptSet:
    """Prompts from a file of prompts or of pairs, each prompt once.

    Args:
        source: as in ``read_pairs`` (in a folder its ``prompts`` file, then its ``pairs``); with a
            column ``prompt`` holding text or turns, or any format of pairs; or a .txt file with
            one prompt per line.
        split: as in ``read_pairs``.
        revision: as in ``read_pairs``.
        limit: only the first so many prompts; 0 means all.
        domain: as in ``read_pairs``.

    Raises:
        DataError: as ``read_pairs``.
    """
    parts = parts_of(source, stem="prompts", revision=revision)
    name = _recognised(parts[0].rows[0])
    if not name and "prompt" not in parts[0].rows[0]:
        raise DataError(
            f"{parts[0].where}: found the columns {', '.join(parts[0].rows[0])}, expected "
            "'prompt', or the columns of a format of pairs."
        )
    form = registry.load(_FAMILY, name)() if name else None
    # Rows of pairs whose prompt cannot be told are the pairs' concern; a file of prompts is not.
    found = Collected(
        _set_name(source, revision),
        split=split,
        domain=domain,
        limit=limit,
        drop_invalid=form is not None,
    )
    read = _parts_to_read(parts, form, split) if form else parts
    for part in read:
        found.add_prompts(part, form, name=name)
    frame = found.prompt_frame(of_pairs=form is not None)
    counts = {"n_prompts": len(frame), **found.finish()}
    kind = f"of pairs in the format {name}" if name else "of a file of prompts"
    notes = (f"{source}: {len(frame)} prompts {kind}", *_count_notes(counts))
    return PromptSet(frame, str(source), notes, counts, frame_hash(frame, "prompt_id"))


def frame_hash(frame: pd.DataFrame, key: str) -> str:
    """SHA-256 (hex) of a table's content, further columns included, rows in order of ``key``."""
    columns = sorted(frame.columns)
    ordered = frame.sort_values(key)[columns]
    return content_hash([columns, *ordered.itertuples(index=False, name=None)])


def _set_name(source: Path | str, revision: str | None) -> str:
    """Name of a set without the folders of the machine it lies on."""
    name = Path(source).resolve().name if Path(source).exists() else str(source)
    return f"{name}@{revision}" if revision else name


def _format_of(parts: list[Part], wanted: str) -> tuple[PairFormat, str, str]:
    """The format, its name, and how it was found."""
    if wanted != "auto":
        return registry.load(_FAMILY, wanted)(), wanted, "as asked for"
    row = parts[0].rows[0]
    name = _recognised(row)
    if not name:
        raise DataError(f"{parts[0].where}: {_unrecognised(row)}")
    form = registry.load(_FAMILY, name)()
    known = [c for c in row if c in {*form.required, *form.optional}]
    return form, name, f"recognised from its columns {', '.join(known)}"


def _recognised(row: Row) -> str:
    """The format with the strongest claim on a row; empty where none has any."""
    claims = {name: registry.load(_FAMILY, name)().claim(row) for name in registry.names(_FAMILY)}
    best = max(claims, key=claims.__getitem__)
    return best if claims[best] else ""


def _unrecognised(row: Row) -> str:
    """Which columns were found, and what the nearest format expected."""
    near: dict[str, tuple[int, int]] = {}
    forms = {name: registry.load(_FAMILY, name) for name in registry.names(_FAMILY)}
    for name, form in forms.items():
        known = len(row.keys() & {*form.required, *form.optional})
        if row.keys() & set(form.required):
            near[name] = (len(set(form.required) - row.keys()), -known)
    found = f"found the columns {', '.join(row) or 'none'}"
    if not near:
        return (
            f"{found}, which are no known format of pairs (there are {', '.join(forms)}); rename "
            "the columns to prompt, chosen and rejected."
        )
    nearest = min(near, key=near.__getitem__)
    lacking = [c for c in forms[nearest].required if c not in row]
    if not lacking:
        return f"{found}, but {nearest} expects other values in them; force one with --pair-format."
    alike = [difflib.get_close_matches(c, row.keys(), n=1) for c in lacking]
    hints = [f"rename {n[0]!r} to {c!r}" for c, n in zip(lacking, alike, strict=True) if n]
    expected = ", ".join(map(repr, lacking))
    advice = f"; {' and '.join(hints)}" if hints else ""
    return f"{found}; the nearest format, {nearest}, expects {expected}{advice}."


def _parts_to_read(parts: list[Part], form: PairFormat, split: str | None) -> list[Part]:
    names = [part.split for part in parts]
    kept = [split] if split in names else form.splits(names)
    return [part for part in parts if part.split in kept]


def _reading_notes(
    form: PairFormat, label: str, parts: list[Part], read: list[Part]
) -> tuple[str, ...]:
    notes = [form.note] if form.note else []
    if len(form.labels) > 1:
        other = ", ".join(name for name in form.labels if name != label)
        notes.append(f"chosen is the {label} answer (--label {other} for the other label)")
    if len(read) < len(parts):
        left = ", ".join(part.split for part in parts if part not in read)
        notes.append(f"read the split {', '.join(p.split for p in read)} and left out {left}")
    return tuple(notes)


_COUNT_NOTES = {
    "n_duplicates": "{n} duplicate pairs dropped (same prompt, chosen and rejected)",
    "n_contradictions": "{n} contradictory pairs kept (the same two answers labelled both ways)",
    "n_shared_prompts": "{n} prompts are in more than one split: test numbers are not independent",
    "n_undecided": "{n} comparisons without a winner left out",
    "n_diverged": "{n} rows left out whose dialogues part before the last answer",
    "n_invalid": "{n} rows left out: an empty or missing text, or identical answers",
    "n_repeated_prompts": "{n} repeated prompts dropped",
    "n_other_ids": "{n} ids were not those of the content: new ones made, the old ones kept in "
    "original_pair_id and original_prompt_id",
}


def _count_notes(counts: dict[str, int]) -> tuple[str, ...]:
    return tuple(
        text.format(n=counts[key]) for key, text in _COUNT_NOTES.items() if counts.get(key)
    )
