"""Are chosen and rejected swapped, in the data or in the evaluation?

Swapped training data cannot be seen in the training log, because the model learns what it is
told. Three things can be: scores that contradict the order, an evaluation that falls below chance
while training climbs, and training that pushes against its own labels.

Source: huggingface/trl #2578 (columns swapped?); issue text "swapped columns". The limits are ours.
"""

import numpy as np

from dpo_diag.run_formats._base import RunRecord, Series
from dpo_diag.symptoms._base import Finding, Symptom
from dpo_diag.symptoms._trends import LEAST_ROWS, last_half

_CLEARLY_BELOW = 0.4
_MOST = 0.5  # of the scored pairs
_LEAST_SCORED = 20
_MORE_REFUSALS = 3.0


class SwappedColumns(Symptom):
    """Labels that point the wrong way."""

    question = "Do chosen and rejected point the right way, in training and in evaluation?"
    source = "huggingface/trl #2578; limits ours"

    def lacking(self, record: RunRecord) -> str:
        """Accuracies, or the data."""
        if record.data is not None or len(record.series("eval_rewards/accuracies")):
            return ""
        enough = len(record.series("rewards/accuracies")) >= LEAST_ROWS
        return "" if enough else "accuracies are not logged, and no training pairs are given"

    def examine(self, record: RunRecord) -> Finding | None:
        """Data first, then the log."""
        for seen in (_by_scores(record), _by_evaluation(record), _by_training(record)):
            if seen:
                return self._swapped("error", "likely", seen, record)
        refusals = _by_refusals(record)
        return self._swapped("warning", "possible", refusals, record) if refusals else None

    def _swapped(self, severity: str, certainty: str, seen: str, record: RunRecord) -> Finding:
        return self.found(
            severity,
            certainty,
            "Chosen and rejected look swapped.",
            evidence=seen,
            meaning=(
                "The policy is taught the worse answers, or it is judged by labels that say the "
                "opposite of what it was taught."
            ),
            fix=(
                "Read ten pairs; if the better answer stands in rejected, swap the columns and "
                "train again (no weights can be kept), or correct the evaluation set."
            ),
            files=(record.data.source if record.data else "", record.log_source),
        )


SYMPTOM = SwappedColumns


def _by_scores(record: RunRecord) -> str:
    data = record.data
    if data is None or data.n_scored < _LEAST_SCORED:
        return ""
    if data.n_score_reversed <= _MOST * data.n_scored:
        return ""
    return (
        f"In {data.n_score_reversed} of {data.n_scored} scored pairs the rejected answer has the "
        "higher score."
    )


def _by_evaluation(record: RunRecord) -> str:
    """Evaluation below chance at the end while training is above it."""
    train, held_out = (record.series(f"{p}rewards/accuracies") for p in ("", "eval_"))
    if not len(held_out) or not len(train):
        return ""
    late, trained = float(np.median(held_out.value[-2:])), float(np.mean(last_half(train)))
    margins = record.series("eval_rewards/margins")
    if late >= _CLEARLY_BELOW or trained < 0.5 or (len(margins) and margins.value[-1] >= 0):
        return ""
    return (
        f"Accuracy ends at {late:.2f} in evaluation, below chance, and at {trained:.2f} in "
        "training."
    )


def _by_training(record: RunRecord) -> str:
    """Training accuracy below chance with negative margins, row after row."""
    accuracy, margins = (record.series(f"rewards/{n}") for n in ("accuracies", "margins"))
    if min(len(accuracy), len(margins)) < LEAST_ROWS:
        return ""
    mean, below = float(last_half(accuracy).mean()), _share_negative(margins)
    if mean >= _CLEARLY_BELOW or below < 0.8:
        return ""
    return (
        f"Mean accuracy of the second half of training {mean:.2f}, below chance; the margin is "
        f"negative in {below:.0%} of its rows."
    )


def _by_refusals(record: RunRecord) -> str:
    """Many more bare refusals or empty answers among the chosen than among the rejected ones."""
    data = record.data
    if data is None or data.n_chosen_refusal < max(_LEAST_SCORED, 0.3 * data.n):
        return ""
    if data.n_chosen_refusal <= _MORE_REFUSALS * max(1, data.n_rejected_refusal):
        return ""
    return (
        f"{data.n_chosen_refusal} of {data.n} chosen answers are empty or a bare refusal, and "
        f"{data.n_rejected_refusal} of the rejected ones; right for a set of harmful prompts only."
    )


def _share_negative(margins: Series) -> float:
    return float(np.mean(last_half(margins) < 0))
