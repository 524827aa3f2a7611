"""Are the training pairs told apart perfectly, with nothing left to learn?

Source: zhyang2226/OPA-DPO #10 (accuracy 1.0, output unchanged), hiyouga/LLaMA-Factory #5321; DPO's
optimum for a deterministic label is an infinite margin (Azar et al. 2023). The limits are ours.
"""

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom
from dpo_diag.symptoms._trends import ends, too_few

_PERFECT, _NO_LOSS = 0.99, 0.02


class Saturated(Symptom):
    """Pairs that are too easy, or memorised."""

    question = "Is there something left to learn from the training pairs?"
    source = "zhyang2226/OPA-DPO #10; hiyouga/LLaMA-Factory #5321; Azar et al. 2023; limits ours"
    explained_by = ("evaluation_gap", "loss_zero")

    def lacking(self, record: RunRecord) -> str:
        """A logistic loss, and enough rows with loss and accuracy."""
        if not record.is_logistic:
            return "the loss has another scale"
        names = ("rewards/accuracies", "loss")
        return next((why for n in names if (why := too_few(record.series(n), n))), "")

    def examine(self, record: RunRecord) -> Finding | None:
        """Accuracy near 1 and a loss near 0 in the last quarter."""
        accuracy, loss = (ends(record.series(n)) for n in ("rewards/accuracies", "loss"))
        if accuracy.last < _PERFECT or loss.last > _NO_LOSS:
            return None
        margin = ends(record.series("rewards/margins"))
        grown = f", margin {margin.last:.3g}" if margin else ""
        return self.found(
            "warning",
            "possible",
            "The training pairs are told apart perfectly.",
            evidence=(
                f"Last {accuracy.n} rows: accuracy {accuracy.last:.3f}, loss {loss.last:.2g}"
                f"{grown}."
            ),
            meaning=(
                "Either something trivial tells chosen from rejected (length, a phrase, the model "
                "that wrote them), or the pairs are memorised; the margin grows without end."
            ),
            fix=(
                "Run dpo-diag pairs on the data for what alone predicts the label; compare with "
                "held-out accuracy; fewer epochs, or IPO or label smoothing, which stop growing."
            ),
            files=(record.log_source,),
        )


SYMPTOM = Saturated
