"""The sandbox's tables: preference pairs, shifted pairs and prompts, from one seed.

Each table has a stream of its own, so that changing the size of one leaves the others alone. No
prompt is in two splits, and none of the prompts without pairs occurs among the pairs.

Start reading at ``make_world``.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.sandbox.annotate import judge, utility
from dpo_diag.sandbox.gold import harm, helpfulness
from dpo_diag.sandbox.grammar import Prompt, prompt_stratum
from dpo_diag.sandbox.rewording import reworded
from dpo_diag.sandbox.shifts import (
    KIND_OF_SHIFT,
    PROMPT_SHIFTS,
    REWORDED,
    SHIFTS,
    sample_known_prompt,
    sample_shifted_pair,
    sample_shifted_prompt,
    sample_two_answers,
)
from dpo_diag.tables import content_id

WORLD_VERSION = "sandbox-1"
IN_DOMAIN = "in_domain"
INTENT_SHARE = {"benign": 0.55, "borderline": 0.25, "harmful": 0.2}
TRAP_SHARE = 0.015
"""Share of trap prompts among in-domain pairs; traps hide behind purposes that are not harmful."""
SECOND_PAIR_SHARE = 0.15
"""Share of prompts that have two pairs: pairs are not independent, prompts are."""
N_PAIR_PROMPTS = {"train": 2250, "validation": 110, "test": 390}
N_SHIFTED = 360
"""Pairs per shift."""
N_PROMPTS = {"train": (540, 60), "validation": (120, 12), "test": (300, 32)}
"""Split to (ordinary prompts, trap prompts). The training prompts are a safety-minded set for
on-policy methods; it holds far more traps than the pairs do, so a report says which was used."""
N_SHIFTED_PROMPTS = 40
"""Prompts without pairs per shift of the prompt."""
_DIGITS = 4


class World(NamedTuple):
    """The tables; columns as in the data set's card.

    ``reworded_pairs`` are the test pairs in other words, the only ones that share prompts.
    """

    pairs: pd.DataFrame
    shifted_pairs: pd.DataFrame
    prompts: pd.DataFrame
    reworded_pairs: pd.DataFrame


def make_world(seed: int = 0) -> World:
    """All tables of the world; equal seeds give equal tables on every machine."""
    used: set[str] = set()
    pairs = [
        row
        for split, n in N_PAIR_PROMPTS.items()
        for row in _pair_rows(_stream(seed, f"pairs/{split}"), split, n, used)
    ]
    shifted = [
        row
        for shift in SHIFTS
        for row in _shifted_pair_rows(_stream(seed, f"shift/{shift}"), shift, used)
    ]
    prompts = [row for split in N_PROMPTS for row in _prompt_rows(seed, split, used)]
    for shift in PROMPT_SHIFTS:
        prompts += _shifted_prompt_rows(_stream(seed, f"prompts/{shift}"), shift, used)
    test = [row for row in pairs if row["split"] == "test"]
    again = _reworded_rows(_stream(seed, f"shift/{REWORDED}"), test)
    return World(*(pd.DataFrame(rows) for rows in (pairs, shifted, prompts, again)))


def sample_intent(rng: np.random.Generator) -> str:
    """An intent by ``INTENT_SHARE``."""
    draw, total = rng.random(), 0.0
    for intent, share in INTENT_SHARE.items():
        total += share
        if draw < total:
            return intent
    return "harmful"


def trap_intent(rng: np.random.Generator) -> str:
    """The intent of a trap prompt: three in four benign, the rest borderline."""
    return "benign" if rng.random() < 0.75 else "borderline"


def _stream(seed: int, name: str) -> np.random.Generator:
    # The name, as numbers, is part of the seed: streams do not depend on the order of creation.
    return np.random.default_rng([seed, *name.encode()])


def _fresh(draw: Callable[[], Prompt], used: set[str]) -> Prompt:
    """A prompt whose text no table has yet; its text is marked as used."""
    prompt = draw()
    while prompt.text in used:
        prompt = draw()
    used.add(prompt.text)
    return prompt


def _pair_rows(
    rng: np.random.Generator, split: str, n_prompts: int, used: set[str]
) -> list[dict[str, Any]]:
    rows = []
    for _ in range(n_prompts):
        is_trap = rng.random() < TRAP_SHARE
        intent = trap_intent(rng) if is_trap else sample_intent(rng)

        def draw(intent: str = intent, is_trap: bool = is_trap) -> Prompt:
            return sample_known_prompt(rng, intent=intent, is_trap=is_trap)

        prompt = _fresh(draw, used)
        seen: set[frozenset[str]] = set()
        for _ in range(2 if rng.random() < SECOND_PAIR_SHARE else 1):
            answers = sample_two_answers(rng, prompt)
            while frozenset(answers) in seen:
                answers = sample_two_answers(rng, prompt)
            seen.add(frozenset(answers))
            rows.append(_pair_row(rng, prompt, answers, {"domain": IN_DOMAIN, "split": split}))
    return rows


def _shifted_pair_rows(
    rng: np.random.Generator, shift: str, used: set[str]
) -> list[dict[str, Any]]:
    rows = []
    for _ in range(N_SHIFTED):
        intent = sample_intent(rng)
        prompt, *answers = sample_shifted_pair(rng, shift, intent=intent)
        while prompt.text in used:
            prompt, *answers = sample_shifted_pair(rng, shift, intent=intent)
        used.add(prompt.text)
        where = {"domain": shift, "split": "test"}
        row = _pair_row(rng, prompt, (answers[0], answers[1]), where)
        rows.append({**row, "shift_kind": KIND_OF_SHIFT[shift]})
    return rows


def _reworded_rows(rng: np.random.Generator, pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pairs with both answers in other words; labels, gold values and prompts are kept."""
    rows = []
    for pair in pairs:
        chosen, rejected = reworded(rng, pair["chosen"]), reworded(rng, pair["rejected"])
        is_other = (chosen, rejected) != (pair["chosen"], pair["rejected"])
        if chosen == rejected or not is_other:  # nothing left to order, or nothing to reword
            continue
        said = {"chosen": chosen, "rejected": rejected, "domain": REWORDED}
        ids = {"pair_id": content_id(pair["prompt"], chosen, rejected)}
        kind = {"shift_kind": KIND_OF_SHIFT[REWORDED], "reworded_from": pair["pair_id"]}
        rows.append({**pair, **ids, **said, **kind})
    return rows


def _prompt_rows(seed: int, split: str, used: set[str]) -> list[dict[str, Any]]:
    n_ordinary, n_traps = N_PROMPTS[split]
    rng = _stream(seed, f"prompts/{split}")
    rows = []
    for index in range(n_ordinary + n_traps):
        is_trap = index >= n_ordinary
        intent = trap_intent(rng) if is_trap else sample_intent(rng)

        def draw(intent: str = intent, is_trap: bool = is_trap) -> Prompt:
            return sample_known_prompt(rng, intent=intent, is_trap=is_trap)

        rows.append(_prompt_row(_fresh(draw, used), {"domain": IN_DOMAIN, "split": split}))
    return rows


def _shifted_prompt_rows(
    rng: np.random.Generator, shift: str, used: set[str]
) -> list[dict[str, Any]]:
    rows = []
    for _ in range(N_SHIFTED_PROMPTS):
        intent = sample_intent(rng)

        def draw(intent: str = intent) -> Prompt:
            return sample_shifted_prompt(rng, shift, intent=intent)

        rows.append(_prompt_row(_fresh(draw, used), {"domain": shift, "split": "test"}))
    return rows


def _pair_row(
    rng: np.random.Generator,
    prompt: Prompt,
    answers: tuple[str, str],
    where: Mapping[str, str],
) -> dict[str, Any]:
    text = prompt.text
    # Which of two answers is shown first is chance, or the answer shifts would always show the
    # better one first.
    first, second = answers if rng.random() < 0.5 else answers[::-1]
    verdict = judge(rng, text, first, second)
    chosen, rejected = verdict.chosen, verdict.rejected
    return {
        "pair_id": content_id(text, chosen, rejected),
        "prompt_id": content_id(text),
        "prompt": text,
        "chosen": chosen,
        "rejected": rejected,
        **where,
        "gold_margin": round(utility(text, chosen) - utility(text, rejected), _DIGITS),
        "source": WORLD_VERSION,
        "annotator": verdict.annotator,
        "is_chosen_safe": verdict.is_chosen_safe,
        "is_rejected_safe": verdict.is_rejected_safe,
        "gold_helpfulness_chosen": round(helpfulness(text, chosen), _DIGITS),
        "gold_helpfulness_rejected": round(helpfulness(text, rejected), _DIGITS),
        "gold_harm_chosen": round(harm(text, chosen), _DIGITS),
        "gold_harm_rejected": round(harm(text, rejected), _DIGITS),
        **_facts(prompt),
    }


def _prompt_row(prompt: Prompt, where: Mapping[str, str]) -> dict[str, Any]:
    return {
        "prompt_id": content_id(prompt.text),
        "prompt": prompt.text,
        **where,
        "source": WORLD_VERSION,
        **_facts(prompt),
    }


def _facts(prompt: Prompt) -> dict[str, Any]:
    return {
        "intent": prompt.intent,
        "is_trap": bool(prompt.trap),
        "topic": prompt.topic,
        "stratum": prompt_stratum(prompt.facts),
    }
