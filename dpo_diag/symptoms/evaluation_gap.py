"""Is the accuracy on held-out pairs far from the one in training?

Far below: the pairs were memorised. Far above: the held-out pairs are easier, or were trained on.

Source: zhyang2226/OPA-DPO #10 (accuracy 1.0, output unchanged); hiyouga/LLaMA-Factory #5321. The
limits are ours. Training accuracy lags, because it is taken while the policy changes.
"""

import numpy as np

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom
from dpo_diag.symptoms._trends import CLEAR, LEAST_ROWS

_BELOW, _ABOVE = 0.25, 0.2


class EvaluationGap(Symptom):
    """Accuracies that do not belong together."""

    question = "Is the accuracy on held-out pairs near the one in training?"
    source = "zhyang2226/OPA-DPO #10; hiyouga/LLaMA-Factory #5321; limits ours"
    explained_by = ("shared_prompts", "swapped_columns")

    def lacking(self, record: RunRecord) -> str:
        """Both accuracies."""
        if not len(record.series("eval_rewards/accuracies")):
            return "accuracy in evaluation is not logged"
        enough = len(record.series("rewards/accuracies")) >= LEAST_ROWS
        return "" if enough else "too few log rows with rewards/accuracies"

    def examine(self, record: RunRecord) -> Finding | None:
        """The last evaluation against the last quarter of training."""
        train = record.series("rewards/accuracies").value
        late = train[-max(3, len(train) // 4) :]
        error = float(late.std(ddof=1) / np.sqrt(late.size))
        held_out = float(record.series("eval_rewards/accuracies").value[-1])
        gap = held_out - float(late.mean())
        if abs(gap) <= CLEAR * error or -_BELOW < gap < _ABOVE:
            return None
        seen = (
            f"Accuracy {held_out:.2f} in the last evaluation, {late.mean():.2f} in the last "
            f"{late.size} rows of training."
        )
        return self._above(record, seen) if gap > 0 else self._below(record, seen)

    def _above(self, record: RunRecord, seen: str) -> Finding:
        return self.found(
            "warning",
            "possible",
            "Accuracy on held-out pairs is far above the one in training.",
            evidence=seen,
            meaning="The held-out pairs are easier, or they were part of the training.",
            fix="Compare the prompts of both sets (--pairs, --test) and where the pairs are from.",
            files=(record.log_source,),
        )

    def _below(self, record: RunRecord, seen: str) -> Finding:
        return self.found(
            "warning",
            "likely",
            "The training pairs are memorised: accuracy on held-out pairs is far below.",
            evidence=seen,
            meaning="What was learned of the training pairs does not carry over to others.",
            fix=(
                "Fewer epochs, a smaller learning rate, more pairs; check that the held-out pairs "
                "are of the same kind and labelled alike."
            ),
            files=(record.log_source,),
        )


SYMPTOM = EvaluationGap
