"""Do the steps of the log go up, each once?

Source: issue text "a run folder with steps out of order"; a log that a resumed run wrote on in
(LLaMA-Factory's ``trainer_log.jsonl`` is opened to append).
"""

import numpy as np

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom


class StepOrder(Symptom):
    """Steps that repeat or go back."""

    question = "Do the steps of the log go up, each once?"
    source = "hiyouga/LLaMA-Factory, LogCallback appends to trainer_log.jsonl; resumed runs"

    def lacking(self, record: RunRecord) -> str:
        """A log of training steps."""
        return "" if len(_steps(record)) >= 2 else "too few log rows with a loss"

    def examine(self, record: RunRecord) -> Finding | None:
        """Rows with a loss whose step is not above the one before."""
        steps = _steps(record)
        wrong = np.flatnonzero(np.diff(steps) <= 0)
        if not wrong.size:
            return None
        before, after = int(steps[wrong[0]]), int(steps[wrong[0] + 1])
        return self.found(
            "warning",
            "certain",
            "The log's steps are out of order, or repeat.",
            evidence=(
                f"{wrong.size} of {steps.size - 1} rows do not go up; the first goes from step "
                f"{before} to step {after}."
            ),
            meaning=(
                "The log holds several runs, or a resumed one with what was done twice. Curves "
                "over it mix them; what is said of beginning and end here takes the file's order."
            ),
            fix=(
                "Keep each run's log apart (overwrite_output_dir, another output_dir); for this "
                "one drop the rows before the step it was resumed from."
            ),
            files=(record.log_source,),
        )


SYMPTOM = StepOrder


def _steps(record: RunRecord) -> np.ndarray:
    return record.series("loss", finite=False).step
