"""Which pairs to train on: every pair of a split scored by a selector, the best kept.

A step before training. Other splits pass through untouched, so that what is trained on is chosen
and what is evaluated on is not. Start reading at ``select``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dpo_diag import __version__
from dpo_diag.errors import DataError
from dpo_diag.pairs import PairSet, frame_hash
from dpo_diag.pipeline.sandbox import jsonl
from dpo_diag.pipeline.selection_inputs import Gathered, Sources, gather
from dpo_diag.pipeline.work import EngineChoice, Work
from dpo_diag.selectors._base import Selector
from dpo_diag.tables import (
    PREFERENCE_PAIRS,
    Column,
    TableSpec,
    canonical_json,
    validate,
    write_table,
    write_text,
)

_PAIRS = {column.name: column for column in PREFERENCE_PAIRS.columns}

PAIR_SELECTION = TableSpec(
    "PairSelection",
    ("pair_id",),
    (
        *(_PAIRS[name] for name in ("pair_id", "prompt_id", "domain", "split")),
        Column("score", "float", "the selector's; higher is kept first", nullable=True),
        Column("rank", "float", "1 for the highest score, equal ones by pair_id", nullable=True),
        Column("is_kept", "bool", "the pair is in the selected set"),
        Column("reason", "string", "why it is, or is not"),
    ),
    "the score of every pair, what it was made of, and why the pair was kept or not",
)


@dataclass(frozen=True)
class SelectionPlan:
    """What to keep, by what.

    Attributes:
        selector: gives the scores.
        sources: where its columns come from.
        share: of the pairs that have a score, in (0, 1].
        n: number of pairs instead of a share; 0 where the share decides.
        split: the only one that is selected from; ``all`` for every pair.

    Raises:
        DataError: out of range, or the sources are not what the selector needs.
    """

    selector: Selector
    sources: Sources
    share: float = 0.1
    n: int = 0
    split: str = "train"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise DataError(f"the share to keep must be above 0 and at most 1, got {self.share}.")
        if self.n < 0:
            raise DataError(f"the number of pairs to keep must not be negative, got {self.n}.")
        self.sources.check(self.selector)


@dataclass(frozen=True)
class Selection:
    """The selected pairs and how they came to be selected.

    Attributes:
        pairs: those kept and those of other splits, in the order of the source, all its columns.
        table: PAIR_SELECTION of every pair with the selector's inputs and parts.
        counts: pairs by what became of them.
        notes: the same in sentences, to say aloud.
        record: selector, sources with fingerprints, hashes of data and result.
    """

    pairs: pd.DataFrame
    table: pd.DataFrame
    counts: Mapping[str, int]
    notes: tuple[str, ...]
    record: Mapping[str, Any]


def select(pairs: PairSet, plan: SelectionPlan, choice: EngineChoice, work: Work) -> Selection:
    """Score every pair of a split and keep the best.

    Args:
        pairs: of all splits.
        plan: what to keep.
        choice: engine for margins and states.
        work: store, cache, voice.

    Raises:
        DataError: no pair of the split, none with a score, or none to keep.
        CheckpointError, EngineError: as scoring.
    """
    frame = pairs.frame.reset_index(drop=True)
    is_candidate = (frame["split"] == plan.split).to_numpy() | (plan.split == "all")
    if not is_candidate.any():
        known = ", ".join(sorted(frame["split"].unique()))
        raise DataError(
            f"{pairs.source}: has no pair of the split {plan.split!r} to select from, only "
            f"{known}; give one of them as --split, or all."
        )
    candidates = replace(pairs, frame=frame[is_candidate].reset_index(drop=True))
    gathered = gather(plan.selector, candidates, plan.sources, choice, work)
    judged = _judged(plan, gathered, pairs.source)
    table = _table(frame, is_candidate, judged)
    counts, kept = _counts(table, is_candidate), frame[table["is_kept"]].reset_index(drop=True)
    record = {
        "dpo_diag": __version__,
        "selector": plan.selector.selector_def,
        "source": plan.selector.source,
        "split": plan.split,
        **({"keep_n": plan.n} if plan.n else {"keep": plan.share}),
        "inputs": dict(gathered.record),
        "engine": {"dtype": choice.options.dtype, "truncate": choice.truncate},
        "pairs": {"source": pairs.source, "content_hash": pairs.content_hash},
        "selected": {"content_hash": frame_hash(kept, "pair_id")},
        "counts": counts,
        "score_at_the_cut": float(judged.loc[judged["is_kept"], "score"].min()),
    }
    notes = (
        *gathered.notes,
        *_notes(plan, counts, judged, record["score_at_the_cut"]),
        _about_length(candidates.frame, judged["is_kept"].to_numpy()),
    )
    for note in notes:
        work.say(note)
    return Selection(kept, table, counts, notes, record)


def write_selection(selection: Selection, out: Path, scores: Path | None = None) -> list[Path]:
    """Write the pairs as JSONL, the table of all scores and the record beside them.

    Args:
        selection: what to write.
        out: file of the pairs, ending in ``.jsonl``.
        scores: file of the scores, Parquet or CSV by ending; default ``<out>.selection.parquet``.

    Returns:
        Pairs, scores, record.
    """
    scores = scores or out.with_suffix(".selection.parquet")
    record = dict(selection.record)
    return [
        write_text(out, jsonl(selection.pairs)),
        write_table(selection.table, scores, PAIR_SELECTION, record),
        write_text(out.with_suffix(".selection.json"), canonical_json(record) + "\n"),
    ]


def _judged(plan: SelectionPlan, gathered: Gathered, source: str) -> pd.DataFrame:
    """Candidates with score, rank, is_kept, reason, inputs and parts."""
    inputs = gathered.table
    scores = np.asarray(plan.selector.scores(inputs), dtype=np.float64)
    ids = inputs["pair_id"].to_numpy(dtype=str)
    n_scored = int((~np.isnan(scores)).sum())
    n_kept = _n_to_keep(plan, n_scored, _lacking(inputs), source)
    order = np.lexsort((ids, -scores))[:n_scored]  # NaN sorts last
    ranks = np.full(len(scores), np.nan)
    ranks[order] = np.arange(1, n_scored + 1)
    is_kept = ranks <= n_kept
    cut = scores[order[n_kept - 1]]
    is_split_tie = bool((scores[~is_kept] == cut).any())
    judged = inputs[["pair_id"]].assign(score=scores, rank=ranks, is_kept=is_kept)
    judged["reason"] = np.select(
        [
            np.isnan(scores),
            is_split_tie & (scores == cut) & is_kept,
            is_split_tie & (scores == cut),
            is_kept,
        ],
        [
            _lacking(inputs).to_numpy(dtype=str),
            "tied at the cut, kept by its pair_id",
            "tied at the cut, left out by its pair_id",
            "above the cut",
        ],
        "below the cut",
    )
    own = inputs.drop(columns="pair_id")
    return judged.join(own, rsuffix="_input").assign(**plan.selector.parts(inputs))


def _n_to_keep(plan: SelectionPlan, n_scored: int, lacking: pd.Series, source: str) -> int:
    if not n_scored:
        why = ", ".join(f"{n} have {reason}" for reason, n in lacking.value_counts().items())
        raise DataError(f"{source}: no pair has a score to select by: {why}.")
    if plan.n > n_scored:
        raise DataError(
            f"{source}: {plan.n} pairs were to be kept, and only {n_scored} have a score; ask for "
            "fewer."
        )
    n = plan.n or math.floor(plan.share * n_scored + 0.5)
    if not n:
        raise DataError(
            f"{source}: a share of {plan.share:g} of {n_scored} pairs keeps none; give "
            f"--keep {0.5 / n_scored:.2g} or more, or --keep-n."
        )
    return n


def _lacking(inputs: pd.DataFrame) -> pd.Series:
    """Why a pair has no score: the inputs it lacks, in words."""
    words = pd.Series("", index=inputs.index, dtype="str")
    for column in inputs.columns.drop("pair_id"):
        lacks = inputs[column].isna()
        words = words.mask(lacks, words + " and " + column)
    return "no score: " + words.str.removeprefix(" and ") + " missing"


def _table(frame: pd.DataFrame, is_candidate: np.ndarray, judged: pd.DataFrame) -> pd.DataFrame:
    rows = frame[["pair_id", "prompt_id", "domain", "split"]].merge(
        judged, on="pair_id", how="left", validate="one_to_one"
    )
    passed = "of the split " + rows["split"] + ", passed through"
    rows["reason"] = rows["reason"].where(is_candidate, passed)
    rows["is_kept"] = rows["is_kept"].where(is_candidate, True).astype(bool)
    return validate(rows, PAIR_SELECTION)


def _counts(table: pd.DataFrame, is_candidate: np.ndarray) -> dict[str, int]:
    ours = table[is_candidate]
    kept = ours[ours["is_kept"]]
    return {
        "n_candidates": len(ours),
        "n_scored": int(ours["score"].notna().sum()),
        "n_kept": len(kept),
        "n_prompts_kept": int(kept["prompt_id"].nunique()),
        "n_passed_through": int((~is_candidate).sum()),
        "n_tied_kept": int(ours["reason"].str.startswith("tied at the cut, kept").sum()),
        "n_tied_left_out": int(ours["reason"].str.startswith("tied at the cut, left").sum()),
        "n_without_score": int(ours["score"].isna().sum()),
    }


def _notes(
    plan: SelectionPlan, counts: Mapping[str, int], judged: pd.DataFrame, cut: float
) -> tuple[str, ...]:
    share = counts["n_kept"] / counts["n_scored"]
    notes = [
        f"{plan.selector.selector_def}: kept {counts['n_kept']} of {counts['n_scored']} pairs "
        f"({share:.1%}) on {counts['n_prompts_kept']} prompts, those with a score of {cut:.4g} or "
        "more."
    ]
    missing = judged.loc[judged["score"].isna(), "reason"].value_counts().sort_index()
    notes += [f"{n} pairs dropped, {reason}." for reason, n in missing.items()]
    n_in, n_out = counts["n_tied_kept"], counts["n_tied_left_out"]
    if n_out:
        notes.append(
            f"{n_in + n_out} pairs tie at the cut; {n_in} of them are kept, by the order of ids."
        )
    for column in ("external_margin", "implicit_margin"):
        if column in judged:
            notes.append(_about(column, judged[column].dropna()))
    if counts["n_passed_through"]:
        notes.append(f"{counts['n_passed_through']} pairs of other splits passed through.")
    return tuple(notes)


def _about(column: str, margins: pd.Series) -> str:
    """What a source of margins says of the labels: where it is negative it disagrees."""
    if margins.nunique() == 1:
        return f"{column} is {margins.iloc[0]:.4g} for every pair: it decides nothing."
    negative = int((margins < 0).sum())
    return (
        f"{column} disagrees with the label of {negative} of {len(margins)} pairs "
        f"({negative / len(margins):.1%})."
    )


def _about_length(frame: pd.DataFrame, is_kept: np.ndarray) -> str:
    """How the selection moves the difference in length: a scorer's taste is taught with it."""
    chosen, rejected = (frame[side].str.split().str.len() for side in ("chosen", "rejected"))
    gap = (chosen - rejected).to_numpy(dtype=float)
    return (
        f"chosen less rejected is {gap[is_kept].mean():+.1f} words on average among the kept "
        f"pairs, {gap.mean():+.1f} among all."
    )
