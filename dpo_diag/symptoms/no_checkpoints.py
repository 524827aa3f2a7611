"""Did the run leave a model?

Source: issue text "a run folder with no checkpoints"; ours.
"""

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom


class NoCheckpoints(Symptom):
    """A run without a model."""

    question = "Did the run leave a model?"
    source = "ours"

    def examine(self, record: RunRecord) -> Finding | None:
        """Neither a step nor a final model."""
        if record.checkpoints or record.has_final:
            return None
        step = record.log[-1].step if record.log else 0
        return self.found(
            "warning",
            "certain",
            "The run left no model: no checkpoint-* folder and no final weights.",
            evidence=f"The folder's log ends at step {step}; no weights lie in it or under it.",
            meaning="Training stopped before it saved, or the models were moved away.",
            fix="Set save_steps below the length of the run, or give the folder with the models.",
            files=(record.log_source,),
        )


SYMPTOM = NoCheckpoints
