"""Is the loss 0 from the beginning? A preference loss begins at ln 2.

Source: huggingface/trl #1236 (loss 0).
"""

import numpy as np

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom

_EXACT = 1e-6
_LEAST = 4


class LossZero(Symptom):
    """A loss that is 0 from the start."""

    question = "Is the loss above 0 when training begins?"
    source = "huggingface/trl #1236"
    explained_by = ("half_precision", "not_finite")

    def lacking(self, record: RunRecord) -> str:
        """A few rows with a loss."""
        return "" if len(record.series("loss")) >= _LEAST else "too few log rows with a loss"

    def examine(self, record: RunRecord) -> Finding | None:
        """Zeros in the first quarter of the rows, which no learning explains."""
        loss = record.series("loss").value
        early = loss[: max(2, len(loss) // 4)]
        if np.abs(early).max() > _EXACT:
            return None
        return self.found(
            "error",
            "certain",
            "The loss is 0 from the beginning, where a preference loss is ln 2 = 0.693.",
            evidence=(
                f"{int((np.abs(loss) <= _EXACT).sum())} of {len(loss)} rows are 0, the first "
                f"{len(early)} among them."
            ),
            meaning=(
                "No pair reaches the loss: answers are masked or cut away entirely, NaNs are "
                "turned into 0, or the loss overflows in half precision."
            ),
            fix=(
                "Look at one batch: answer tokens must be left after truncation and masking; "
                "raise max_length, train in bf16, check for empty answers."
            ),
            files=(record.log_source,),
        )


SYMPTOM = LossZero
