"""Pairs that are there more than once: copies count twice in the loss and narrow every interval.

A copy repeats prompt, chosen and rejected answer of an earlier row of its split; a near copy does
so but for case, punctuation and white space. A repeated chosen answer (same prompt, same chosen,
another rejected one) is how ranked lists look as pairs and is only counted. Copies between splits
are the matter of ``leakage``.
"""

import numpy as np
import pandas as pd

from dpo_diag.pair_checks._base import CLEAN, KNOW, LOOK, Check, Checked, PairData
from dpo_diag.pair_checks._measures import counted, examples, graded, share

REPAIR_ABOVE, LOOK_ABOVE = 0.01, 0.01  # shares of copies and of near copies; ours


class Duplicates(Check):
    """Copies, near copies and repeated chosen answers within a split."""

    question = "Which pairs are there more than once?"
    reading = (
        "The first of several copies is not counted. A near copy differs in case, punctuation or "
        "white space only; it is counted where it is no exact copy."
    )
    misleads = (
        "Copies may be several annotators' agreeing labels; where the data name annotators, keep "
        "them and weight instead."
    )
    headline = ("copied_pairs", "nearly_copied_pairs")
    removes = ("duplicates", "duplicates_near")

    def run(self, data: PairData, rng: np.random.Generator) -> Checked:
        """Rows that repeat an earlier one."""
        copies = repeats(data, "exact")
        near = repeats(data, "alike") & ~copies
        again = repeats(data, "chosen") & ~copies
        measures = (
            share("copied_pairs", copies, data),
            share("nearly_copied_pairs", near, data),
            share("repeated_chosen", again, data, better="neither"),
        )
        if not (copies | near).any():
            return Checked(CLEAN, "No pair is there twice.", measures=measures)
        concern = graded(copies, repair=REPAIR_ABOVE)
        if concern == KNOW:
            concern = LOOK if np.mean(near) > LOOK_ABOVE else KNOW
        return Checked(
            concern,
            f"{counted(copies)} repeat an earlier one word for word, {int(near.sum()):,} more but "
            "for case, punctuation or white space.",
            "Keep one of each: dpo-diag pairs {data} --write-clean clean.jsonl drops the exact "
            "copies; add --drop duplicates_near for the others.",
            measures,
            (
                *examples(data, copies, "copied_pair", "repeats an earlier pair"),
                *examples(data, near, "nearly_copied_pair", "repeats an earlier pair but for form"),
            ),
            {"duplicates": copies, "duplicates_near": near},
            weight=float(np.mean(copies | near)),
        )


CHECK = Duplicates


def repeats(data: PairData, form: str) -> np.ndarray:
    """Rows that repeat an earlier row of their split, (n,) bool.

    Args:
        data: the pairs.
        form: ``exact`` (prompt and both answers), ``alike`` (without case, punctuation and white
            space), ``chosen`` (prompt and chosen answer).
    """
    codes, asked = data.asked
    keys = {
        "exact": (data.prompts, *data.answers),
        "alike": (asked.same_words()[codes] if data.n else codes, *data.alike),
        "chosen": (data.prompts, data.answers[0]),
    }[form]
    table = pd.DataFrame({str(k): column for k, column in enumerate(keys)})
    table["split"] = data.rows["split"].to_numpy()
    return table.duplicated().to_numpy()
