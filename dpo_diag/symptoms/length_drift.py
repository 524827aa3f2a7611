"""Do sampled answers grow longer, or shorter, while training goes on?

Source: Park et al. 2024, "Disentangling length from quality in DPO"; eric-mitchell #35, huggingface
/trl #2003. The limits, 15 % for a note and 30 % for a warning, are ours.
"""

from dpo_diag.run_formats._base import RunRecord, Series
from dpo_diag.symptoms._base import Finding, Symptom
from dpo_diag.symptoms._trends import ends, too_few

_NOTE, _WARNING = 0.15, 0.30


class LengthDrift(Symptom):
    """A change of the length of answers."""

    question = "Does the length of sampled answers stay what it was?"
    source = "Park et al. 2024; eric-mitchell/direct-preference-optimization #35; limits ours"

    def lacking(self, record: RunRecord) -> str:
        """A logged length."""
        return too_few(_lengths(record), "the length of answers is")

    def examine(self, record: RunRecord) -> Finding | None:
        """A clear relative change."""
        length = ends(_lengths(record))
        if length.first <= 0 or not (length.rises or length.falls):
            return None
        change = length.change / length.first
        if abs(change) < _NOTE:
            return None
        way = "longer" if change > 0 else "shorter"
        return self.found(
            "warning" if abs(change) >= _WARNING else "note",
            "likely",
            f"Answers grow {way} as training goes on.",
            evidence=(
                f"Mean length {length.first:.4g} in the first quarter of the log, {length.last:.4g}"
                f" in the last: {change:+.0%}."
            ),
            meaning=(
                "Where chosen answers are longer than rejected ones the policy learns length "
                "first, and a gain in win rate may be nothing else."
            ),
            fix=(
                "Compare at matched length; normalise by length (SimPO, ld_alpha), balance the "
                "pairs' lengths, or raise beta."
            ),
            files=(record.log_source,),
        )


SYMPTOM = LengthDrift


def _lengths(record: RunRecord) -> Series:
    train, held_out = record.series("length"), record.series("eval_length")
    return train if len(train) >= len(held_out) else held_out
