"""Is BOS put twice in front of a text, or EOS twice behind an answer?

Happens where a text already holds BOS, because it was rendered by a template, and the tokenizer
puts one in front again.

Source: issue text "doubled BOS"; transformers, "Chat templates" (tokenise rendered text with
``add_special_tokens=False``).
"""

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom


class DoubledBos(Symptom):
    """BOS twice in front."""

    question = "Is BOS put in front of a text only once?"
    source = "transformers documentation, chat templates: special tokens in rendered text"

    def lacking(self, record: RunRecord) -> str:
        """A tokenizer with BOS, and a template or the data."""
        if record.tokenizer is None:
            return "the folder has no tokenizer files"
        if record.tokenizer.bos is None:
            return "" if _ended(record) else "the tokenizer has no BOS token"
        rendered = record.template is not None and record.template.n > 0
        seen = rendered or record.data is not None
        return "" if seen else "neither a chat template nor the training pairs are at hand"

    def examine(self, record: RunRecord) -> Finding | None:
        """Rendered texts that begin with two, data whose prompts begin with one already."""
        tokens, rendered, data = record.tokenizer, record.template, record.data
        evidence = ""
        if rendered and rendered.n_double_bos:
            evidence = (
                f"{rendered.n_double_bos} of {rendered.n} rendered conversations ({rendered.of}) "
                f"begin with {tokens.bos!r} twice."
            )
        elif data and data.n_begin_bos and (tokens.adds_bos or _template_adds(record)):
            evidence = (
                f"{data.n_begin_bos} of {data.n} prompts begin with {tokens.bos!r} as text, and "
                f"{'the tokenizer' if tokens.adds_bos else 'the chat template'} adds another."
            )
        if not evidence:
            return self._doubled_eos(record) if _ended(record) else None
        return self.found(
            "error",
            "likely",
            "Texts begin with BOS twice.",
            evidence=evidence,
            meaning=(
                "No pretraining text begins so; log-probs of policy and reference shift, and "
                "sampling, which puts one BOS, sees other contexts than training."
            ),
            fix=(
                "Take BOS out of the data or of the template, or tokenise rendered text with "
                "add_special_tokens=False."
            ),
            files=(tokens.source, data.source if data else ""),
        )

    def _doubled_eos(self, record: RunRecord) -> Finding:
        data, tokens = record.data, record.tokenizer
        return self.found(
            "note",
            "possible",
            "Answers of the data end with EOS as text.",
            evidence=f"{data.n_end_eos} of {2 * data.n} answers end with {tokens.eos!r}.",
            meaning="A trainer that appends EOS without looking trains two of them.",
            fix="Take EOS out of the data; every trainer adds it.",
            files=(data.source,),
        )


SYMPTOM = DoubledBos


def _template_adds(record: RunRecord) -> bool:
    rendered = record.template
    return bool(rendered and rendered.begins_with_bos and record.data.n_conversations)


def _ended(record: RunRecord) -> bool:
    return record.data is not None and record.data.n_end_eos > 0
