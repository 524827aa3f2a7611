"""Are all rewards exactly 0 all along? Then policy and reference are one model, or nothing moved.

Source: huggingface/trl #1236, #2423, PR #6443 (the reference was the trained policy itself).
"""

import numpy as np

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom

_EXACT = 1e-7
_LEAST = 3


class PolicyIsReference(Symptom):
    """Rewards that never leave 0."""

    question = "Do rewards leave 0 once training has begun?"
    source = "huggingface/trl #1236, #2423, PR #6443"
    explained_by = ("learning_rate_zero",)

    def lacking(self, record: RunRecord) -> str:
        """Rewards after the first step."""
        if not record.takes_reference:
            return "the method takes no reference"
        return "" if _later(record).size >= _LEAST else "too few log rows with rewards"

    def examine(self, record: RunRecord) -> Finding | None:
        """Exact zeros in every row."""
        values = _later(record)
        if np.abs(values).max() > _EXACT:
            return None
        return self.found(
            "error",
            "certain",
            "All rewards are exactly 0: the reference is the trained policy itself, or nothing is "
            "trained.",
            evidence=f"{values.size} logged rewards after the first step, all 0.",
            meaning=(
                "The log-ratio of two models is 0 on every answer only if they are the same at "
                "every step, so the loss stays at ln 2 whatever the data."
            ),
            fix=(
                "Give the reference its own copy of the starting model (or, for an adapter, no "
                "reference at all), and check that parameters require gradients and that the "
                "learning rate is not 0."
            ),
            files=(record.log_source,),
        )


SYMPTOM = PolicyIsReference


def _later(record: RunRecord) -> np.ndarray:
    sides = [record.series(f"rewards/{side}") for side in ("chosen", "rejected")]
    return np.concatenate([side.value[side.step > 1] for side in sides])
