"""Are there log rows enough to judge the run by?

Source: ours. A quantity's change is told from its noise by the means of its first and last rows.
"""

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom
from dpo_diag.symptoms._trends import LEAST_ROWS


class FewRows(Symptom):
    """A log that says little."""

    question = "Are there log rows enough to judge the run by?"
    source = "ours"
    explained_by = ("unreadable_files",)

    def examine(self, record: RunRecord) -> Finding | None:
        """Rows with a loss or a reward."""
        n = max(len(record.series(name, finite=False)) for name in ("loss", "rewards/chosen"))
        if n >= LEAST_ROWS:
            return None
        empty = bool(record.log_source) and not record.log
        none = not record.log_source
        said = "no log that can be read" if none else f"{n} rows in {record.log_source}"
        return self.found(
            "warning" if empty else "note",
            "certain",
            "The log is empty." if empty else "There are too few log rows to judge training by.",
            evidence=f"{said}; changes are judged from {LEAST_ROWS} rows on.",
            meaning="Only settings, tokenizer and data could be examined; training could not.",
            fix="Set logging_steps to a twentieth of the run or less, and keep the log beside the "
            "model.",
            files=(record.log_source,),
        )


SYMPTOM = FewRows
