"""Are accuracies only 0 and 1? Then each row is one pair, and the curve cannot be read.

Source: huggingface/trl #2371 (accuracy only 0 or 1: batch of one).
"""

import numpy as np

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom
from dpo_diag.symptoms._trends import too_few

_NAME = "rewards/accuracies"


class BatchOfOne(Symptom):
    """Accuracies of single pairs."""

    question = "Is the logged accuracy more than the 0 or 1 of a single pair?"
    source = "huggingface/trl #2371"

    def lacking(self, record: RunRecord) -> str:
        """Enough rows with an accuracy."""
        return too_few(record.series(_NAME), _NAME)

    def examine(self, record: RunRecord) -> Finding | None:
        """Both values, and no other."""
        value = record.series(_NAME).value
        if set(np.unique(value)) != {0.0, 1.0}:
            return None
        batch, steps = record.get("batch_size"), record.get("logging_steps")
        said = f"; batch size {batch:g} per device" if batch else ""
        said += f", a row every {steps:g} steps" if steps else ""
        return self.found(
            "warning",
            "certain" if batch == 1 else "likely",
            "Every logged accuracy is 0 or 1: a row is a single pair.",
            evidence=(
                f"{len(value)} rows, {int(value.sum())} of them 1 and "
                f"{int((value == 0).sum())} of them 0{said}."
            ),
            meaning=(
                "Such a curve looks like noise and says nothing by itself; training may be fine. "
                f"Over the whole log the accuracy is {value.mean():.2f}."
            ),
            fix=(
                "Log a mean over more pairs: a larger batch, or logging_steps of 10 or more; "
                "judge by an evaluation on held-out pairs."
            ),
            files=(record.log_source, record.where("batch_size")),
        )


SYMPTOM = BatchOfOne
