"""Did a loss, a gradient or a reward become NaN or infinite?

Source: huggingface/trl #878 and PR #942 (NaN in fp16); issue text "NaN".
"""

import numpy as np

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom

_WATCHED = ("loss", "grad_norm", "rewards/chosen", "rewards/rejected", "eval_loss")


class NotFinite(Symptom):
    """NaN or infinite numbers in the log."""

    question = "Did a loss, a gradient or a reward become NaN or infinite?"
    source = "huggingface/trl #878 and PR #942"
    explained_by = ("half_precision",)

    def lacking(self, record: RunRecord) -> str:
        """A log."""
        return "" if record.log else "no log"

    def examine(self, record: RunRecord) -> Finding | None:
        """Counts rows of the watched quantities; a single infinite gradient is a note."""
        counts, first = {}, None
        for name in _WATCHED:
            series = record.series(name, finite=False)
            bad = ~np.isfinite(series.value)
            if bad.any():
                counts[name] = f"{name} in {bad.sum()} of {len(series)} rows"
                at = int(series.step[bad][0])
                first = at if first is None else min(first, at)
        if not counts:
            return None
        harmless = set(counts) == {"grad_norm"} and _overflows_only(record)
        return self.found(
            "note" if harmless else "error",
            "certain",
            "A gradient overflowed now and then; the step was skipped."
            if harmless
            else "The log holds NaN or infinite numbers.",
            evidence=f"{', '.join(counts.values())}; first at step {first}.",
            meaning=(
                "Loss scaling of fp16 finds its scale by such overflows."
                if harmless
                else "Weights that met a NaN stay NaN: nothing after that step was learned."
            ),
            fix=(
                "Nothing, unless it goes on; bf16 needs no loss scaling."
                if harmless
                else "Go back to a checkpoint before that step; train in bf16 or float32, with a "
                "smaller learning rate, and look for empty answers in the pairs."
            ),
            files=(record.log_source,),
        )


SYMPTOM = NotFinite


def _overflows_only(record: RunRecord) -> bool:
    """Whether infinite gradients are rare, under fp16's loss scaling."""
    value = record.series("grad_norm", finite=False).value
    return record.get("fp16") is True and float(np.mean(~np.isfinite(value))) < 0.05
