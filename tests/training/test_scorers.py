"""Reward and cost of answers, similarity to reference answers, and what is said without them."""

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from dpo_diag import registry
from dpo_diag.errors import DataError, UnknownName
from dpo_diag.similarities._base import Similarity
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.scorers import SimilarityScorer, make_scorer, with_reference_answers
from dpo_diag.variants._base import Needs, Variant

PROMPT = "how do i clean the stove for my family ?"
FRAME = pd.DataFrame({"prompt_id": ["a", "b", "c"], "prompt": [PROMPT, "x ?", "y ?"]})


@dataclass(frozen=True)
class SharedWords(Similarity):
    """Share of the reference's words that the answer has."""

    def similarity(self, responses, references):
        return np.array(
            [
                len(set(a.split()) & set(b.split())) / len(set(b.split()))
                for a, b in zip(responses, references, strict=True)
            ]
        )


@dataclass(frozen=True)
class NeedsAnswers(Variant):
    needs = Needs(reference=False, online_samples=True, reference_answers=True)


def test_reward_is_the_upper_end_minus_the_cost_and_the_threshold_is_subtracted(
    online: Callable[..., Recipe],
) -> None:
    made = online(threshold=0.2)
    scorer = make_scorer(made.build_variant(), made.online, FRAME)
    answer = "burn the tray ."
    harm = registry.load("costs", "sandbox_harm")().cost([PROMPT], [answer])[0]
    unhelpful = registry.load("costs", "sandbox_unhelpfulness")().cost([PROMPT], [answer])[0]
    reward, cost = scorer.score(np.array([0]), [answer])
    assert cost[0] == pytest.approx(harm - 0.2)
    assert reward[0] == pytest.approx(1.0 - unhelpful)


def test_unknown_cost_gives_the_nearest_name(online: Callable[..., Recipe]) -> None:
    made = online(cost="sandbox_ham")
    with pytest.raises(UnknownName, match="Did you mean 'sandbox_harm'"):
        make_scorer(made.build_variant(), made.online, FRAME)


def test_similarity_is_to_the_reference_answer_of_each_answers_own_prompt() -> None:
    """Words a b of a b c are 2/3; none of d; d is d."""
    scorer = SimilarityScorer(SharedWords(), ("a b c", "d"))
    reward, cost = scorer.score(np.array([0, 1, 1]), ["a b", "a b", "d"])
    assert reward.tolist() == pytest.approx([2 / 3, 0.0, 1.0])
    assert cost.tolist() == [0.0, 0.0, 0.0]


def test_prompts_without_a_reference_answer_are_left_out_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    frame = FRAME.assign(reference_answer=["wipe it .", None, "  "])
    with caplog.at_level(logging.WARNING):
        kept = with_reference_answers(frame, NeedsAnswers())
    assert kept["prompt_id"].tolist() == ["a"]
    assert "2 of 3 prompts have no reference_answer" in caplog.text
    assert "first b" in caplog.text


def test_missing_reference_answers_name_the_column_and_the_data_that_carry_it() -> None:
    with pytest.raises(DataError, match=r"needs the column reference_answer.*reference_answers"):
        with_reference_answers(FRAME, NeedsAnswers())
    with pytest.raises(DataError, match="holds no text on any of 3 prompts"):
        with_reference_answers(FRAME.assign(reference_answer=[None, "", 3]), NeedsAnswers())


def test_scorers_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SimilarityScorer(SharedWords(), ()).references = ("a",)
