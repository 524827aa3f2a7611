"""What a pair is like before any policy sees it: length, likeness, difficulty; not a plug-in.

Everything here depends on the texts, the labels and the reference alone, so that matching on it
cannot take away what training did. Start reading at ``covariates``; ``strata_of`` makes the strata
of ``--match``.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _pairs, _rows

COVARIATES = (
    "length_difference",  # chosen minus rejected, tokens
    "answer_overlap",  # words that both answers have, share of all words of the two
    "reference_margin",  # of the reference's mean log-prob per token, nats, chosen minus rejected
    "gold_gap",  # |true reward of chosen minus rejected|, gold reward
    "prompt_overlap",  # share of the prompt's token couples that a training prompt has
    "embedding_distance",  # cosine distance from the nearest training prompts
    "prompt_surprise",  # of the prompt's tokens under the reference, nats per token
    "answer_surprise",  # of both answers' tokens under the reference, nats per token
)
_CUT = {"difficulty": 3, "length": 0, "overlap": 3, "prompt_overlap": 3}
_SOURCE = {"overlap": "answer_overlap", "prompt_overlap": "prompt_overlap"}
DERIVED = tuple(_CUT)  # names of --match that are no column of the pairs


def covariates(frame: pd.DataFrame) -> pd.DataFrame:
    """Every covariate of every pair, NaN where it is unknown.

    Args:
        frame: (n,) rows of ImplicitRewards of one model, with ``answer_overlap``,
            ``gold_margin`` and the columns of PromptDistances where they are known.

    Returns:
        A frame of n rows with the input's index and the columns ``COVARIATES``.
    """
    n_chosen, n_rejected = (frame[f"n_tokens_{s}"].to_numpy(float) for s in ("chosen", "rejected"))
    chosen, rejected = (frame[f"ref_logp_{s}"].to_numpy(float) for s in ("chosen", "rejected"))
    tokens = n_chosen + n_rejected
    return pd.DataFrame(
        {
            "length_difference": n_chosen - n_rejected,
            "answer_overlap": _numbers(frame, "answer_overlap"),
            "reference_margin": _pairs.per_token(chosen, n_chosen)
            - _pairs.per_token(rejected, n_rejected),
            "gold_gap": np.abs(_numbers(frame, "gold_margin")),
            "prompt_overlap": _numbers(frame, "seen_share"),
            "embedding_distance": _numbers(frame, "distance"),
            "prompt_surprise": _numbers(frame, "prompt_surprise"),
            "answer_surprise": -_pairs.per_token(chosen + rejected, tokens),
        },
        index=frame.index,
    )


def answer_overlap(pairs: pd.DataFrame) -> np.ndarray:
    """Words that both answers have over words that any has (Jaccard), (n,), in [0, 1].

    Args:
        pairs: PreferencePairs.
    """
    shares = np.full(len(pairs), np.nan)
    for index, (one, two) in enumerate(zip(pairs["chosen"], pairs["rejected"], strict=True)):
        first, second = set(str(one).split()), set(str(two).split())
        if first or second:
            shares[index] = len(first & second) / len(first | second)
    return shares


def quantile_labels(values: np.ndarray, n_bins: int) -> np.ndarray:
    """Which of ``n_bins`` equally full bins each value is in, ``1 of 3`` and so on; empty for NaN.

    Equal values are in one bin; with fewer different values there are fewer bins.
    """
    values = np.asarray(values, float)
    labels = np.full(len(values), "", dtype=object)
    known = ~np.isnan(values)
    if known.any():
        edges = np.unique(np.quantile(values[known], np.arange(1, n_bins) / n_bins))
        bins = np.searchsorted(edges, values[known], side="left")
        labels[known] = [f"{b + 1} of {n_bins}" for b in bins]
    return labels


def strata_of(frame: pd.DataFrame, match: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The crossed strata of each row, and what could not be matched on, in words.

    Args:
        frame: (n,) rows of one model with the columns of ``covariates``.
        match: columns of the pairs, or ``difficulty`` (thirds of the true gap where every pair has
            one, else of the reference's margin), ``length`` (which answer is the longer),
            ``overlap`` (thirds of the words that the answers share), ``prompt_overlap``.

    Returns:
        (n,) names, empty where a part is unknown or nothing could be matched on.
    """
    parts, notes = [], []
    for name in match:
        labels = _labels(frame, name)
        if labels is None:
            notes.append(f"The pairs have no column {name}: drops cannot be matched on it.")
        elif name not in DERIVED or len(set(labels) - {""}) > 1:  # a difficulty of one kind is none
            parts.append(labels)
    if not parts:
        return np.full(len(frame), "", dtype=object), notes
    whole = parts[0]
    for labels in parts[1:]:
        known = (whole != "") & (labels != "")
        whole = np.where(known, whole + " · " + labels, "")
    return whole.astype(object), notes


def controls_of(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Strata that hold length, or likeness of the answers, or both fixed; (n,) each."""
    length, overlap = (frame[c].to_numpy(float) for c in ("length_difference", "answer_overlap"))
    one, two = quantile_labels(length, 3), quantile_labels(overlap, 3)
    both = np.where((one != "") & (two != ""), one + " · " + two, "").astype(object)
    return {
        "same_length": quantile_labels(length, 5),
        "same_overlap": quantile_labels(overlap, 5),
        "same_length_overlap": both,
    }


def _labels(frame: pd.DataFrame, name: str) -> np.ndarray | None:
    if name == "difficulty":
        gap = frame["gold_gap"].to_numpy(float)
        by_gold = len(gap) > 0 and not np.isnan(gap).any()
        values, word = (gap, "gap") if by_gold else (frame["reference_margin"], "reference")
        labels = quantile_labels(np.asarray(values, float), _CUT[name])
        return np.where(labels == "", "", f"{word} " + labels).astype(object)
    if name in _SOURCE:
        labels = quantile_labels(frame[_SOURCE[name]].to_numpy(float), _CUT[name])
        return np.where(labels == "", "", f"{name} " + labels).astype(object)
    return _rows.as_text(frame[name]) if name in frame.columns else None


def _numbers(frame: pd.DataFrame, column: str) -> np.ndarray:
    if column not in frame.columns:
        return np.full(len(frame), np.nan)
    return pd.to_numeric(frame[column]).to_numpy(float)
