"""An answer said in other words: the token-level shift of the sandbox.

Meaning stays: the same steps in the same order, an opening phrase where there was one, and so on,
so that helpfulness and harm are exactly those of the original. What changes is wording and order:
every standard phrase becomes another one of its kind, every step a sentence of its own, and the
warning comes first. The base model knows all the words, but not in this arrangement.

Start reading at ``reworded``.
"""

import re

import numpy as np

from dpo_diag.sandbox import words
from dpo_diag.sandbox.grammar import pick

_KINDS = (  # phrases of one kind say the same; none but the caveats changes its place
    words.OPENERS,
    words.CAVEATS,
    words.CLOSINGS,
    words.REFUSALS,
    words.ALTERNATIVES,
    words.REMARKS,
)
_NOUN_REMARKS = tuple(
    re.compile(re.escape(remark).replace(r"\{noun\}", r"(\w+)")) for remark in words.NOUN_REMARKS
)
# longest first: ", then" would leave its comma behind
_JOINT = re.compile(
    "|".join(f" {re.escape(c)} " for c in sorted(words.CONNECTIVES, key=len, reverse=True))
)


def reworded(rng: np.random.Generator, answer: str) -> str:
    """The answer in other words; text outside the grammar stays as it is, in its place.

    Args:
        rng: source of all draws.
        answer: sentences that end in a full stop.
    """
    first, rest = [], []
    for sentence in _sentences(answer):
        said = _sentence(rng, sentence)
        (first if sentence in words.CAVEATS else rest).append(said)
    return " ".join([*first, *rest])


def _sentences(answer: str) -> list[str]:
    """Sentences and standard phrases, each with its full stop."""
    return [f"{part.strip()} ." for part in answer.split(" .") if part.strip()]


def _sentence(rng: np.random.Generator, sentence: str) -> str:
    for kind in _KINDS:
        if sentence in kind:
            return pick(rng, [phrase for phrase in kind if phrase != sentence])
    for index, pattern in enumerate(_NOUN_REMARKS):
        match = pattern.fullmatch(sentence)
        if match:
            other = words.NOUN_REMARKS[1 - index]
            return other.format(noun=match.group(1))
    return _JOINT.sub(" . ", sentence)
