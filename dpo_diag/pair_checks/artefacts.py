"""What does not belong into the text of a pair, and rows that make no pair at all.

Empty texts; markers of a template or special tokens spelled out (they become real control tokens
with some tokenizers, plain text with others); a turn of the user within an answer (the dialogue
was cut at the wrong place); answers that begin with the prompt (it would be learnt twice); and
whether the preferred answer was the first or the second one shown, where the source says so.
"""

import re
from collections.abc import Callable

import numpy as np
import pandas as pd

from dpo_diag.pair_checks._base import CLEAN, KNOW, LOOK, REPAIR, Check, Checked, Measure, PairData
from dpo_diag.pair_checks._measures import counted, examples, percent, share

MARKER = re.compile(
    r"<\|[A-Za-z0-9_ ]{2,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:bos|eos|pad|unk)>"
    r"|<(?:start|end)_of_turn>|\[(?:BOS|EOS|CLS|SEP|PAD|UNK|MASK)\]"
    r"|<\uff5c[^\uff5c]{2,40}\uff5c>|^#{2,4} ?(?:Instruction|Response|Input):",
    re.MULTILINE,
)
USER_TURN = re.compile(r"^[ \t]*(?:Human|User|USER|Assistant|ASSISTANT) ?:", re.MULTILINE)
POSITIONS = ("better_response_id", "preferred_position")  # 0 or 1: which answer was preferred
MIN_COPY = 20  # characters of a prompt from which an answer that begins with it is a copy


class Artefacts(Check):
    """Empty texts, markers, wrong cuts, copied prompts, the position of the preferred answer."""

    question = "Does anything stand in the texts that does not belong there?"
    reading = (
        "Shares are of pairs with the fault in any of the texts. The position share is that of "
        "preferred answers that were shown first; 50 % where the order was drawn at random."
    )
    misleads = (
        "Markers are found by their spelling; a data set about templates has them by right. A "
        "marker that is in every text is as harmful as one in a few and easier to overlook."
    )
    headline = ("empty_texts", "template_markers", "turns_within_answers", "answers_with_prompt")
    removes = ("artefacts",)

    def run(self, data: PairData, rng: np.random.Generator) -> Checked:
        """Rows by fault."""
        faults = {
            "empty_texts": _any_text(data, lambda text: not text.strip()),
            "template_markers": _any_text(data, lambda text: MARKER.search(text) is not None),
            "turns_within_answers": _any_text(
                data, lambda text: USER_TURN.search(text) is not None, ("chosen", "rejected")
            ),
            "answers_with_prompt": _begins_with_prompt(data),
        }
        position = _position(data)
        measures = (*(share(name, mask, data) for name, mask in faults.items()), *position)
        found = [f"{counted(m)} {_WORDS[name]}" for name, m in faults.items() if m.any()]
        if data.unread:
            n = len(data.unread)
            rows = "1 row makes" if n == 1 else f"{n:,} rows make"
            found.insert(0, f"{rows} no pair ({data.unread[0]})")
        leaning = [m for m in position if not m.interval.low <= 0.5 <= m.interval.high]
        if leaning:
            found.append(f"the preferred answer was the first in {percent(leaning[0].interval)}")
        if not found:
            said = "No empty text, template marker, stray turn or copied prompt."
            return Checked(CLEAN, said, measures=measures)
        concern = LOOK if faults["answers_with_prompt"].any() or leaning else KNOW
        must = ("empty_texts", "template_markers", "turns_within_answers")
        is_broken = any(faults[name].any() for name in must) or bool(data.unread)
        any_fault = np.logical_or.reduce(list(faults.values()))
        return Checked(
            REPAIR if is_broken else concern,
            f"{'; '.join(found)}.",
            "Repair where the texts are made (strip markers and repeated prompts, cut dialogues "
            "at the last answer), or leave the rows out: dpo-diag pairs {data} --write-clean "
            "clean.jsonl --drop artefacts.",
            measures,
            tuple(
                case
                for name, mask in faults.items()
                for case in examples(data, mask, name, _WORDS[name])
            ),
            {"artefacts": any_fault},
            tuple(f"No pair: {line}." for line in data.unread[: data.n_cases]),
            weight=float(np.mean(any_fault)) if data.n else 0.0,
        )


CHECK = Artefacts

_WORDS = {
    "empty_texts": "have an empty text",
    "template_markers": "hold a template marker or a special token spelled out",
    "turns_within_answers": "hold a further turn within an answer",
    "answers_with_prompt": "have an answer that begins with the prompt",
}


def _any_text(
    data: PairData,
    has: Callable[[str], bool],
    sides: tuple[str, ...] = ("prompt", "chosen", "rejected"),
) -> np.ndarray:
    """Rows in which any of the texts has something, (n,); each different text is asked once."""
    found = np.zeros(data.n, bool)
    for side in sides:
        codes, texts = pd.factorize(data.rows[side])
        answers = np.array([bool(has(text)) for text in texts], bool)
        found |= answers[codes] if len(answers) else False
    return found


def _begins_with_prompt(data: PairData) -> np.ndarray:
    prompts = data.rows["prompt"].str.strip()
    found = np.zeros(data.n, bool)
    for side in ("chosen", "rejected"):
        pairs = zip(prompts, data.rows[side], strict=True)
        found |= np.array([len(p) >= MIN_COPY and a.lstrip().startswith(p) for p, a in pairs], bool)
    return found


def _position(data: PairData) -> list[Measure]:
    """Share of preferred answers that were shown first, where a column says so."""
    for name in POSITIONS:
        if name in data.rows.columns:
            second = pd.to_numeric(data.rows[name], errors="coerce").to_numpy(float)
            first = np.where(np.isin(second, (0.0, 1.0)), 1.0 - second, np.nan)
            return [share("preferred_was_first", first, data, better="neither")]
    return []
