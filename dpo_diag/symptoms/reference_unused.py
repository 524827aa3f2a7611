"""Is a reference named for a method that takes none?

Source: SimPO (Meng et al. 2024) and ORPO (Hong et al. 2024) take no reference; LLaMA-Factory and
axolotl accept one all the same; TRL's reference_free.
"""

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom


class ReferenceUnused(Symptom):
    """A reference that the loss never sees."""

    question = "Does the method use the reference that the run names?"
    source = "Meng et al. 2024 (SimPO); Hong et al. 2024 (ORPO); TRL, reference_free"

    def lacking(self, record: RunRecord) -> str:
        """The method, and whether a reference is named."""
        known = record.loss_type or record.get("reference_free") is not None
        return "" if known else "the method is not recorded"

    def examine(self, record: RunRecord) -> Finding | None:
        """A method without reference beside a named one."""
        named = record.get("reference") or record.get("reference_adapter")
        if record.takes_reference or not named:
            return None
        method = record.loss_type or "reference_free"
        return self.found(
            "warning",
            "certain",
            "A reference is named, but the method takes none.",
            evidence=f"Method {method}; reference {str(named)[:80]}.",
            meaning=(
                "Rewards of this run are log-probs, not log-ratios: they are not 0 at the start "
                "and nothing holds the policy to that model."
            ),
            fix=(
                "Drop the reference, or take a loss that uses it; read accuracy only beside that "
                "of the same method."
            ),
            files=(record.where("loss_type"), record.where("reference")),
        )


SYMPTOM = ReferenceUnused
