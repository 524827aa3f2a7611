"""Was the best checkpoint long before the last?

Source: issue text "the best step was 400, here is what it lost after"; chemnlp #286 (all
checkpoints of a run). The limits are ours.
"""

import numpy as np

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom

_LEAST_EVALUATIONS = 4
_EARLY = 0.6  # of the run
_RISE, _RELATIVE_RISE = 0.02, 0.05


class BestStepEarly(Symptom):
    """An evaluation loss that rises again."""

    question = "Is the evaluation loss still at its lowest when training ends?"
    source = "chemnlp #286; limits ours"

    def lacking(self, record: RunRecord) -> str:
        """A few evaluations."""
        n = len(record.series("eval_loss"))
        return "" if n >= _LEAST_EVALUATIONS else f"too few evaluations ({n}, at least 4 needed)"

    def examine(self, record: RunRecord) -> Finding | None:
        """The lowest loss in the first part, every later one above it, the last clearly."""
        series = record.series("eval_loss")
        best = int(np.argmin(series.value))
        lowest, last = float(series.value[best]), float(series.value[-1])
        rise = last - lowest
        later = series.value[best + 1 :]
        if series.step[best] > _EARLY * series.step[-1] or later.size < 2:
            return None
        if rise < max(_RISE, _RELATIVE_RISE * abs(lowest)) or later.min() <= lowest:
            return None
        step = int(series.step[best])
        near = [s for s in record.checkpoints if s <= step]
        kept = f"checkpoint-{near[-1]} is the nearest saved" if near else "no checkpoint so early"
        return self.found(
            "warning",
            "likely",
            f"The evaluation loss was lowest at step {step} and rose after it.",
            evidence=(
                f"eval_loss {lowest:.4g} at step {step}, {last:.4g} at step "
                f"{int(series.step[-1])}, {len(series)} evaluations; {kept}."
            ),
            meaning=(
                "After that step the run overfits its pairs. A rising loss may still go with a "
                "rising accuracy: wrong pairs become more confidently wrong."
            ),
            fix=(
                "Take the earlier checkpoint (load_best_model_at_end), or stop there; dpo-diag "
                "timeline shows what each step lost."
            ),
            files=(record.log_source,),
        )


SYMPTOM = BestStepEarly
