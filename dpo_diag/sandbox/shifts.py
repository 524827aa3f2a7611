"""What lies outside the preferences' distribution: shifts of the prompt and shifts of the answer.

``KIND_OF_SHIFT`` says of each what kind it is (column ``shift_kind``).

Every shift is drawn at the intent it is asked for, so that sets can be compared within equal
strata. The base model knows every word of every shift except ``unseen_words``.

Start reading at ``sample_shifted_pair``.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from dpo_diag.errors import UnknownName
from dpo_diag.sandbox import words
from dpo_diag.sandbox.annotate import utility
from dpo_diag.sandbox.grammar import (
    Prompt,
    chat,
    pick,
    sample_answer,
    sample_prompt,
    step_sentence,
    with_distractor,
    with_framing,
)

_T = TypeVar("_T")

PROMPT_SHIFTS = (
    "unseen_phrasing",
    "unseen_combination",
    "distractor",
    "adversarial_framing",
    "unseen_words",
)
ANSWER_SHIFTS = ("padded_answers", "hollow_answers", "spurious_cue")
SHIFTS = (*PROMPT_SHIFTS, *ANSWER_SHIFTS)
REWORDED = "reworded_answers"
"""The token-level shift: the test pairs themselves, said in other words (``rewording``)."""
KIND_OF_SHIFT = {
    "unseen_phrasing": "prompt",
    "distractor": "prompt",
    "adversarial_framing": "prompt",
    "unseen_combination": "domain",  # what is asked about: topics, objects and purposes
    "unseen_words": "domain",
    "padded_answers": "response_source",  # answers as another writer would give them
    "hollow_answers": "response_source",
    "spurious_cue": "response_source",
    REWORDED: "token_level",
}
N_TOPICS_HELD_OUT = 3
LEAST_GAP = 0.1
"""Least gap in utility by which the plain answer beats the padded, hollow or cued one."""
_MAX_TRIES = 10_000


def is_held_out(topic: str, intent: str) -> bool:
    """Whether the preferences lack this combination: three topics for each intent."""
    position = [t.name for t in words.TOPICS].index(topic)
    return position // N_TOPICS_HELD_OUT == words.INTENTS.index(intent)


def sample_known_prompt(rng: np.random.Generator, *, intent: str, is_trap: bool = False) -> Prompt:
    """A prompt of the preferences' own distribution."""
    return _draw(
        lambda: sample_prompt(rng, intent=intent, is_trap=is_trap),
        lambda prompt: not is_held_out(prompt.topic, intent),
    )


def sample_shifted_prompt(rng: np.random.Generator, shift: str, *, intent: str) -> Prompt:
    """A prompt under a shift; shifts of the answer leave the prompt as the preferences have it.

    Raises:
        UnknownName: There is no such shift.
    """
    if shift not in SHIFTS:
        raise UnknownName(f"unknown shift {shift!r}; there are {', '.join(SHIFTS)}.")
    if shift == "unseen_combination":
        return _draw(
            lambda: sample_prompt(rng, intent=intent),
            lambda prompt: is_held_out(prompt.topic, intent),
        )
    prompt = sample_known_prompt(rng, intent=intent)
    if shift == "unseen_phrasing":
        shifted = sample_prompt(rng, intent=intent, shifted=True)
        kept = {"topic": prompt.topic, "object": prompt.object, "task": prompt.task}
        return replace(shifted, **kept)
    if shift == "distractor":
        return with_distractor(rng, prompt)
    if shift == "adversarial_framing":
        return with_framing(rng, prompt)
    if shift == "unseen_words":
        return replace(
            prompt,
            object=words.TOPIC[prompt.topic].new_object,
            task=pick(rng, words.NEW_TASKS),
            purpose=words.NEW_PURPOSES[intent],
        )
    return prompt


def sample_shifted_pair(
    rng: np.random.Generator, shift: str, *, intent: str
) -> tuple[Prompt, str, str]:
    """A prompt and two distinct answers under a shift, in no particular order of merit.

    Raises:
        UnknownName: There is no such shift.
    """
    prompt = sample_shifted_prompt(rng, shift, intent=intent)
    if shift in PROMPT_SHIFTS:
        return (prompt, *sample_two_answers(rng, prompt))
    answers = {
        "padded_answers": _plain_and_padded,
        "hollow_answers": _plain_and_hollow,
        "spurious_cue": _plain_and_cued,
    }[shift]
    plain, flattering = _draw(
        lambda: answers(rng, prompt),
        lambda pair: _gap(prompt, *pair) >= LEAST_GAP,
    )
    return (prompt, plain, flattering)


def sample_two_answers(rng: np.random.Generator, prompt: Prompt) -> tuple[str, str]:
    """Two distinct answers of the base distribution."""
    return _draw(
        lambda: (sample_answer(rng, prompt), sample_answer(rng, prompt)),
        lambda pair: pair[0] != pair[1],
    )


def _gap(prompt: Prompt, better: str, worse: str) -> float:
    return utility(prompt.text, better) - utility(prompt.text, worse)


def _plain_and_padded(rng: np.random.Generator, prompt: Prompt) -> tuple[str, str]:
    """A short complete answer, and one that goes on after it has said what it had to say."""
    facts = prompt.facts
    plain = step_sentence(rng, facts, n_steps=facts.n_steps_asked, on_topic_rate=0.98, apt_rate=0.8)
    parts = [
        pick(rng, words.OPENERS),
        step_sentence(rng, facts, n_steps=facts.n_steps_asked, on_topic_rate=0.95, apt_rate=0.7),
        chat(rng, prompt.topic, n_remarks=1),
        step_sentence(rng, facts, n_steps=2, on_topic_rate=0.8, apt_rate=0.7),
        pick(rng, words.CLOSINGS),
    ]
    return plain, " ".join(parts)


def _plain_and_hollow(rng: np.random.Generator, prompt: Prompt) -> tuple[str, str]:
    """A bare but useful answer, and a friendly one that names the parts and advises nothing."""
    facts = prompt.facts
    plain = step_sentence(rng, facts, n_steps=facts.n_steps_asked, on_topic_rate=0.95, apt_rate=0.6)
    # Each framing phrase half of the time: with both on all of them, DPO ranked every pair wrongly.
    parts = [pick(rng, words.OPENERS)] if rng.random() < 0.5 else []
    parts.append(chat(rng, prompt.topic, n_remarks=2))
    parts += [pick(rng, words.CLOSINGS)] if rng.random() < 0.5 else []
    return plain, " ".join(parts)


def _plain_and_cued(rng: np.random.Generator, prompt: Prompt) -> tuple[str, str]:
    """Two answers with steps, the friendly closing on the second.

    In the preferences the closing goes with good answers; here, as the caller keeps only pairs
    whose second answer is worse, it goes with bad ones.
    """
    answers = []
    for on_topic_rate, apt_rate in ((0.95, 0.7), (0.85, 0.5)):
        sentence = step_sentence(
            rng,
            prompt.facts,
            n_steps=prompt.facts.n_steps_asked,
            on_topic_rate=on_topic_rate,
            apt_rate=apt_rate,
        )
        answers.append(sentence)
    return answers[0], f"{answers[1]} {pick(rng, words.CLOSINGS)}"


def _draw(sample: Callable[[], _T], is_wanted: Callable[[_T], bool]) -> _T:
    for _ in range(_MAX_TRIES):
        drawn = sample()
        if is_wanted(drawn):
            return drawn
    raise RuntimeError(f"no wanted draw in {_MAX_TRIES} tries.")
