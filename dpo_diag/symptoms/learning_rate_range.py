"""Is the learning rate within what the field uses, for a full model or an adapter?

Source: TRL's default 1e-6; SimPO's tuned DPO 3e-7 to 7e-7, and its report that 1e-5 gives
gibberish; Razin et al. 2024 1e-7 to 5e-6; alignment-handbook #25 (5e-7 in its recipe); OLMo 2's
model card 8e-7; adapters take about ten times more (5e-6 in LLaMA-Factory's and TRL's examples,
1e-4 in alignment-handbook #25). The limits are ours. Models narrower than 512 were never part of
it and are not judged.
"""

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom

# kind -> lowest and highest of the warning, highest of use
_LIMITS = {"full": (1e-8, 1e-5, 5e-6), "adapter": (1e-7, 5e-4, 2e-4)}


class LearningRateRange(Symptom):
    """A learning rate that nobody uses."""

    question = "Is the learning rate within what the field uses?"
    source = "princeton-nlp/SimPO; Razin et al. 2024; TRL and LLaMA-Factory defaults; limits ours"

    def lacking(self, record: RunRecord) -> str:
        """A learning rate, and a model of a size that the field trains."""
        if _peak(record) is None:
            return "the learning rate is neither recorded nor logged"
        return "the model is smaller than any the ranges were found on" if record.is_tiny else ""

    def examine(self, record: RunRecord) -> Finding | None:
        """Its peak against the limits of its kind."""
        rate, source = _peak(record)
        kind = "adapter" if record.get("lora_r") else "full"
        low, high, used = _LIMITS[kind]
        if low <= rate <= used or rate == 0:
            return None
        severe = not low <= rate < high
        what = "an adapter" if kind == "adapter" else "all parameters"
        return self.found(
            "warning" if severe else "note",
            "likely" if severe else "possible",
            f"The learning rate {rate:.3g} is {'above' if rate > used else 'below'} what the field "
            f"uses for {what}.",
            evidence=f"Peak {rate:.3g}; limits {low:g} and {high:g}, seldom above {used:g}.",
            meaning=(
                "Preference losses break at rates that SFT takes easily: chosen and rejected both "
                "fall, text degrades to repetition."
                if rate > used
                else "At such a rate the policy hardly leaves the reference."
            ),
            fix=(
                "Full models: 3e-7 to 1e-6. Adapters: 5e-6 to 5e-5. Warm up over a tenth of the "
                "steps."
            ),
            files=(source,),
        )


SYMPTOM = LearningRateRange


def _peak(record: RunRecord) -> tuple[float, str] | None:
    given = record.get("learning_rate")
    if given is not None:
        return given, record.where("learning_rate")
    logged = record.series("learning_rate").value
    return (float(logged.max()), record.log_source) if logged.size else None
