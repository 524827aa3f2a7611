"""Do gradients explode, or are they cut at every step?

Source: transformers' default max_grad_norm 1.0; gradient of DPO (Rafailov et al. 2023, section 4).
The limits, ten times for a drift and a hundred times for a spike, are ours.
"""

import numpy as np

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom
from dpo_diag.symptoms._trends import ends, too_few

_DRIFT, _SPIKE, _ALWAYS = 10.0, 100.0, 0.95
_USUAL_LIMIT = 1.0


class GradientNorm(Symptom):
    """Gradients that grow without bound."""

    question = "Do gradients stay of a size?"
    source = "transformers, max_grad_norm; Rafailov et al. 2023, section 4; limits ours"
    explained_by = ("half_precision", "not_finite", "learning_rate_range")

    def lacking(self, record: RunRecord) -> str:
        """Enough rows with a norm."""
        return too_few(record.series("grad_norm"), "grad_norm")

    def examine(self, record: RunRecord) -> Finding | None:
        """A drift, then a spike, then cutting at every step."""
        series = record.series("grad_norm")
        norm, grown = series.value, ends(series)
        median = float(np.median(norm))
        if grown.rises and grown.last > _DRIFT * max(grown.first, 1e-12):
            return self._exploding(
                record, f"Mean {grown.first:.3g} at the beginning, {grown.last:.3g} at the end."
            )
        if median > 0 and norm.max() > _SPIKE * median:
            at = int(series.step[norm.argmax()])
            return self._exploding(record, f"{norm.max():.3g} at step {at}, median {median:.3g}.")
        limit = record.get("max_grad_norm") or _USUAL_LIMIT
        cut = float(np.mean(norm > limit))
        if cut < _ALWAYS:
            return None
        return self.found(
            "note",
            "likely",
            "Gradients are cut at almost every step.",
            evidence=f"{cut:.0%} of {norm.size} rows above {limit:g}; median {median:.3g}.",
            meaning=(
                "Each step then has the same length whatever the pairs say. Adam undoes most of "
                "it, so that it is common and mostly harmless."
            ),
            fix="Nothing, or raise max_grad_norm to a norm that is the exception.",
            files=(record.log_source, record.where("max_grad_norm")),
        )

    def _exploding(self, record: RunRecord, seen: str) -> Finding:
        return self.found(
            "warning",
            "likely",
            "Gradients explode.",
            evidence=seen,
            meaning=(
                "The policy runs away from where its gradients are meaningful; what follows such "
                "a step is often broken text."
            ),
            fix=(
                "Smaller learning rate, longer warm-up, larger beta; look at the pairs of the "
                "steps where it begins, for very long or empty answers above all."
            ),
            files=(record.log_source,),
        )


SYMPTOM = GradientNorm
