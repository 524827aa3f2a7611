"""Is the label smoothing one that the loss can use?

Source: Mitchell 2023 (conservative DPO, label noise below 0.5); Chowdhury et al. 2024 (robust DPO
divides by 1 - 2 epsilon); TRL's ``label_smoothing``, which hinge and ipo ignore.
"""

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom

_USE_IT = {"", "sigmoid", "dpo", "cdpo", "robust", "rdpo", "exo_pair"}
_NEED_IT = {"robust", "exo_pair"}


class LabelSmoothing(Symptom):
    """A label smoothing that does nothing, or harm."""

    question = "Is the label smoothing one that the loss can use?"
    source = "Mitchell 2023; Chowdhury et al. 2024; TRL, DPOConfig.label_smoothing"

    def lacking(self, record: RunRecord) -> str:
        """A label smoothing."""
        return "" if record.get("label_smoothing") is not None else "it is not recorded"

    def examine(self, record: RunRecord) -> Finding | None:
        """Out of range, then without effect, then missing."""
        smoothing, loss = record.get("label_smoothing"), record.loss_type
        if not 0 <= smoothing < 0.5:
            return self._wrong(
                record,
                "error",
                f"label_smoothing {smoothing:g} is not in 0 to 0.5",
                "At 0.5 the labels say nothing; above it the loss prefers the rejected answer.",
            )
        if smoothing > 0 and loss not in _USE_IT:
            return self._wrong(
                record,
                "warning",
                f"label_smoothing {smoothing:g} does nothing for the loss {loss}",
                "The noise in the labels is not accounted for, though the settings say so.",
            )
        if smoothing == 0 and loss in _NEED_IT:
            return self._wrong(
                record,
                "warning",
                f"the loss {loss} has label_smoothing 0",
                "Without it the loss is plain DPO, or is not defined.",
            )
        return None

    def _wrong(self, record: RunRecord, severity: str, what: str, meaning: str) -> Finding:
        return self.found(
            severity,
            "certain",
            f"{what[0].upper()}{what[1:]}.",
            evidence=f"{what}.",
            meaning=meaning,
            fix="Set it to the expected share of wrong labels, say 0.1, with sigmoid or robust.",
            files=(record.where("label_smoothing"), record.where("loss_type")),
        )


SYMPTOM = LabelSmoothing
