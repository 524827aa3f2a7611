"""dpo-diag's own pairs: every column of the PreferencePairs table, as ``data/`` commits them."""

from dpo_diag.conversations import rendering, turns_of
from dpo_diag.errors import DataError
from dpo_diag.pair_formats._base import Draft, PairFormat, Row, extras_of, text_of
from dpo_diag.pair_formats._votes import OPTIONAL as VOTES

SPLITS = ("train", "validation", "test")


class DpoDiag(PairFormat):
    """The PreferencePairs table: ids, prompt, both answers, domain, split, source."""

    required = (
        "pair_id",
        "prompt_id",
        "prompt",
        "chosen",
        "rejected",
        "domain",
        "split",
        "source",
    )
    optional = ("prompt_messages", "gold_margin", *VOTES)

    def drafts(self, row: Row, label: str) -> list[Draft]:
        """One pair; domain, split and source are passed on as extras."""
        if row.get("split") not in SPLITS:
            raise DataError(
                f"column split must be one of {', '.join(SPLITS)}, got {row.get('split')!r:.40}"
            )
        asked = self.prompt(row)
        extras = extras_of(row, {"prompt", "chosen", "rejected", "prompt_messages"})
        answers = text_of(row, "chosen"), text_of(row, "rejected")
        return [Draft(asked.prompt, *answers, asked.turns, extras)]

    def prompt(self, row: Row) -> Draft:
        """The prompt, as a conversation where ``prompt_messages`` is there."""
        turns = turns_of(row.get("prompt_messages"))
        if turns is not None:
            return Draft(rendering(turns), "", "", turns)
        return Draft(text_of(row, "prompt"), "", "")


FORMAT = DpoDiag
