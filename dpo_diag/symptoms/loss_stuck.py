"""Does the loss stay at ln 2 = 0.693? Then nothing is learned about the pairs.

Source: issue text "loss stuck at 0.693"; huggingface/trl #1236; the value is the DPO loss at a
margin of 0 (Rafailov et al. 2023, equation 7).
"""

import math

import numpy as np

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom
from dpo_diag.symptoms._trends import ends, last_half, too_few

_NEAR = 0.003  # of the loss, of rows' median
_SMALL_MARGIN = 0.01


class LossStuck(Symptom):
    """A loss that does not leave ln 2."""

    question = "Does the loss leave ln 2 = 0.693?"
    source = "Rafailov et al. 2023, equation 7 at a margin of 0; huggingface/trl #1236"
    explained_by = ("policy_is_reference", "learning_rate_zero", "learning_rate_range")

    def lacking(self, record: RunRecord) -> str:
        """A logistic loss alone, and enough rows."""
        if not record.is_logistic or record.get("sft_weight"):
            return "the loss is not ln 2 at the reference"
        return too_few(record.series("loss"), "loss")

    def examine(self, record: RunRecord) -> Finding | None:
        """The median of the second half, and whether margins grow all the same."""
        loss = record.series("loss")
        late = float(np.median(last_half(loss)))
        margins = record.series("rewards/margins")
        margin = float(np.median(last_half(margins))) if len(margins) else math.nan
        if abs(late - math.log(2)) > _NEAR or abs(margin) > _SMALL_MARGIN:
            return None
        grown = ends(margins)
        moves = bool(grown and grown.rises)
        seen = "" if math.isnan(margin) else f"; median margin there {margin:.2g}"
        return self.found(
            "note" if moves else "error",
            "possible" if moves else "likely",
            "The loss hardly leaves 0.693, though margins grow a little."
            if moves
            else "The loss is stuck at 0.693: nothing is learned about the pairs.",
            evidence=(
                f"Median loss of the second half of {len(loss)} rows {late:.4f}, ln 2 is "
                f"{math.log(2):.4f}{seen}."
            ),
            meaning=(
                "At a margin of 0 the loss is ln 2. The policy moves too little, or what it "
                "learns from one pair the next takes back."
            ),
            fix=(
                "Raise the learning rate (or beta), train longer; if that does nothing, check that "
                "parameters are trainable and that chosen and rejected are not the same text."
            ),
            files=(record.log_source,),
        )


SYMPTOM = LossStuck
