"""Was the run trained in fp16, and did it break on it?

fp16 ends at 65,504; log-probs summed over an answer and their gradients leave that range, and
models trained in bfloat16 have activations beyond it.

Source: huggingface/trl #878 and PR #942 (NaN in fp16).
"""

import numpy as np

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom


class HalfPrecision(Symptom):
    """Training in fp16."""

    question = "Was the run trained in fp16, and did it break on it?"
    source = "huggingface/trl #878 and PR #942"

    def lacking(self, record: RunRecord) -> str:
        """The precision."""
        known = {"fp16", "bf16", "weights_dtype"} & set(record.settings)
        return "" if known else "the precision is not recorded"

    def examine(self, record: RunRecord) -> Finding | None:
        """fp16 with a NaN loss is an error, fp16 alone a note."""
        weights = str(record.get("weights_dtype") or "").endswith("float16")
        weights &= "bfloat16" not in str(record.get("weights_dtype"))
        if record.get("fp16") is not True and not weights:
            return None
        loss = record.series("loss", finite=False)
        broken = loss.step[~np.isfinite(loss.value)]
        where = (record.where("fp16"), record.where("weights_dtype"), record.log_source)
        kind = "fp16 training" if record.get("fp16") is True else "weights in float16"
        if broken.size:
            return self.found(
                "error",
                "likely",
                "The run broke in fp16: its loss is not a finite number.",
                evidence=f"{kind}; the loss is not finite from step {int(broken[0])} on.",
                meaning="Numbers beyond 65,504 became infinite; the weights are lost after that.",
                fix="Train in bf16 (bf16: true, fp16: false) or float32, from the start.",
                files=where,
            )
        return self.found(
            "note",
            "possible",
            "The run was trained in fp16.",
            evidence=f"{kind}; every logged loss is finite.",
            meaning="Nothing is wrong; preference losses overflow in fp16 more easily than others.",
            fix="Prefer bf16 where the hardware has it.",
            files=where[:2],
        )


SYMPTOM = HalfPrecision
