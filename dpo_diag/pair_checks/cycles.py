"""Preferences that run in a circle: A above B, B above C, C above A, on one prompt.

No reward fits a circle. The answers of a prompt are the nodes of a directed graph, each label an
arrow from the chosen to the rejected one; pairs labelled both ways (the matter of
``contradictions``) are taken out first, and a strongly connected part of three or more answers
holds a circle. Every arrow within such a part lies on one.

Source: Tarjan 1972 for the parts, by ``scipy.sparse.csgraph``.
"""

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dpo_diag.pair_checks._base import CLEAN, Check, Checked, PairData
from dpo_diag.pair_checks._measures import counted, examples, graded, share
from dpo_diag.pair_checks.contradictions import labelled_both_ways

LOOK_ABOVE = 0.01  # share of pairs on a circle; ours


class Cycles(Check):
    """Pairs that lie on a circle of preferences."""

    question = "Do preferences of a prompt run in a circle?"
    reading = "A pair is counted where its label lies on a circle of three answers or more."
    misleads = (
        "Only prompts with three or more answers can show one; a set of two answers per prompt is "
        "free of circles by construction, not by care."
    )
    headline = ("cyclic_pairs",)
    removes = ("cycles",)

    def run(self, data: PairData, rng: np.random.Generator) -> Checked:
        """Rows whose label lies on a circle."""
        cyclic, can_be = on_circles(data)
        measures = (
            share("cyclic_pairs", cyclic, data),
            share("pairs_that_could_be_cyclic", can_be, data, better="neither"),
        )
        if not cyclic.any():
            possible = f"; {int(can_be.sum()):,} could, the others' prompts have too few answers"
            return Checked(CLEAN, f"No pair lies on a circle{possible}.", measures=measures)
        n_prompts = len(np.unique(data.prompts[cyclic]))
        return Checked(
            graded(cyclic, look=LOOK_ABOVE),
            f"{counted(cyclic)} lie on a circle of preferences, on "
            f"{n_prompts:,} prompt{'s' * (n_prompts != 1)}.",
            "Rank these prompts' answers again, or leave the pairs on circles out (--write-clean "
            "with --drop cycles): no reward can fit them.",
            measures,
            examples(data, cyclic, "cyclic_pair", "lies on a circle of preferences"),
            {"cycles": cyclic},
            weight=float(np.mean(cyclic)),
        )


CHECK = Cycles


def on_circles(data: PairData) -> tuple[np.ndarray, np.ndarray]:
    """Rows on a circle, and rows whose prompt has three answers or more, (n,) bool each."""
    chosen, rejected = data.answers
    if not data.n:
        return np.zeros(0, bool), np.zeros(0, bool)
    names = pd.DataFrame({"prompt": np.tile(data.prompts, 2), "answer": np.r_[chosen, rejected]})
    nodes = names.groupby(["prompt", "answer"], sort=False).ngroup().to_numpy()
    winner, loser = nodes[: data.n], nodes[data.n :]
    both, _ = labelled_both_ways(data)
    kept = ~both & (winner != loser)
    arrows = coo_array(
        (np.ones(kept.sum(), np.int8), (winner[kept], loser[kept])), shape=(nodes.max() + 1,) * 2
    )
    _, part = connected_components(arrows.tocsr(), directed=True, connection="strong")
    n_answers = names.groupby("prompt")["answer"].nunique().reindex(data.prompts).to_numpy()
    return kept & (part[winner] == part[loser]), n_answers >= 3
