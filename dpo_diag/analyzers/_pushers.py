"""The pushes behind reversed pairs, joined with what is known of the pairs; not a plug-in.

Start reading at ``negative_pushes``, then ``pair_numbers``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dpo_diag.analyzers._rows import Statistic

TOPS = (1, 10, 100)
SHARE = "share of the negative push on a pair"
_EXCESS = f"difference in {SHARE}, above the training pairs' rate"
STATISTICS = (
    *(Statistic(f"top_{k}_share", SHARE, "neither", is_share=False) for k in TOPS),
    Statistic("pushers_for_half", "training pairs", "neither", is_share=False),
    Statistic("listed_share", SHARE, "neither", is_share=False),
    Statistic("same_prompt_share", SHARE, "neither", is_share=False),
    Statistic("against_gold_share", SHARE, "neither", is_share=False),
    Statistic("against_gold_excess", _EXCESS, "neither", is_share=False),
    Statistic("against_votes_share", SHARE, "neither", is_share=False),
    Statistic("against_votes_excess", _EXCESS, "neither", is_share=False),
)  # fmt: skip
_WHOLE = 1.0 - 1e-6  # listed shares that sum to this leave nothing out but rounding


def label_facts(pairs: pd.DataFrame) -> pd.DataFrame:
    """What is known of every pair, indexed by pair_id.

    Args:
        pairs: PreferencePairs, ``gold_margin`` and ``vote_share`` where known.

    Returns:
        ``prompt_id``; ``against_gold`` and ``against_votes``: 1 where gold order or annotators
        contradict the label, 0 where they agree, one half on an even vote, NaN unknown.
    """
    unique = pairs.drop_duplicates("pair_id").set_index("pair_id").sort_index()
    gold, votes = (_numbers(unique, name) for name in ("gold_margin", "vote_share"))
    return pd.DataFrame(
        {
            "prompt_id": unique["prompt_id"],
            "against_gold": np.where(np.isnan(gold) | (gold == 0.0), np.nan, gold < 0.0),
            "against_votes": np.where(np.isnan(votes), np.nan, 0.5 - 0.5 * np.sign(votes - 0.5)),
        },
        index=unique.index,
    )


def negative_pushes(conflicts: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    """The negative pushes of one model, the hardest first, with facts of the pushing pairs.

    Args:
        conflicts: PairConflicts of one model.
        facts: see ``label_facts``.

    Returns:
        Rows in order of pair_id and push with ``pair_id``, ``train_pair_id``, ``push``, ``cosine``,
        ``share``, ``rank`` (0 for the hardest), ``same_prompt`` (NaN where a pair is unknown),
        ``against_gold`` and ``against_votes``.
    """
    rows = conflicts[(conflicts["push"] < 0.0) & conflicts["share"].notna()]
    rows = rows.sort_values(["pair_id", "push", "train_pair_id"], ignore_index=True)
    own = facts["prompt_id"].reindex(rows["pair_id"]).to_numpy(object)
    known = facts.reindex(rows["train_pair_id"])
    other = known["prompt_id"].to_numpy(object)
    is_unknown = pd.isna(own) | pd.isna(other)
    return rows.assign(
        rank=rows.groupby("pair_id").cumcount(),
        same_prompt=np.where(is_unknown, np.nan, (own == other).astype(float)),
        against_gold=known["against_gold"].to_numpy(float),
        against_votes=known["against_votes"].to_numpy(float),
    )


def pair_numbers(
    pushes: pd.DataFrame, pair_ids: Sequence[str], base: Mapping[str, float]
) -> pd.DataFrame:
    """Every statistic of every pair: (n,) rows indexed by pair_id, NaN where it cannot be known.

    A share of the push that comes from some kind of pairs is taken over the listed pushes whose
    kind is known. The share of the first k is unknown where fewer are listed and they leave a part
    of the push out; so is the number that makes up one half.

    Args:
        pushes: see ``negative_pushes``.
        pair_ids: pairs to report, any order.
        base: ``against_gold`` and ``against_votes`` rates of the training pairs, NaN unknown.
    """
    rows = pushes[pushes["pair_id"].isin(pair_ids)]
    grouped = rows.groupby("pair_id")
    found = pd.DataFrame(index=pd.Index(pair_ids, name="pair_id"))
    listed, count = grouped["share"].sum(), grouped.size()
    for k in TOPS:
        share = rows[rows["rank"] < k].groupby("pair_id")["share"].sum()
        found[f"top_{k}_share"] = share.where((count >= k) | (listed >= _WHOLE))
    running = grouped["share"].cumsum()
    reached = rows[running >= 0.5 - 1e-12].groupby("pair_id")["rank"].min()
    found["pushers_for_half"] = reached + 1.0
    found["listed_share"] = listed.clip(upper=1.0)
    for name, column in (
        ("same_prompt_share", "same_prompt"),
        ("against_gold_share", "against_gold"),
        ("against_votes_share", "against_votes"),
    ):
        found[name] = _weighted(rows, column)
    for kind in ("against_gold", "against_votes"):
        found[f"{kind}_excess"] = found[f"{kind}_share"] - base[kind]
    return found.astype(float)


def blame(pushes: pd.DataFrame, pair_ids: Sequence[str]) -> pd.DataFrame:
    """How much of the push on these pairs each training pair carries, the most first.

    Every pair counts the same, however large its push.

    Returns:
        ``train_pair_id``, ``share`` (sums over training pairs to the mean listed share) and
        ``n_pushed`` (pairs on whose list it stands).
    """
    rows = pushes[pushes["pair_id"].isin(pair_ids)]
    n_pairs = max(rows["pair_id"].nunique(), 1)
    found = rows.groupby("train_pair_id")["share"].agg(["sum", "size"]).reset_index()
    found = found.rename(columns={"sum": "share", "size": "n_pushed"})
    found["share"] = found["share"] / n_pairs
    return found.sort_values(["share", "train_pair_id"], ascending=[False, True], ignore_index=True)


def pushed_cases(
    analyzer: str, model: pd.DataFrame, pushes: pd.DataFrame, *, n_cases: int, n_others: int = 3
) -> list[dict[str, Any]]:
    """The most reversed pairs with the training pairs that pushed them hardest.

    Args:
        analyzer: name of the analyzer that shows them.
        model: ImplicitRewards of one model.
        pushes: see ``negative_pushes``.
        n_cases: at most so many.
        n_others: pushing pairs named for each, at most.

    Returns:
        Rows of Cases of the kind ``pushed_by``, severity how far the margin is below 0; the further
        column ``other_ids`` names the pushing pairs, whose text a report shows too.
    """
    turned = model[(model["margin"] < 0.0) & model["pair_id"].isin(pushes["pair_id"])]
    turned = turned.sort_values(["margin", "pair_id"]).head(n_cases)
    top = pushes[(pushes["rank"] < n_others) & pushes["pair_id"].isin(turned["pair_id"])]
    by_pair = {str(pair_id): rows.to_dict("records") for pair_id, rows in top.groupby("pair_id")}
    return [
        {
            "analyzer": analyzer,
            "kind": "pushed_by",
            "model_id": row["model_id"],
            "row_key": row["pair_id"],
            "severity": -float(row["margin"]),
            "note": f"margin {row['margin']:+.3f}; pushed by "
            + "; ".join(_words(push) for push in by_pair[row["pair_id"]]),
            "other_ids": " ".join(push["train_pair_id"] for push in by_pair[row["pair_id"]]),
        }
        for row in turned.to_dict("records")
    ]


def blamed_cases(
    analyzer: str, model_id: str, blamed: pd.DataFrame, facts: pd.DataFrame, *, n_cases: int
) -> list[dict[str, Any]]:
    """The training pairs that carry most of the push on all reversed pairs together."""
    cases = []
    for row in blamed.head(n_cases).to_dict("records"):
        name = row["train_pair_id"]
        label = _label_words(facts.loc[name].to_dict()) if name in facts.index else ""
        cases.append(
            {
                "analyzer": analyzer,
                "kind": "pushes_many",
                "model_id": model_id,
                "row_key": name,
                "severity": float(row["share"]),
                "note": f"{100 * row['share']:.2g} % of the push on all reversed pairs; pushes "
                f"{row['n_pushed']} of them{label}",
                "other_ids": "",
            }
        )
    return cases


def _words(push: Mapping[str, Any]) -> str:
    where = {1.0: ", same prompt", 0.0: ", another prompt"}.get(push["same_prompt"], "")
    cosine = "" if np.isnan(push["cosine"]) else f", cosine {push['cosine']:+.2f}"
    return (
        f"{push['train_pair_id']} ({100 * push['share']:.2g} % of the push against it"
        f"{cosine}{where}{_label_words(push)})"
    )


def _label_words(facts: Mapping[str, Any]) -> str:
    words = ", its label against the gold order" if facts["against_gold"] == 1.0 else ""
    return words + (", its label against its annotators" if facts["against_votes"] == 1.0 else "")


def _weighted(rows: pd.DataFrame, column: str) -> pd.Series:
    """Mean of a column of each pair, weighted by push, over the rows where it is known."""
    known = rows[rows[column].notna()]
    total = known.groupby("pair_id")["share"].sum()
    return (known["share"] * known[column]).groupby(known["pair_id"]).sum() / total


def _numbers(frame: pd.DataFrame, column: str) -> np.ndarray:
    if column not in frame:
        return np.full(len(frame), np.nan)
    return pd.to_numeric(frame[column]).to_numpy(float, na_value=np.nan)
