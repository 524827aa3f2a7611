"""Is the rendered prompt a prefix of the rendered prompt and answer?

If it is not, the trainer cuts the answer at the wrong place, and what is sampled has another
beginning than what was trained.

Source: TRL's data set formats (the template must make the prompt a prefix); trl 1.16's warning
"Mismatch between tokenized prompt and the start of tokenized prompt+chosen".
"""

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom


class TemplatePrefix(Symptom):
    """A chat template whose prompt is no prefix."""

    question = "Is the rendered prompt a prefix of the rendered prompt and answer?"
    source = "TRL, data set formats; trl 1.16, DPOTrainer's warning on mismatched prompts"

    def lacking(self, record: RunRecord) -> str:
        """A chat template that is used."""
        if record.template is None:
            return "there is no chat template"
        if record.data is not None and not record.data.n_conversations:
            return "the training pairs are plain text, which needs no chat template"
        return ""

    def examine(self, record: RunRecord) -> Finding | None:
        """Rendered texts that part within the prompt; a template that cannot be rendered."""
        rendered = record.template
        if rendered.error:
            return self._unrendered(record)
        if not rendered.n_not_prefix:
            return None
        real = record.data is not None
        return self.found(
            "error",
            "certain" if real else "likely",
            "The chat template does not make the prompt a prefix of prompt and answer.",
            evidence=(
                f"{rendered.n_not_prefix} of {rendered.n} conversations ({rendered.of}); the "
                f"prompt alone ends with {rendered.example!r}, which the whole lacks there."
            ),
            meaning=(
                "The boundary between prompt and answer falls in the wrong place: prompt tokens "
                "are trained, or answer tokens are not, and sampling begins differently."
            ),
            fix=(
                "Render the assistant's header the same with add_generation_prompt as before an "
                "assistant turn (TRL ships training templates that do), then train again."
            ),
            files=(record.tokenizer.source,),
        )

    def _unrendered(self, record: RunRecord) -> Finding:
        return self.found(
            "warning",
            "likely",
            "The chat template cannot be rendered.",
            evidence=f"On {record.template.of}: {record.template.error}.",
            meaning="Nothing can be said of its prefix, BOS or EOS; serving it may fail as well.",
            fix="Repair the template, or give the conversations it was made for with --pairs.",
            files=(record.tokenizer.source,),
        )


SYMPTOM = TemplatePrefix
