"""Is the reference that the run names the model that training started from?

A reference of one's own choice is allowed; it is far more often a path left over from another run.

Source: huggingface/trl #1500, #7063, NVIDIA/NeMo-Aligner #227 (wrong reference weights),
alignment-handbook #124; rule 8 of this package: a reference has a fingerprint.
"""

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom


class ReferenceDiffers(Symptom):
    """A reference that is not the starting model."""

    question = "Is the named reference the model that training started from?"
    source = "huggingface/trl #1500, #7063; NVIDIA/NeMo-Aligner #227; alignment-handbook #124"

    def lacking(self, record: RunRecord) -> str:
        """Both models, by fingerprint or by name."""
        if not record.takes_reference:
            return "the method takes no reference"
        return "" if _both(record) else "starting model and reference are not both recorded"

    def examine(self, record: RunRecord) -> Finding | None:
        """Fingerprints where they are recorded, names otherwise."""
        kind, start, reference = _both(record)
        if start == reference:
            return None
        return self.found(
            "warning",
            "likely",
            "The reference is another model than the one that training started from.",
            evidence=f"By {kind}: started from {start[:80]}, reference {reference[:80]}.",
            meaning=(
                "Rewards are then not 0 at the start, and the loss pulls towards the other model. "
                "That is right only where it was meant."
            ),
            fix=(
                "Name the starting model as the reference, or leave the reference out so that the "
                "trainer takes it; keep it only if another one is intended."
            ),
            files=(record.where("reference"), record.where("model")),
        )


SYMPTOM = ReferenceDiffers


def _both(record: RunRecord) -> tuple[str, str, str] | None:
    """How they are compared, starting model, reference; None where one is not known."""
    prints = (record.get("base_fingerprint"), record.get("reference_fingerprint"))
    if all(prints):
        return "fingerprint", prints[0][:16], prints[1][:16]
    if record.get("start_adapter"):
        return None  # the reference may well be the merged model
    names = (record.get("model"), record.get("reference"))
    if all(names):
        return "name", *(str(name).rstrip("/") for name in names)
    return None
