"""TRL's preference format: ``prompt``, ``chosen``, ``rejected``, or the last two alone.

Standard (text) and conversational (lists of turns); explicit prompt, or implicit: both sides hold
the whole dialogue and the prompt is what they share. For text that is TRL's own rule, character by
character, a space before the first difference going to the answers; words that both answers begin
with thus end up in the prompt, as in training. A text ``prompt`` beside whole dialogues (as in
UltraFeedback) is ignored, as TRL ignores it.

Source: trl 1.16, ``data_utils.extract_prompt`` and ``maybe_extract_prompt``.
"""

from typing import Any

from dpo_diag.conversations import Turns, as_turns, is_turns, rendering
from dpo_diag.errors import DataError
from dpo_diag.pair_formats._base import (
    Draft,
    InvalidRow,
    PairFormat,
    Row,
    answer_of,
    extras_of,
    from_dialogues,
    text_of,
)
from dpo_diag.pair_formats._votes import OPTIONAL as VOTES

_TEMPLATE_COLUMNS = ("tools", "chat_template_kwargs")


class Trl(PairFormat):
    """TRL's preference format, standard or conversational, explicit or implicit prompt."""

    required = ("chosen", "rejected")
    optional = ("prompt", *VOTES)

    def claim(self, row: Row) -> int:
        """Two columns, three with a prompt."""
        return super().claim(row) and 2 + ("prompt" in row)

    def drafts(self, row: Row, label: str) -> list[Draft]:
        """One pair."""
        for column in _TEMPLATE_COLUMNS:
            if row.get(column):
                raise DataError(
                    f"column {column} changes what the chat template makes of the prompt, which "
                    "is not supported; remove the column to read the pairs without it"
                )
        extras = extras_of(row, {"prompt", "chosen", "rejected", *_TEMPLATE_COLUMNS})
        return [draft_of(row, extras)]

    def prompt(self, row: Row) -> Draft:
        """The prompt, which whole dialogues hold within them."""
        if row.get("prompt") is None or is_turns(row["chosen"]):
            return self.drafts(row, "better")[0]
        return prompt_of(row["prompt"], "prompt")


FORMAT = Trl


def draft_of(row: Row, extras: dict[str, Any]) -> Draft:
    """The pair of a row in any of TRL's four shapes."""
    prompt, chosen, rejected = row.get("prompt"), row["chosen"], row["rejected"]
    if is_turns(chosen) != is_turns(rejected):
        raise DataError("columns chosen and rejected must both be text or both lists of turns")
    if not is_turns(chosen):
        good, bad = text_of(row, "chosen"), text_of(row, "rejected")
        if prompt is None:
            return _split_text(good, bad, extras)
        asked = prompt_of(prompt, "prompt")
        return Draft(asked.prompt, good, bad, asked.turns, extras)
    turns = prompt_of(prompt, "prompt").turns if prompt is not None else None
    if turns is None:
        if prompt is not None and len(chosen) == len(rejected) == 1:
            turns = [{"role": "user", "content": text_of(row, "prompt")}]
        else:
            return from_dialogues(chosen, rejected, extras)
    answers = [_after(as_turns(row[c], c), turns, c) for c in ("chosen", "rejected")]
    return Draft(rendering(turns), *answers, turns, extras)


def prompt_of(value: Any, column: str) -> Draft:
    """A prompt without answers from text or a list of turns."""
    if is_turns(value):
        turns = as_turns(value, column)
        return Draft(rendering(turns), "", "", turns)
    return Draft(text_of({column: value}, column), "", "")


def _after(answer: Turns, prompt: Turns, column: str) -> str:
    whole = answer[: len(prompt)] == prompt  # the column repeats the prompt before the answer
    return answer_of(answer[len(prompt) :] if whole else answer, column)


def _split_text(chosen: str, rejected: str, extras: dict[str, Any]) -> Draft:
    both = enumerate(zip(chosen, rejected, strict=False))
    at = next((i for i, (good, bad) in both if good != bad), -1)
    if at < 0:
        raise InvalidRow(
            "columns chosen and rejected are the same text, or one begins the other, so the "
            "prompt they share cannot be told from the answers; give a prompt column"
        )
    at -= chosen[at - 1 : at] == " "
    return Draft(chosen[:at], chosen[at:], rejected[at:], None, extras)
