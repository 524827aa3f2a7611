"""Could every file that matters be read?

Source: issue text "a broken trainer_state.json"; ours.
"""

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import SEVERITIES, Finding, Symptom

_SHOWN = 4


class UnreadableFiles(Symptom):
    """Files that are broken."""

    question = "Could every file that matters be read?"
    source = "ours"

    def examine(self, record: RunRecord) -> Finding | None:
        """The problems met while reading, the worst deciding."""
        if not record.problems:
            return None
        problems = sorted(record.problems, key=lambda p: SEVERITIES.index(p.severity))
        shown = "; ".join(f"{p.file}: {p.sentence}" for p in problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        return self.found(
            problems[0].severity,
            "certain",
            "The training log is broken."
            if problems[0].severity == "error"
            else "Some files could not be read as they should.",
            evidence=f"{shown}{more}.",
            meaning=(
                "Writing stopped half-way (a full disk, a killed job), or the file was edited. "
                "What it says is missing from this diagnosis."
            ),
            fix=(
                "Take the file from the last complete checkpoint, or copy it again; do not resume "
                "from a checkpoint with a broken state."
            ),
            files=tuple(p.file for p in problems[:_SHOWN]),
        )


SYMPTOM = UnreadableFiles
