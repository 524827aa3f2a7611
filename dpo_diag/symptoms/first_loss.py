"""Does the loss begin at ln 2?

A first loss of several times ln 2 is the sum over accumulated batches. Any other value says that
policy and reference disagree before training, or that the loss has a further term.

Source: the DPO loss at a margin of 0 (Rafailov et al. 2023, equation 7); hiyouga/LLaMA-Factory
#5747, huggingface/transformers #35856 and huggingface/trl PR #2615 (loss times the accumulation).
"""

import math

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom

_OFF = 0.1


class FirstLoss(Symptom):
    """A loss that does not begin at ln 2."""

    question = "Does the loss begin at ln 2?"
    source = (
        "Rafailov et al. 2023, equation 7; huggingface/transformers #35856; "
        "huggingface/trl PR #2615"
    )
    explained_by = ("reward_at_start", "adapter_reference", "reference_differs", "half_precision")

    def lacking(self, record: RunRecord) -> str:
        """A logistic loss alone, logged at the first step."""
        loss = record.series("loss")
        if not record.is_logistic or record.get("sft_weight"):
            return "the loss is not ln 2 at the reference"
        return "" if len(loss) and loss.step[0] <= 1 else "the first step's loss is not logged"

    def examine(self, record: RunRecord) -> Finding | None:
        """The first loss against ln 2 and its multiples."""
        first = float(record.series("loss").value[0])
        times = first / math.log(2)
        if abs(first - math.log(2)) < _OFF:
            return None
        accumulated = record.get("accumulation")
        summed = round(times) >= 2 and abs(times - round(times)) < 0.02 * times
        summed &= accumulated is None or round(times) == accumulated
        return self.found(
            "note" if summed else "warning",
            "possible" if summed else "likely",
            f"The loss begins at {round(times)} times ln 2: it is a sum over batches."
            if summed
            else "The loss does not begin at ln 2 = 0.693.",
            evidence=f"First logged loss {first:.4g} = {times:.3g} times ln 2.",
            meaning=(
                "The loss is not divided by the accumulation steps, nor are the gradients: Adam "
                "undoes that, gradient clipping does not."
                if summed
                else "The policy differs from its reference before training, or the loss has a "
                "further term that the settings do not show."
            ),
            fix=(
                "A newer trl and transformers; compare losses of such runs with no others."
                if summed
                else "Check the reference (the starting model, same template and precision) and "
                "log rewards."
            ),
            files=(record.log_source,),
        )


SYMPTOM = FirstLoss
