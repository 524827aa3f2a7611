"""The same two answers to the same prompt, labelled both ways: no margin can satisfy both.

Counted over all splits. Where the data name annotators, a contradiction within one (careless or
undecided) is told from one between several (they disagree). As a remedy the side of more
annotators is kept; without names every direction counts once, so all rows of the pair go.
"""

import numpy as np
import pandas as pd

from dpo_diag.pair_checks._base import CLEAN, Check, Checked, PairData
from dpo_diag.pair_checks._measures import counted, examples, graded, share

REPAIR_ABOVE, LOOK_ABOVE = 0.01, 0.0  # shares of contradictory pairs; ours
ANNOTATOR = "annotator"


class Contradictions(Check):
    """Pairs whose answers are labelled both ways."""

    question = "Which pairs are labelled both ways?"
    reading = (
        "Every row of a contradictory pair is counted. A pair labelled both ways puts a floor "
        "under the loss and pulls its margin to 0."
    )
    misleads = (
        "Where people disagree for good reasons the contradictions are the finding, not a fault: "
        "keep them, and train with soft labels or by annotator."
    )
    headline = ("contradictory_pairs",)
    removes = ("contradictions",)

    def run(self, data: PairData, rng: np.random.Generator) -> Checked:
        """Rows of pairs that are labelled both ways."""
        both, minority = labelled_both_ways(data)
        measures = [share("contradictory_pairs", both, data)]
        has_names = ANNOTATOR in data.rows.columns
        within = _within_annotator(data, both) if has_names else np.zeros(data.n, bool)
        if has_names:
            measures.append(share("self_contradictory_pairs", within, data))
        if not both.any():
            return Checked(CLEAN, "No pair is labelled both ways.", measures=tuple(measures))
        found = f"{counted(both)} are labelled both ways"
        if has_names:
            found += f", {int(within.sum()):,} of them by one and the same annotator"
        advice = (
            "Decide them again or leave them out: dpo-diag pairs {data} --write-clean clean.jsonl "
            "drops the side of fewer annotators, and both where neither has more."
        )
        note = "the same two answers are labelled the other way round elsewhere"
        return Checked(
            graded(both, repair=REPAIR_ABOVE, look=LOOK_ABOVE),
            f"{found}.",
            advice,
            tuple(measures),
            examples(data, both, "contradictory_pair", note, within.astype(float)),
            {"contradictions": minority},
            weight=float(np.mean(both)),
        )


CHECK = Contradictions


def labelled_both_ways(data: PairData) -> tuple[np.ndarray, np.ndarray]:
    """Rows of contradictory pairs, and those of them that have no majority behind them, (n,) bool.

    The vote of a direction is the number of its annotators (one where they have no names).
    """
    frame = _directions(data)
    each = frame.drop_duplicates().groupby(["prompt", "low", "high"])["up"].agg(["sum", "count"])
    sides = frame.groupby(["prompt", "low", "high"])["up"].agg(["min", "max"])
    each["both"] = sides["min"] != sides["max"]
    rows = frame[["prompt", "low", "high"]].merge(
        each.reset_index(), on=["prompt", "low", "high"], how="left"
    )
    both = rows["both"].to_numpy(bool) & (frame["low"] != frame["high"]).to_numpy()
    for_up, votes = rows["sum"].to_numpy(), rows["count"].to_numpy()
    own = np.where(frame["up"], for_up, votes - for_up)
    return both, both & (2 * own <= votes)


def _directions(data: PairData) -> pd.DataFrame:
    """Prompt, the two answers in a fixed order, whether the higher one is chosen, who says so."""
    chosen, rejected = data.answers
    frame = pd.DataFrame(
        {
            "prompt": data.prompts,
            "low": np.minimum(chosen, rejected),
            "high": np.maximum(chosen, rejected),
            "up": chosen > rejected,
        }
    )
    if ANNOTATOR in data.rows.columns:
        named = data.rows[ANNOTATOR]
        frame["who"] = named.astype(object).where(named.notna(), "").astype(str).to_numpy()
    return frame


def _within_annotator(data: PairData, both: np.ndarray) -> np.ndarray:
    frame = _directions(data)
    keys = ["prompt", "low", "high", "who"]
    sides = frame.groupby(keys)["up"].transform("nunique")
    return both & (sides > 1).to_numpy() & (frame["who"] != "").to_numpy()
