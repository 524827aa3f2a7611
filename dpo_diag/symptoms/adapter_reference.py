"""Did training go on from an SFT adapter while the reference is the base without it?

With an adapter most trainers take the reference by switching the adapter off, which is right for a
fresh adapter and wrong for one that already holds the SFT. TRL keeps a copy of a loaded adapter
(``ref/``), LLaMA-Factory and axolotl need to be told.

Source: hiyouga/LLaMA-Factory #6314, #8459 (adapter SFT: the reference is the base), huggingface/trl
#1148, #2423; TRL's rule in formats of checkpoint folders.
"""

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom


class AdapterReference(Symptom):
    """A continued adapter whose reference is the bare base."""

    question = "Does an adapter that training went on from have its own copy as the reference?"
    source = "hiyouga/LLaMA-Factory #6314, #8459; huggingface/trl #1148, #2423"

    def lacking(self, record: RunRecord) -> str:
        """An adapter, and a method with a reference."""
        if not record.takes_reference:
            return "the method takes no reference"
        if record.get("start_adapter") or record.get("adapter_base"):
            return ""
        return "the run has no adapter"

    def examine(self, record: RunRecord) -> Finding | None:
        """An adapter to start from, not merged, and neither a reference nor a copy of it."""
        start = record.get("start_adapter")
        if not start or record.get("creates_adapter"):
            return None
        if record.get("reference") or record.get("reference_adapter"):
            return None
        base = record.get("adapter_base") or record.get("model") or "the base model"
        return self.found(
            "error",
            "certain",
            "The reference is the base model, though training went on from an SFT adapter.",
            evidence=(
                f"Training started from the adapter {start}; no reference model, no reference "
                f"adapter and no copy ref/ is recorded, so the reference is {base} alone."
            ),
            meaning=(
                "The loss pulls the policy back to the model before SFT, and rewards measure the "
                "SFT together with the preference training; they are not 0 at the start."
            ),
            fix=(
                "Merge the SFT adapter into the base and train a new adapter on that (LLaMA-Factory"
                ": create_new_adapter: true), or name the SFT adapter as the reference (LLaMA-"
                "Factory: ref_model_adapters, axolotl: rl_adapter_ref_model: true)."
            ),
            files=(record.where("start_adapter"), record.where("adapter_base")),
        )


SYMPTOM = AdapterReference
