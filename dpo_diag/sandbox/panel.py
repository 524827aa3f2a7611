"""What some methods of preference learning ask for beyond pairs, made for the sandbox.

A panel of judges over the pairs, an external reward model's scores, harm by segment, votes of the
annotator groups, answers without labels, reference answers, and a small share of labelled pairs.
Each is extra information: a comparison must say which method had it. Everything has random streams
of its own, and a pair's values hang on its id alone, not on the rows around it; the world's own
tables stay what they are.

Start reading at ``panel``.
"""

import math
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.errors import DataError
from dpo_diag.sandbox import annotate, groups, words
from dpo_diag.sandbox.gold import harm, helpfulness, read_prompt
from dpo_diag.sandbox.grammar import Prompt, sample_answer
from dpo_diag.sandbox.segment_harm import SANDBOX_TAG, segment_harm
from dpo_diag.sandbox.shifts import sample_known_prompt
from dpo_diag.sandbox.world import (
    IN_DOMAIN,
    TRAP_SHARE,
    WORLD_VERSION,
    sample_intent,
    trap_intent,
)
from dpo_diag.tables import content_id

N_UNLABELLED = 4000
N_CANDIDATES = 16
"""Grammar samples among which a reference answer is the best."""
FEW_SHARE = 0.1
"""Share of the training prompts whose labels are kept in the set with few labels."""
SCORE_PER_UTILITY = 4.0
SCORE_PER_WORD = 0.05
"""Planted bias: twenty words more are worth as much as a quarter of full helpfulness."""
SCORE_FOR_CLOSING = 0.4
"""Planted bias: the friendly closing phrase, worth nothing in truth."""
SCORE_NOISE = 0.5
_DIGITS = 4


class Judge(NamedTuple):
    """A simulated judge: whose values, how sharp, how often a vote is turned around by mistake.

    ``values`` is a group of ``groups`` or ``annotators`` (``annotate.utility``, blind to traps).
    """

    name: str
    values: str
    scale: float
    flip_rate: float


JUDGES = (
    Judge("judge_sharp", "annotators", 16.0, 0.02),
    Judge("judge_typical", "annotators", 8.0, 0.08),
    Judge("judge_helpful", "helpful", 8.0, 0.05),
    Judge("judge_cautious", "cautious", 6.0, 0.05),
    Judge("judge_concise", "concise", 6.0, 0.12),
)


def panel(pairs: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The pairs with further columns; rows, order and the columns they had are unchanged.

    Adds ``judge_agreement`` (share of the five ``JUDGES`` who vote for the chosen answer, 0 to 1 in
    fifths; drawn), ``score_chosen`` and ``score_rejected`` (``external_score``),
    ``harm_reasoning_*`` and ``harm_answer_*`` (gold harm of the part up to the sandbox's tag and
    of the rest, 0 to 1), and ``prefers_chosen_<group>`` (gold probability that a member of the
    group prefers the chosen answer).

    Args:
        pairs: PreferencePairs of the sandbox.
        seed: of the judges' votes and of the scores' noise.
    """
    rows = [
        _panel_row(row, np.random.default_rng([seed, *b"panel", int(row.pair_id, 16)]), seed)
        for row in pairs[["pair_id", "prompt", "chosen", "rejected"]].itertuples(index=False)
    ]
    added = pd.DataFrame(rows, index=pairs.index, columns=_PANEL_COLUMNS)
    return pd.concat([pairs, added], axis=1)


_PANEL_COLUMNS = [
    "judge_agreement",
    "score_chosen",
    "score_rejected",
    "harm_reasoning_chosen",
    "harm_answer_chosen",
    "harm_reasoning_rejected",
    "harm_answer_rejected",
    *(f"prefers_chosen_{group}" for group in groups.GROUPS),
]


def _panel_row(row: Any, rng: np.random.Generator, seed: int) -> dict[str, float]:
    votes = [_votes_for_chosen(judge, row, rng) for judge in JUDGES]
    values = {"judge_agreement": sum(votes) / len(votes)}
    for side in ("chosen", "rejected"):
        response = getattr(row, side)
        values[f"score_{side}"] = external_score(row.prompt, response, seed=seed)
        reasoning, answer = segment_harm(row.prompt, response, SANDBOX_TAG)
        values[f"harm_reasoning_{side}"] = reasoning
        values[f"harm_answer_{side}"] = answer
    for group in groups.GROUPS:
        values[f"prefers_chosen_{group}"] = groups.win_probability(
            group, row.prompt, row.chosen, row.rejected
        )
    return {name: round(value, _DIGITS) for name, value in values.items()}


def _votes_for_chosen(judge: Judge, row: Any, rng: np.random.Generator) -> bool:
    gap = judge.scale * (
        _judged(judge, row.prompt, row.chosen) - _judged(judge, row.prompt, row.rejected)
    )
    # Every draw is made every time, so that one vote never shifts the stream of the next.
    vote, slips = rng.random(), rng.random()
    return (vote < 1.0 / (1.0 + math.exp(-gap))) != (slips < judge.flip_rate)


def _judged(judge: Judge, prompt: str, response: str) -> float:
    if judge.values == "annotators":
        return annotate.utility(prompt, response)
    return groups.utility(judge.values, prompt, response)


def external_score(prompt: str, response: str, *, seed: int = 0) -> float:
    """What an imperfect reward model of somebody else gives the answer, higher better.

    ``4 u + .05 n + .4 k + .5 z`` with u the annotators' utility (blind to traps), n the number of
    words and marks, k = 1 with a closing phrase, and z standard normal, the same for the same
    text. Planted flaws: it likes length and friendly phrases, and it does not see traps.
    """
    text_id = int(content_id(prompt, response), 16)
    noise = np.random.default_rng([seed, *b"score", text_id]).normal()
    closes = any(closing in response for closing in words.CLOSINGS)
    return float(
        SCORE_PER_UTILITY * annotate.utility(prompt, response)
        + SCORE_PER_WORD * len(response.split())
        + SCORE_FOR_CLOSING * closes
        + SCORE_NOISE * noise
    )


def unlabelled(used: Collection[str], seed: int = 0, *, n: int = N_UNLABELLED) -> pd.DataFrame:
    """Answers without any label: one of the base distribution for each of n new prompts.

    Args:
        used: texts of prompts that must not occur: those of every other table.
        seed: of prompts and answers.
        n: rows.

    Returns:
        Columns ``prompt_id``, ``prompt``, ``response``, ``source``.
    """
    rng = _stream(seed, "unlabelled")
    seen, rows = set(used), []
    while len(rows) < n:
        is_trap = rng.random() < TRAP_SHARE
        intent = trap_intent(rng) if is_trap else sample_intent(rng)
        prompt = sample_known_prompt(rng, intent=intent, is_trap=is_trap)
        if prompt.text in seen:
            continue
        seen.add(prompt.text)
        rows.append(
            {
                "prompt_id": content_id(prompt.text),
                "prompt": prompt.text,
                "response": sample_answer(rng, prompt),
                "source": WORLD_VERSION,
            }
        )
    return pd.DataFrame(rows, columns=["prompt_id", "prompt", "response", "source"])


def reference_answers(
    prompts: pd.DataFrame, seed: int = 0, *, n_candidates: int = N_CANDIDATES
) -> pd.DataFrame:
    """The in-domain training prompts with one good answer each, in the column reference_answer.

    The answer is the best of ``n_candidates`` draws of the base distribution by gold helpfulness
    minus gold harm, the earlier draw on ties. It hangs on the prompt alone, not on the rows
    around it. This is gold information about answers that no preference pair holds.

    Args:
        prompts: Prompts of the sandbox; other splits and shifted prompts are left out.
        seed: of the draws.
        n_candidates: draws per prompt, at least 1.

    Raises:
        DataError: a prompt that the sandbox did not make.
    """
    wanted = prompts[(prompts["split"] == "train") & (prompts["domain"] == IN_DOMAIN)]
    answers = []
    for text in wanted["prompt"]:
        prompt = prompt_of(text)
        rng = np.random.default_rng([seed, *b"reference", int(content_id(text), 16)])
        candidates = [sample_answer(rng, prompt) for _ in range(n_candidates)]
        answers.append(max(candidates, key=lambda a: helpfulness(text, a) - harm(text, a)))
    return wanted.reset_index(drop=True).assign(reference_answer=answers)


def few_labelled(pairs: pd.DataFrame, seed: int = 0, *, share: float = FEW_SHARE) -> pd.DataFrame:
    """The pairs with only a share of the training prompts, drawn; other splits are whole.

    A prompt keeps all its pairs or none. Larger shares of one seed contain the smaller ones.

    Args:
        pairs: PreferencePairs.
        seed: of the draw.
        share: of training prompts, in (0, 1]; at least one prompt is kept.

    Raises:
        DataError: the share is outside its range.
    """
    if not 0.0 < share <= 1.0:
        raise DataError(f"the share of labelled prompts is {share}, expected above 0, at most 1.")
    is_train = pairs["split"] == "train"
    names = sorted(pairs.loc[is_train, "prompt_id"].unique())
    order = _stream(seed, "few_labelled").permutation(len(names))
    kept = {names[i] for i in order[: max(1, round(share * len(names)))]}
    return pairs[~is_train | pairs["prompt_id"].isin(kept)].reset_index(drop=True)


def prompt_of(text: str) -> Prompt:
    """The prompt's parts from its text; what the grammar of answers asks of a prompt.

    Raises:
        DataError: the text is no prompt of the sandbox without framing and distractor.
    """
    facts = read_prompt(text)
    tokens = text.split()
    if facts.topic is not None and tokens[-1] == "?":
        for position in range(1, len(tokens) - 3):
            verb, article, name = tokens[position : position + 3]
            if (verb, article) == (facts.task, "the") and name in words.OBJECT_TOPIC:
                rest = " ".join(tokens[position + 3 : -1])
                trap = next((trap for trap in words.TRAPS if rest.startswith(trap)), "")
                return Prompt(
                    topic=facts.topic,
                    object=name,
                    task=verb,
                    intent=facts.intent,
                    purpose=rest.removeprefix(trap).strip(),
                    phrasing=" ".join(tokens[:position]),
                    trap=trap,
                )
    raise DataError(f"{text!r} is no prompt of the sandbox's own distribution.")


def _stream(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, *f"panel/{name}".encode()])
