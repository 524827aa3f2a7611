"""Is beta within what the field uses for this loss?

Source: Rafailov et al. 2023 (0.1 to 0.5), princeton-nlp/SimPO's README (tuned DPO 0.01; SimPO 2 to
2.5, newer models 10), OLMo 2's model card (length-normalised DPO 5), TRL's and LLaMA-Factory's
default 0.1; ORPO and KTO from memory. The outer limits, ten times below and twice above, are ours.
"""

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom

# loss -> the range in use
_LOGISTIC = (0.01, 0.5)
_USED = {
    **dict.fromkeys(("", "sigmoid", "dpo", "cdpo", "robust", "rdpo", "hinge", "dpop"), _LOGISTIC),
    "ipo": (0.01, 1.0),
    "kto": _LOGISTIC,
    "orpo": (0.05, 0.5),
    "simpo": (1.0, 10.0),
    "sigmoid_norm": (1.0, 10.0),
}
_BEYOND = 10.0


class BetaRange(Symptom):
    """A beta that nobody uses."""

    question = "Is beta within what the field uses for this loss?"
    source = "Rafailov et al. 2023; princeton-nlp/SimPO; OLMo 2 model card; outer limits ours"

    def lacking(self, record: RunRecord) -> str:
        """Beta, and a loss with a range."""
        if record.get("beta") is None:
            return "beta is not recorded in a file that can be read"
        known = record.loss_type in _USED
        return "" if known else f"no usual range is known for the loss {record.loss_type}"

    def examine(self, record: RunRecord) -> Finding | None:
        """Outside the range a note, ten times outside a warning, not above 0 an error."""
        beta = record.get("beta")
        low, high = _USED[record.loss_type]
        if low <= beta <= high:
            return None
        far = not low / _BEYOND <= beta < high * _BEYOND / 5
        loss = record.loss_type or "DPO's loss"
        if not beta > 0:
            return self._refused(record, beta)
        return self.found(
            "warning" if far else "note",
            "likely" if far else "possible",
            f"Beta {beta:g} is outside what the field uses.",
            evidence=f"For {loss} published runs lie between {low:g} and {high:g}.",
            meaning=(
                "Hardly anything holds the policy to the reference: margins grow, text degrades."
                if beta < low
                else "The reference holds the policy so tightly that few pairs are learned."
            ),
            fix=f"Take a beta between {low:g} and {high:g}, or tune it on held-out win rate.",
            files=(record.where("beta"), record.where("loss_type")),
        )

    def _refused(self, record: RunRecord, beta: float) -> Finding:
        return self.found(
            "error",
            "certain",
            f"Beta is {beta:g}, and must be above 0.",
            evidence=f"beta: {beta:g}.",
            meaning="The loss does not depend on the pairs, or rewards the worse answer.",
            fix="Set beta to 0.1 and train again.",
            files=(record.where("beta"),),
        )


SYMPTOM = BetaRange
