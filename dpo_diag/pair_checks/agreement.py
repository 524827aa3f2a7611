"""How far annotators agree, where several judged the same pair: the ceiling of any accuracy.

Votes come from the columns ``vote_share`` and ``n_votes``, or from rows of the same two answers by
different ``annotator``s. Which of two answers is called the first is decided by their text, not by
the label, so that agreement by chance is what it would be for labels by coin.
"""

import numpy as np
import pandas as pd

from dpo_diag.pair_checks._base import KNOW, LOOK, UNSEEN, Check, Checked, Measure, PairData
from dpo_diag.pair_checks._measures import MAX_PARTS, examples
from dpo_diag.stats.agreement import krippendorff_alpha
from dpo_diag.stats.intervals import FEW_CLUSTERS, Interval, clustered_proportion

LOOK_BELOW = 0.4  # alpha; ours (Krippendorff asks for 0.667, preferences seldom reach it)
NARROW = 2 / 3  # largest majority that counts as narrow
_UNIT = ["prompt", "low", "high"]


class Agreement(Check):
    """Krippendorff's alpha, unanimous and narrow votes, each annotator against the others."""

    question = "Do annotators agree?"
    reading = (
        "Alpha is 1 for perfect agreement and 0 for chance. An annotator's share is how often the "
        "majority of the others on the same pair agrees; ties of the others count one half."
    )
    misleads = (
        "Pairs that several judged may be the hard ones. Low agreement is noise or taste; the "
        "numbers cannot tell which."
    )
    headline = ("annotator_alpha", "unanimous_pairs", "narrow_majorities")

    def run(self, data: PairData, rng: np.random.Generator) -> Checked:
        """Agreement of the votes there are."""
        votes = votes_of(data)
        units = None if votes is None else votes.groupby(_UNIT)[["up", "down"]].sum().reset_index()
        if units is not None:
            units = units[units["up"] + units["down"] >= 2]
        if votes is None or units is None or units.empty:
            return Checked(
                UNSEEN,
                "No pair was judged by several annotators as far as the data say.",
                "Keep the single votes: columns vote_share and n_votes, or a row per annotator "
                "with a column annotator.",
            )
        share = (units[["up", "down"]].max(axis=1) / (units["up"] + units["down"])).to_numpy()
        clusters, level = units["prompt"].to_numpy(), data.ci_level
        alpha = krippendorff_alpha(units[["up", "down"]].to_numpy(), clusters, level=level)
        measures = [
            Measure("annotator_alpha", alpha, "Krippendorff's alpha", "higher"),
            _share("unanimous_pairs", share == 1.0, clusters, level, "higher"),
            _share("narrow_majorities", share <= NARROW + 1e-9, clusters, level, "lower"),
            *_by_annotator(votes, level),
        ]
        narrow = measures[2].interval
        is_low = alpha.n_clusters >= FEW_CLUSTERS and alpha.estimate < LOOK_BELOW
        advice = (
            "Treat labels as noisy: train with a robust method (dpo-diag train cdpo, rdpo or "
            "holder_dpo), weight by the votes, and expect no accuracy above the annotators' own."
        )
        return Checked(
            LOOK if is_low else KNOW,
            f"{_said(len(units), alpha)}; {100 * narrow.estimate:.0f} % of these pairs were "
            "decided by two thirds of the votes or less.",
            advice if is_low else "",
            tuple(measures),
            _narrow_cases(data, units, share),
            weight=0.0 if np.isnan(alpha.estimate) else 1.0 - alpha.estimate,
        )


CHECK = Agreement


def _said(n_units: int, alpha: Interval) -> str:
    """The agreement in words; all votes for one side leave none to expect by chance."""
    judged = f"Several annotators judged {n_units:,} pairs"
    if np.isnan(alpha.estimate):
        return f"{judged}, too few to tell agreement from chance"
    limits = "" if np.isnan(alpha.low) else f" ({alpha.low:.2f} to {alpha.high:.2f})"
    return f"{judged}, with alpha {alpha.estimate:.2f}{limits}"


def votes_of(data: PairData) -> pd.DataFrame | None:
    """One row per vote or count of votes: unit, who, votes up and down; None without columns."""
    rows, parts = data.rows, []
    texts = zip(rows["chosen"], rows["rejected"], strict=True)
    up = np.array([chosen > rejected for chosen, rejected in texts], bool)
    chosen, rejected = data.answers
    frame = pd.DataFrame(
        {
            "prompt": data.prompts,
            "low": np.minimum(chosen, rejected),
            "high": np.maximum(chosen, rejected),
            "who": "",
        }
    )
    usable = chosen != rejected
    if {"vote_share", "n_votes"} <= set(rows.columns):
        share = rows["vote_share"].to_numpy(float)
        n_votes = rows["n_votes"].to_numpy(dtype=float, na_value=np.nan)
        with_chosen, against = np.round(share * n_votes), n_votes - np.round(share * n_votes)
        counted = frame.assign(
            up=np.where(up, with_chosen, against), down=np.where(up, against, with_chosen)
        )
        # several rows of one pair repeat its votes; they are not further ones
        parts.append(counted[usable & ~np.isnan(share * n_votes)].drop_duplicates(_UNIT))
    elif "annotator" in rows.columns:
        named = rows["annotator"]
        who = named.astype(object).where(named.notna(), "").astype(str).to_numpy()
        single = frame.assign(who=who, up=up.astype(float), down=(~up).astype(float))
        single = single[usable & (who != "")].drop_duplicates([*_UNIT, "who"])
        several = single.groupby(_UNIT)["who"].transform("size") >= 2
        parts.append(single[several])
    return pd.concat(parts, ignore_index=True) if parts else None


def _share(name: str, mask: np.ndarray, clusters: np.ndarray, level: float, better: str) -> Measure:
    interval = clustered_proportion(mask.astype(float), clusters, level=level)
    return Measure(name, interval, "share of pairs with several votes", better)


def _by_annotator(votes: pd.DataFrame, level: float) -> list[Measure]:
    """Each annotator against the majority of the others on the same pair."""
    named = votes[votes["who"] != ""]
    if named.empty:
        return []
    totals = named.groupby(_UNIT)[["up", "down"]].transform("sum")
    others = np.sign((totals["up"] - named["up"]) - (totals["down"] - named["down"]))
    own = np.where(named["up"] > 0, 1.0, -1.0)
    agrees = np.where(others == 0, 0.5, (others == own).astype(float))
    found = []
    for who in named["who"].value_counts().sort_index().nlargest(MAX_PARTS).index:
        mask = (named["who"] == who).to_numpy()
        clusters = named["prompt"].to_numpy()[mask]
        interval = clustered_proportion(agrees[mask], clusters, level=level)
        found.append(
            Measure("agrees_with_others", interval, "share of pairs", "higher", f"annotator={who}")
        )
    return found


def _narrow_cases(data: PairData, units: pd.DataFrame, share: np.ndarray) -> tuple:
    narrow = units[share <= NARROW + 1e-9]
    chosen, rejected = data.answers
    keys = pd.MultiIndex.from_arrays(
        [data.prompts, np.minimum(chosen, rejected), np.maximum(chosen, rejected)]
    )
    mask = keys.isin(pd.MultiIndex.from_frame(narrow[_UNIT])) if len(narrow) else np.zeros(data.n)
    return examples(data, np.asarray(mask, bool), "narrow_majority", "annotators are divided")
