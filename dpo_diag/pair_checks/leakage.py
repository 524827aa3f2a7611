"""What an evaluation split shares with training: its numbers then measure memory.

For every pair of a validation or test split: is the same pair in train, the same prompt (by its
id, or but for case, punctuation and white space), a nearly identical prompt (at least 80 % of the
three-word runs of both together), or the chosen answer as an answer to another prompt.
"""

import numpy as np
import pandas as pd

from dpo_diag.pair_checks._base import (
    CLEAN,
    EVALUATION,
    KNOW,
    LOOK,
    REPAIR,
    UNSEEN,
    Case,
    Check,
    Checked,
    Measure,
    PairData,
)
from dpo_diag.pair_checks._measures import examples, parts_of, percent, share
from dpo_diag.pair_checks._similar import nearest

NEAR = 0.8  # Jaccard coefficient from which prompts count as nearly identical; ours
REPAIR_ABOVE, LOOK_ABOVE = 0.01, 0.01  # shares of shared and of nearly shared prompts; ours


class Leakage(Check):
    """Evaluation pairs whose pair, prompt or nearly the prompt is in train."""

    question = "Does an evaluation split share prompts with train?"
    reading = (
        "Shares are of the evaluation pairs. A shared prompt counts once more neither as a shared "
        "pair nor as a nearly shared prompt: the kinds are apart, the strongest first."
    )
    misleads = (
        "Prompts made from templates are nearly identical by design; prompts that say the same in "
        "other words are not found."
    )
    headline = ("leaked_pairs", "leaked_prompts", "nearly_leaked_prompts")
    removes = ("leakage",)

    def run(self, data: PairData, rng: np.random.Generator) -> Checked:
        """Evaluation rows by what train has of them."""
        evaluated = data.rows["split"].isin(EVALUATION).to_numpy()
        if not evaluated.any() or evaluated.all():
            said = "There is one split only, so nothing can be shared between splits."
            return Checked(UNSEEN, said, "Give the evaluation pairs with --test DATA.")
        pair, prompt, answer = _shared(data, evaluated)
        likest, overlap = _nearly_shared(data, evaluated, pair | prompt)
        near = likest >= 0
        kinds = {
            "leaked_pairs": pair,
            "leaked_prompts": prompt,
            "nearly_leaked_prompts": near,
            "leaked_answers": answer,
        }
        measures = _measures(data, kinds, evaluated)
        leaked = pair | prompt
        if not (leaked | near).any():
            said = f"None of {int(evaluated.sum()):,} evaluation pairs has a prompt of train."
            return Checked(CLEAN, said, measures=measures)
        whole = share("", leaked, data, mask=evaluated).interval
        return Checked(
            _concern(np.mean(leaked[evaluated]), np.mean(near[evaluated])),
            f"{int(leaked.sum()):,} of {int(evaluated.sum()):,} evaluation pairs, "
            f"{percent(whole)}, have a prompt that train has too ({int(pair.sum()):,} the whole "
            f"pair); {int(near.sum()):,} more have nearly one.",
            "Take these prompts out of train: dpo-diag pairs {data} --write-clean clean.jsonl "
            "--drop leakage; split by prompt, never by row.",
            measures,
            _cases(data, leaked, near, likest, overlap),
            {"leakage": _to_leave_out(data, evaluated, leaked, likest)},
            weight=float(np.mean((leaked | near)[evaluated])),
        )


CHECK = Leakage


def _shared(data: PairData, evaluated: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows whose pair, whose prompt but not pair, whose chosen answer alone is in train, (n,)."""
    asked, texts = data.asked
    form = texts.same_words()[asked]
    in_train = ~evaluated
    same_prompt = _among(data.prompts, in_train) | _among(form, in_train)
    chosen, rejected = data.answers
    pairs = pd.MultiIndex.from_arrays([data.prompts, chosen, rejected])
    turned = pd.MultiIndex.from_arrays([data.prompts, rejected, chosen])
    same_pair = pairs.isin(pairs[in_train]) | turned.isin(pairs[in_train])
    known = np.unique(data.answers[:, in_train])
    answer = np.isin(data.answers[0], known)
    pair = evaluated & same_pair
    prompt = evaluated & same_prompt & ~pair
    return pair, prompt, evaluated & answer & ~pair & ~prompt


def _among(codes: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.isin(codes, codes[mask])


def _nearly_shared(
    data: PairData, evaluated: np.ndarray, leaked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Likest prompt text of train for each row not leaked already, -1 for none, and how like."""
    asked, texts = data.asked
    wanted, among = np.unique(asked[evaluated & ~leaked]), np.unique(asked[~evaluated])
    likest, overlap = nearest(texts, wanted, among, least=NEAR)
    found, how = np.full(data.n, -1, np.int64), np.zeros(data.n)
    rows = np.flatnonzero(evaluated & ~leaked)
    at = np.searchsorted(wanted, asked[rows])
    found[rows], how[rows] = likest[at], overlap[at]
    return found, how


def _to_leave_out(
    data: PairData, evaluated: np.ndarray, leaked: np.ndarray, likest: np.ndarray
) -> np.ndarray:
    """Training rows whose prompt an evaluation row has, or nearly has."""
    asked, texts = data.asked
    form = texts.same_words()[asked]
    shared = np.isin(form, form[leaked]) | np.isin(data.prompts, data.prompts[leaked])
    return ~evaluated & (shared | np.isin(asked, likest[likest >= 0]))


def _measures(
    data: PairData, kinds: dict[str, np.ndarray], evaluated: np.ndarray
) -> tuple[Measure, ...]:
    unit = "share of evaluation pairs"
    found = [share(name, mask, data, unit=unit, mask=evaluated) for name, mask in kinds.items()]
    for split, rows in parts_of(data, "split"):
        if split in EVALUATION:
            for name, mask in kinds.items():
                found.append(share(name, mask, data, unit=unit, part=f"split={split}", mask=rows))
    return tuple(found)


def _concern(leaked: float, near: float) -> str:
    if leaked > REPAIR_ABOVE:
        return REPAIR
    return LOOK if leaked > 0 or near > LOOK_ABOVE else KNOW


def _cases(
    data: PairData, leaked: np.ndarray, near: np.ndarray, likest: np.ndarray, overlap: np.ndarray
) -> tuple[Case, ...]:
    asked = pd.Series(data.asked[0])
    first = ~asked.duplicated()
    place = pd.Series(data.rows["place"].to_numpy()[first.to_numpy()], index=asked[first])
    notes = "shares " + pd.Series(np.char.mod("%.0f %%", 100 * overlap)) + " of its prompt with "
    notes = notes + pd.Series(likest).map(place).fillna("")
    return (
        *examples(data, leaked, "leaked_prompt", "its prompt is in train too"),
        *examples(data, near, "nearly_leaked_prompt", notes, overlap),
    )
