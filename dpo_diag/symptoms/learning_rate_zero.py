"""Was the learning rate 0 for a part of the run?

Source: issue text "last-step learning rate 0 for most of the run"; schedules that end before the
run does (max_steps or epochs changed on resuming), transformers' ``get_scheduler``.
"""

import numpy as np

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom
from dpo_diag.symptoms._trends import too_few

_NOTHING = 1e-4  # of the peak
_MUCH = 0.3


class LearningRateZero(Symptom):
    """Steps that change nothing."""

    question = "Was the learning rate above 0 for most of the run?"
    source = "transformers, get_scheduler: a schedule that ends before the run; limit ours"

    def lacking(self, record: RunRecord) -> str:
        """Enough rows with a learning rate."""
        return too_few(record.series("learning_rate"), "the learning rate")

    def examine(self, record: RunRecord) -> Finding | None:
        """The share of rows at less than a ten-thousandth of the peak."""
        rate = record.series("learning_rate").value
        still = rate <= _NOTHING * rate.max()
        share = float(np.mean(still))
        if share < _MUCH:
            return None
        whole = share == 1.0
        return self.found(
            "error" if whole else "warning",
            "certain",
            "The learning rate is 0 all along: nothing was trained."
            if whole
            else "The learning rate is 0 for a large part of the run.",
            evidence=f"{int(still.sum())} of {rate.size} rows; peak {rate.max():.3g}.",
            meaning="Steps at a learning rate of 0 cost time and change nothing.",
            fix=(
                "Set learning_rate; let the schedule end with the run: check max_steps, epochs and "
                "warm-up against the steps that were done, above all after resuming."
            ),
            files=(record.log_source,),
        )


SYMPTOM = LearningRateZero
