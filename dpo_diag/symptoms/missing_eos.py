"""Does an answer end with the EOS token, so that the model learns to stop?

Source: methods dossier, trap 2 (a missing EOS shifts every log-ratio); issue text "missing EOS";
TRL appends EOS to plain text only, a chat template must do it itself (trl 1.16, ``DPOTrainer``).
"""

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom


class MissingEos(Symptom):
    """Answers that do not end."""

    question = "Does an answer end with the EOS token?"
    source = "trl 1.16, DPOTrainer: EOS is added to plain text only, never to conversations"

    def lacking(self, record: RunRecord) -> str:
        """A tokenizer."""
        return "" if record.tokenizer else "the folder has no tokenizer files"

    def examine(self, record: RunRecord) -> Finding | None:
        """No EOS token at all, or a template that ends answers without it."""
        tokens, rendered = record.tokenizer, record.template
        if tokens.eos is None:
            return self._none_set(record)
        if rendered is None or not rendered.n or not rendered.n_without_eos:
            return None
        other = sorted(t for t in tokens.vocabulary if t and t in rendered.tail)
        ended = (
            f"ends them with {rendered.tail.strip()!r}" if rendered.tail.strip() else "adds none"
        )
        plain = record.data is not None and not record.data.n_conversations
        return self.found(
            "note" if other or plain else "error",
            "possible" if other or plain else "certain",
            f"The chat template ends answers without the EOS token {tokens.eos!r}.",
            evidence=(
                f"In {rendered.n_without_eos} of {rendered.n} conversations ({rendered.of}) no "
                f"{tokens.eos!r} follows the answer; the template {ended}."
            ),
            meaning=(
                "Generation must be told to stop at the token that the template does put there."
                if other
                else "Nothing in training says where an answer ends: samples run on to the limit, "
                "and the length of answers drifts."
            ),
            fix=(
                "Make the template's end-of-turn token the EOS token of tokenizer and "
                "generation_config.json, or put {{ eos_token }} after the assistant's content."
            ),
            files=(tokens.source, "chat_template.jinja" if other else ""),
        )

    def _none_set(self, record: RunRecord) -> Finding:
        return self.found(
            "error",
            "certain",
            "The tokenizer has no EOS token.",
            evidence=f"{record.tokenizer.source} sets no eos_token, nor does any file beside it.",
            meaning=(
                "Answers are trained without an end, so that samples run on to the limit and the "
                "log-prob of an answer leaves out that it stops."
            ),
            fix="Set eos_token in tokenizer_config.json to the token that ends a turn, retrain.",
            files=(record.tokenizer.source,),
        )


SYMPTOM = MissingEos
