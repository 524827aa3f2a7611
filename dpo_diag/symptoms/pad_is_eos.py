"""Is the padding token the EOS token?

A collator that masks every padding token then masks the end of each answer with it.

Source: transformers' ``DataCollatorForLanguageModeling`` (labels of the padding token are ignored);
TRL masks by length and is not concerned.
"""

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom


class PadIsEos(Symptom):
    """One token for both."""

    question = "Is the padding token another one than EOS?"
    source = "transformers, DataCollatorForLanguageModeling"

    def lacking(self, record: RunRecord) -> str:
        """Both tokens."""
        tokens = record.tokenizer
        if tokens is None:
            return "the folder has no tokenizer files"
        return "" if tokens.pad and tokens.eos else "the tokenizer has no padding token"

    def examine(self, record: RunRecord) -> Finding | None:
        """Equality."""
        tokens = record.tokenizer
        if tokens.pad != tokens.eos:
            return None
        return self.found(
            "note",
            "possible",
            "Padding and EOS are the same token.",
            evidence=f"pad_token and eos_token are both {tokens.eos!r}.",
            meaning=(
                "TRL masks by length, so that nothing is lost there; a collator that masks by the "
                "padding token leaves the end of every answer untrained."
            ),
            fix="Where samples do not stop, give padding a token of its own.",
            files=(tokens.source,),
        )


SYMPTOM = PadIsEos
