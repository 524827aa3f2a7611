"""Scores of answers that a policy gave: reward and cost, or similarity to a reference answer.

Start reading at ``make_scorer``.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from dpo_diag import registry
from dpo_diag.costs._base import Cost, build
from dpo_diag.errors import DataError
from dpo_diag.similarities._base import Similarity
from dpo_diag.training.recipe import OnlineSection
from dpo_diag.training.sources._base import CARRIED_BY
from dpo_diag.variants._base import Variant

logger = logging.getLogger(__name__)

REFERENCE_ANSWER = "reference_answer"


class Scorer(Protocol):
    """Gives each answer a reward and a cost."""

    def score(self, places: np.ndarray, responses: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Reward and cost of N answers.

        Args:
            places: (N,) rows of the prompts, as they were given to ``make_scorer``.
            responses: N answers.

        Returns:
            Reward (N,), higher better, and cost (N,) above the threshold, positive violates the
            constraint; NaN where a model abstained.
        """


@dataclass(frozen=True)
class CostScorer:
    """Reward and cost of answers, as the recipe's ``online`` section names them.

    Attributes:
        reward_model: a cost model; the reward is its upper end minus its value.
        cost_model: a cost model.
        threshold: subtracted from the cost, in its units.
        prompts: texts of the prompts.
    """

    reward_model: Cost
    cost_model: Cost
    threshold: float = 0.0
    prompts: tuple[str, ...] = ()

    def score(self, places: np.ndarray, responses: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Reward and cost of N answers."""
        prompts = [self.prompts[place] for place in places]
        return self.reward(prompts, responses), self.cost(prompts, responses)

    def reward(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(N,), higher better: the model's upper end (0 where it has none) minus its value."""
        top = self.reward_model.high if math.isfinite(self.reward_model.high) else 0.0
        return top - self.reward_model.cost(prompts, responses)

    def cost(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(N,), cost units above the threshold; positive violates the constraint."""
        return self.cost_model.cost(prompts, responses) - self.threshold


@dataclass(frozen=True)
class SimilarityScorer:
    """Similarity to one reference answer per prompt; no cost.

    Attributes:
        measure: what compares two answers.
        references: the good answer to each prompt.
    """

    measure: Similarity
    references: tuple[str, ...]

    def score(self, places: np.ndarray, responses: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The raw similarity as reward (N,), in the measure's own range; costs of 0 (N,)."""
        references = [self.references[place] for place in places]
        values = self.measure.similarity(list(responses), references)
        return np.asarray(values, dtype=np.float64), np.zeros(len(references))


def make_scorer(variant: Variant, section: OnlineSection, prompts: pd.DataFrame) -> Scorer:
    """The scorer that a variant needs, with the parameters of the recipe.

    Args:
        variant: what it needs decides between a similarity and two cost models.
        section: names them.
        prompts: what is asked, in order; with ``reference_answer`` for a similarity.

    Raises:
        UnknownName: no such cost model or similarity.
        DataError: a parameter is unknown or missing.
    """
    if variant.needs.reference_answers:
        measure = registry.build("similarities", section.similarity, section.similarity_parameters)
        return SimilarityScorer(measure, tuple(prompts[REFERENCE_ANSWER]))
    reward = build(registry.load("costs", section.reward), section.reward_parameters)
    cost = build(registry.load("costs", section.cost), section.cost_parameters)
    return CostScorer(reward, cost, section.threshold, tuple(prompts["prompt"]))


def with_reference_answers(prompts: pd.DataFrame, variant: Variant) -> pd.DataFrame:
    """The prompts that have a reference answer; how many have none is logged.

    Args:
        prompts: one row per prompt.
        variant: whose message it is.

    Raises:
        DataError: there is no such column, or no answer in it.
    """
    carried = CARRIED_BY[REFERENCE_ANSWER]
    if REFERENCE_ANSWER not in prompts.columns:
        raise DataError(
            f"{variant.name} needs the column {REFERENCE_ANSWER}, a good answer to each prompt, "
            f"which the prompts lack; give --prompts with it ({carried}) or take another variant."
        )
    answers = prompts[REFERENCE_ANSWER]
    has_one = answers.map(lambda text: isinstance(text, str) and bool(text.strip()))
    if not has_one.any():
        raise DataError(
            f"{variant.name}: the column {REFERENCE_ANSWER} holds no text on any of "
            f"{len(prompts)} prompts; give --prompts with answers in it ({carried})."
        )
    if not has_one.all():
        logger.warning(
            "%d of %d prompts have no %s and are left out, first %s",
            *(int((~has_one).sum()), len(prompts), REFERENCE_ANSWER),
            prompts["prompt_id"][~has_one].iloc[0],
        )
    return prompts[has_one.to_numpy(dtype=bool)]
