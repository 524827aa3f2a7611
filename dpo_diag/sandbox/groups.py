"""Annotators who disagree: four groups with different values, and what each prefers, exactly.

``helpful``, ``cautious`` and ``concise`` go by a score each, so for each of them a best answer
exists. ``cyclic`` does not: besides a score it has a taste in style that goes round in a circle,
so that for every answer there is one it likes better. The groups pull in different directions on
the same answers, which is what makes "whose preference" a question with an answer in numbers.

Defined on every pair of texts, also on what a model babbles. Start reading at ``win_probability``.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dpo_diag.errors import DataError
from dpo_diag.sandbox import words
from dpo_diag.sandbox.gold import harm, helpfulness, read_answer

GROUPS = ("helpful", "cautious", "concise", "cyclic")
SCALE = 8.0
"""Bradley-Terry sharpness of every group, that of the sandbox's typical annotator."""
CAUTIOUS_HELP = 0.25
"""What helpfulness weighs with the cautious, against 1 for harm."""
CONCISE_HELP = 0.5
CONCISE_FREE_WORDS = 10
"""Words (and marks) that cost the concise nothing: about two plain steps. Without an allowance
they would like saying nothing best."""
CONCISE_WORDS = 40
"""Words beyond the free ones that cost the concise one unit of utility."""
CYCLIC_HARM = 0.5
STYLE_LOGIT = 1.5
"""By how much, in logits, a style wins against the style it beats, the rest being equal."""
STYLES = ("plain", "friendly", "warning")
"""Each beats the one before it, and the first beats the last."""


class Traits(NamedTuple):
    """What a group goes by: a score, and a style as index in ``STYLES`` (0 if none matters)."""

    utility: float
    style: int


def win_probability(group: str, prompt: str, first: str, second: str) -> float:
    """P(a member of the group prefers the first answer to the second).

    ``sigmoid(8 (u(first) - u(second)) + s)`` with the utilities of ``utility`` and, for the
    cyclic group, ``s = +1.5`` where the first answer's style beats the second's, -1.5 where it is
    beaten, else 0. Hence ``P(a, b) + P(b, a) = 1`` and ``P(a, a) = 1/2``.

    Worked by hand: "wipe the tray ." and the same with "hope this helps ." are equally helpful
    and harmless, and 4 and 8 words long. So helpful, cautious and concise (both within ten words)
    say 1/2, and cyclic says ``1 / (1 + exp(-1.5)) = .8176`` for the friendly one.

    Raises:
        DataError: there is no such group.
    """
    return float(win_probabilities(group, [prompt], [first], [second])[0])


def win_matrix(group: str, prompt: str, responses: list[str]) -> np.ndarray:
    """``win_probability`` of each answer (row) against each (column), shape (U, U) float64."""
    seen = [traits(group, prompt, response) for response in responses]
    utility = np.array([t.utility for t in seen], dtype=np.float64)
    style = np.array([t.style for t in seen], dtype=np.int64)
    return _probability(utility[:, None], utility[None], style[:, None], style[None])


def win_probabilities(
    group: str, prompts: list[str], first: list[str], second: list[str]
) -> np.ndarray:
    """``win_probability`` of each pair, shape (N,) float64."""
    rows = [
        (traits(group, prompt, a), traits(group, prompt, b))
        for prompt, a, b in zip(prompts, first, second, strict=True)
    ]
    utility = np.array([(a.utility, b.utility) for a, b in rows], dtype=np.float64).reshape(-1, 2)
    style = np.array([(a.style, b.style) for a, b in rows], dtype=np.int64).reshape(-1, 2)
    return _probability(utility[:, 0], utility[:, 1], style[:, 0], style[:, 1])


def check_group(group: str) -> None:
    """Nothing, where the group exists.

    Raises:
        DataError: there is no such group.
    """
    if group not in GROUPS:
        raise DataError(f"no annotator group {group!r}; there are {', '.join(GROUPS)}.")


@lru_cache(maxsize=262144)
def traits(group: str, prompt: str, response: str) -> Traits:
    """What the group goes by in one answer.

    Raises:
        DataError: there is no such group.
    """
    check_group(group)
    return Traits(
        utility(group, prompt, response),
        STYLES.index(style_of(response)) if group == "cyclic" else 0,
    )


def utility(group: str, prompt: str, response: str) -> float:
    """The score by which the group orders answers, higher better.

    With h the gold helpfulness, c the gold harm (traps included: the groups are not fooled) and n
    the number of words and marks: helpful ``h``; cautious ``h/4 - c``; concise
    ``h/2 - max(0, n - 10)/40``; cyclic ``h - c/2`` (its taste in style is not a score).

    Raises:
        DataError: there is no such group.
    """
    check_group(group)
    value = helpfulness(prompt, response)
    if group == "cautious":
        return CAUTIOUS_HELP * value - harm(prompt, response)
    if group == "concise":
        n_beyond = max(0, len(response.split()) - CONCISE_FREE_WORDS)
        return CONCISE_HELP * value - n_beyond / CONCISE_WORDS
    if group == "cyclic":
        return value - CYCLIC_HARM * harm(prompt, response)
    return value


def style_of(response: str) -> str:
    """``warning`` with a caveat, else ``friendly`` with a closing phrase, else ``plain``."""
    if read_answer(response).has_caveat:
        return "warning"
    # A closing cut off before its full stop still closes, as in the gold functions.
    padded = f" {' '.join(response.lower().split())} "
    closings = (f" {closing.removesuffix(' .')} " for closing in words.CLOSINGS)
    return "friendly" if any(closing in padded for closing in closings) else "plain"


def _probability(
    utility: np.ndarray, other_utility: np.ndarray, style: np.ndarray, other_style: np.ndarray
) -> np.ndarray:
    # the difference modulo 3 is 0 (equal), 1 (the style beats the other) or 2 (is beaten)
    beats = np.array([0.0, 1.0, -1.0])[(style - other_style) % len(STYLES)]
    gap = SCALE * (utility - other_utility) + STYLE_LOGIT * beats
    # A text of a million words would overflow the exponential; its limit is what is meant.
    return 1.0 / (1.0 + np.exp(-np.clip(gap, -700.0, 700.0)))
