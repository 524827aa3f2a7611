"""Are prompts and answers cut to fit the window?

Words are counted, not tokens: no tokenizer makes fewer tokens than there are words, so what is
found here is cut for certain, and more may be.

Source: huggingface/trl PR #2209 (truncation changes logits), #6321 (pair dropped when the prompt
fills the window); TRL's ``keep_start`` cuts the end of the answer.
"""

import numpy as np

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom

_SOME = 0.02
_SHORT_WINDOW = 256


class Truncation(Symptom):
    """Text that does not fit the window."""

    question = "Do prompts and answers fit the window?"
    source = "huggingface/trl PR #2209, #6321"

    def lacking(self, record: RunRecord) -> str:
        """The window."""
        return "" if record.get("max_length") else "max_length is not recorded"

    def examine(self, record: RunRecord) -> Finding | None:
        """No room at all, then the data's lengths, then a short window alone."""
        window, prompt = record.get("max_length"), record.get("max_prompt_length")
        where = (record.where("max_length"), record.where("max_prompt_length"))
        if prompt is not None and prompt >= window:
            return self._cut(
                "error",
                "certain",
                where,
                f"max_prompt_length {prompt:g} leaves no room in max_length {window:g}.",
            )
        data = record.data
        if data is not None and data.words.size:
            return self._by_words(record, window)
        if window < _SHORT_WINDOW and not record.is_tiny:
            return self._cut(
                "note",
                "possible",
                where,
                f"max_length is {window:g} tokens for prompt and answer; no pairs were given to "
                "measure.",
            )
        return None

    def _by_words(self, record: RunRecord, window: float) -> Finding | None:
        data = record.data
        filled = float(np.mean(data.prompt_words >= window))
        cut = float(np.mean(data.words > window))
        where = (record.where("max_length"), data.source)
        if filled > 0:
            return self._cut(
                "error",
                "certain",
                where,
                f"{filled:.1%} of prompts have at least {window:g} words, as many as the window "
                "has tokens: nothing of their answers is left.",
            )
        if cut < _SOME:
            return None
        return self._cut(
            "warning",
            "certain",
            where,
            f"At least {cut:.1%} of {data.words.size} pairs are longer than {window:g} tokens "
            f"(longest {data.words.max():g} words).",
        )

    def _cut(self, severity: str, certainty: str, where: tuple[str, ...], seen: str) -> Finding:
        return self.found(
            severity,
            certainty,
            "Prompts or answers are cut to fit the window."
            if severity != "note"
            else "The window is short.",
            evidence=seen,
            meaning=(
                "What is cut is not trained: answers lose their end and their EOS, and pairs that "
                "differ late look alike."
            ),
            fix="Raise max_length to the longest pair, or drop the longest pairs.",
            files=where,
        )


SYMPTOM = Truncation
