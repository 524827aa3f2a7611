"""Shifted sets and the training pairs from parsed options; not a command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpo_diag.cli._session import say

if TYPE_CHECKING:
    from dpo_diag.checkpoints import Checkpoint
    from dpo_diag.pairs import PairSet
    from dpo_diag.pipeline.analyze import Evidence
    from dpo_diag.pipeline.shifted import Shifted
    from dpo_diag.pipeline.work import EngineChoice, Work

SHIFTED_HELP = (
    "Shifted pairs, as FILE, NAME=FILE, NAME:KIND=FILE or :KIND=FILE; repeat. KIND is prompt, "
    "domain, response_source or token_level. Pairs with a domain or shift_kind column keep it."
)


def shifted_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Shifted sets, and what to match drops on."""
    for option in reversed(
        (
            click.option("--shifted", multiple=True, help=SHIFTED_HELP),
            click.option(
                "--train",
                help="Training pairs, for overlap and distances; default: the train split of the "
                "run's recorded pairs, else of --pairs.",
            ),
            click.option(
                "--match",
                help="Strata to compare at, crossed, with commas: columns of the pairs, or "
                "difficulty, length, overlap, prompt_overlap; default: stratum,difficulty.",
            ),
        )
    ):
        function = option(function)
    return function


def shifted_from(text: str, options: Mapping[str, Any]) -> Shifted:
    """A shifted set from ``[NAME][:KIND]=FILE`` or ``FILE``, its notes said aloud.

    Raises:
        DataError: no such kind of shift, or unreadable pairs.
    """
    from dpo_diag.pairs import read_pairs
    from dpo_diag.pipeline.shifted import Shifted, check_kind

    name, equals, source = text.partition("=")
    if not equals or Path(text).exists():
        name, source = "", text
    name, _, kind = name.partition(":")
    check_kind(kind, f"--shifted {text}")
    pairs = read_pairs(source, label=options.get("label", "better"))
    for note in pairs.notes:
        say(note)
    return Shifted(pairs, name or Path(source).stem, kind)


def with_shifted(
    pairs: PairSet, options: Mapping[str, Any], training: PairSet | None = None
) -> PairSet:
    """The pairs with those of every ``--shifted`` under its own domain; overlap said aloud.

    Raises:
        DataError: a shifted set is the in-distribution one, or as ``joined``.
    """
    from dpo_diag.errors import DataError
    from dpo_diag.pipeline.shifted import joined, overlap_notes

    sets = [shifted_from(text, options) for text in options.get("shifted", ())]
    if not sets:
        return pairs
    for extra in sets:
        if Path(extra.pairs.source).resolve() == Path(pairs.source).resolve():
            raise DataError(
                f"{pairs.source} is the in-distribution pairs as well as --shifted; a shifted set "
                "must be other data."
            )
    whole = joined(pairs, sets, training)
    for note in overlap_notes(whole, pairs, *(extra.pairs for extra in sets)):
        say(note)
    return whole


def training_from(
    options: Mapping[str, Any], pairs: PairSet, checkpoints: Sequence[Checkpoint] = ()
) -> PairSet | None:
    """The training pairs: ``--train``, else the train split of what is recorded or given.

    Returns:
        The pairs, or None where no source has a train split.

    Raises:
        DataError: ``--train`` cannot be read.
    """
    from dpo_diag.errors import DataError
    from dpo_diag.pair_formats._base import NoSuchSplit
    from dpo_diag.pairs import read_pairs

    label = options.get("label", "better")
    if options.get("train"):
        try:
            return read_pairs(options["train"], split="train", label=label)
        except NoSuchSplit:
            return read_pairs(options["train"], label=label)
    recorded = [checkpoint.pairs for checkpoint in checkpoints if checkpoint.pairs]
    for source in dict.fromkeys([*recorded, options.get("pairs") or pairs.source]):
        try:
            return read_pairs(source, split="train", label=label)
        except DataError as error:  # a recorded file may be gone, or be of another format
            if not isinstance(error, NoSuchSplit):
                say(f"{source}: not read as training pairs ({error})")
    say("The training pairs are not known, so overlap with them and distances from them are not "
        "measured; give --train FILE.")  # fmt: skip
    return None


def with_distances(
    evidence: Evidence,
    options: Mapping[str, Any],
    training: PairSet | None,
    work: Work,
    engine: EngineChoice,
) -> Evidence:
    """The evidence with the prompts' distances from the training prompts, where they are wanted."""
    from dpo_diag.pipeline.distances import distance_rows

    if training is None or evidence.pairs is None or not options["distances"]:
        return evidence
    source = options.get("distance_model") or ""
    found = distance_rows(
        evidence.checkpoints, evidence.pairs, training, engine, work, encoder=source
    )
    for note in found.notes:
        say(note)
    return replace(
        evidence,
        notes=(*evidence.notes, *found.notes),
        more={**evidence.more, "PromptDistances": found.table},
    )


def check_match(parameters: Mapping[str, Any], pairs: PairSet) -> None:
    """Refuse a stratum of ``--match`` that no pair has, before any work.

    Raises:
        DataError: a name that is neither a column of the pairs nor one that is derived.
    """
    from dpo_diag.analyzers._shift_covariates import DERIVED
    from dpo_diag.errors import DataError

    known = [*pairs.frame.columns, *DERIVED]
    for name in parameters.get("match", ()):
        if name not in known:
            raise DataError(
                f"--match {name}: the pairs have no such column; they have "
                f"{', '.join(pairs.frame.columns)}, and {', '.join(DERIVED)} can be made of any."
            )


def parameters_from(options: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of the analyzer ``ood`` that the options name.

    Raises:
        DataError: ``--match`` names nothing.
    """
    from dpo_diag.errors import DataError

    if options.get("match") is None:
        return {}
    names = tuple(name.strip() for name in options["match"].split(",") if name.strip())
    if not names:
        raise DataError("--match names no stratum; leave it out for stratum,difficulty.")
    return {"match": names}
