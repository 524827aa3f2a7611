"""Answers that hardly differ: little to learn, and what is learnt is about the difference only.

Likeness is Dice's coefficient of the two answers' sets of words and of neighbouring words,
``2 |A and B| / (|A| + |B|)``: 1 for the same words in the same order, about 0.92 for one word
changed in twenty. Whether near-identical pairs displace probability is another question: edit
distance was found not to rank it (Razin et al. 2410.08847), see ``displacement``.
"""

import itertools

import numpy as np
import pandas as pd

from dpo_diag.pair_checks._base import CLEAN, KNOW, LOOK, REPAIR, Check, Checked, PairData
from dpo_diag.pair_checks._measures import counted, examples, share

NEAR = 0.9  # likeness from which answers count as nearly identical; ours
CANDIDATE = 0.8  # likeness of the words alone below which nobody looks further
LOOK_ABOVE = 0.01  # share of such pairs; ours


class NearIdentical(Check):
    """Pairs whose two answers are identical, the same but for form, or nearly identical."""

    question = "Which pairs have nearly the same answer on both sides?"
    reading = (
        f"Nearly identical: at least {NEAR:g} of words and neighbouring words are shared. "
        "Identical answers cannot be learnt from and are refused by training."
    )
    misleads = (
        "One changed word may be the whole point (a digit in a proof, a 'not'); look at the "
        "examples before dropping anything."
    )
    headline = ("identical_answers", "nearly_identical_answers")
    removes = ("near_identical",)

    def run(self, data: PairData, rng: np.random.Generator) -> Checked:
        """Rows by how alike their answers are."""
        same = data.answers[0] == data.answers[1]
        form = (data.alike[0] == data.alike[1]) & ~same
        alike = likeness(data)
        near = (alike >= NEAR) & ~same & ~form
        measures = (
            share("identical_answers", same, data),
            share("answers_identical_but_for_form", form, data),
            share("nearly_identical_answers", near, data),
        )
        if not (same | form | near).any():
            said = f"No pair's answers share {100 * NEAR:.0f} % of their words and word pairs."
            return Checked(CLEAN, said, measures=measures)
        concern = LOOK if np.mean(form | near) > LOOK_ABOVE else KNOW
        notes = pd.Series(np.char.mod("answers are alike by %.2f", alike))
        return Checked(
            REPAIR if same.any() else concern,
            f"{counted(same)} have identical answers, {int(form.sum()):,} differ in case, "
            f"punctuation or white space only, {int(near.sum()):,} are nearly identical.",
            "Leave the identical ones out (--write-clean does); read the others and keep those "
            "whose difference is the point (--drop near_identical leaves the rest out).",
            measures,
            (
                *examples(data, same, "identical_answers", "both answers are the same"),
                *examples(data, form, "identical_but_for_form", "differ in form only", alike),
                *examples(data, near, "nearly_identical", notes, alike),
            ),
            {"near_identical": form | near},
            weight=float(np.mean(same | form | near)),
        )


CHECK = NearIdentical


def likeness(data: PairData) -> np.ndarray:
    """Dice's coefficient of words and neighbouring words of the two answers, (n,), in [0, 1].

    0 where the words alone are alike by less than ``CANDIDATE``: those are not nearly identical.
    """
    found = np.zeros(data.n)
    for row, (chosen, rejected) in enumerate(data.answers.T):
        first, second = data.words.of(chosen).tolist(), data.words.of(rejected).tolist()
        if chosen == rejected:
            found[row] = 1.0
        elif dice(set(first), set(second)) >= CANDIDATE:
            found[row] = dice(_and_neighbours(first), _and_neighbours(second))
    return found


def dice(first: set, second: set) -> float:
    """``2 |A and B| / (|A| + |B|)``; 0 for two empty sets."""
    total = len(first) + len(second)
    return 2 * len(first & second) / total if total else 0.0


def _and_neighbours(ids: list[int]) -> set:
    return {*ids, *itertools.pairwise(ids)}
