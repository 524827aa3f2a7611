"""Which prompts a round asks and which units a step takes: functions of step and seed alone."""

import math
from dataclasses import dataclass

import numpy as np

from dpo_diag.tables import content_hash
from dpo_diag.training.batches import epoch_order, step_units
from dpo_diag.training.recipe import Recipe


@dataclass(frozen=True)
class RoundPlan:
    """Rounds of as many steps each, whatever came of their prompts.

    Attributes:
        seed: the run's.
        n_prompts: there are.
        per_round: asked in a round.
        batch_size: prompts per step.
        passes: times a round's units are gone through.
    """

    seed: int
    n_prompts: int
    per_round: int
    batch_size: int
    passes: int

    @property
    def steps_per_pass(self) -> int:
        """Steps in which a round's units are gone through once."""
        return math.ceil(self.per_round / self.batch_size)

    @property
    def n_per_epoch(self) -> int:
        """Steps in which every prompt is asked once."""
        rounds = math.ceil(self.n_prompts / self.per_round)
        return rounds * self.steps_per_pass * self.passes

    def number(self, step: int) -> int:
        """The round that a step belongs to, both from 0."""
        return step // (self.steps_per_pass * self.passes)

    def prompts(self, number: int) -> np.ndarray:
        """Positions of the prompts that a round asks."""
        return step_units(self.seed, number, n=self.n_prompts, batch_size=self.per_round)

    def units(self, step: int, n_units: int) -> np.ndarray:
        """Units of a step among the ``n_units`` that a round gave, at least one.

        Each pass goes through all of them in an order of its own, in portions as even as whole
        units allow; where there are fewer units than steps in a pass, they come again.
        """
        within = step % (self.steps_per_pass * self.passes)
        number, place = divmod(within, self.steps_per_pass)
        order = epoch_order(self.derived_seed("order", self.number(step)), number, n_units)
        return np.array_split(order, min(self.steps_per_pass, n_units))[place % n_units]

    def batch(self, step: int, n_units: int) -> np.ndarray:
        """Units of a step where a round gives as many as it asks: whole batches, the last smaller.

        Each pass goes through all of them in an order of its own.
        """
        within = step % (self.steps_per_pass * self.passes)
        seed = self.derived_seed("order", self.number(step))
        return step_units(seed, within, n=n_units, batch_size=self.batch_size)

    def derived_seed(self, use: str, number: int) -> int:
        """A seed for each use and round, so that no two streams run in step."""
        return int(content_hash([self.seed, use, number])[:8], 16)


def round_plan(recipe: Recipe, n_prompts: int) -> RoundPlan:
    """The rounds of a recipe with an ``online`` section over so many prompts."""
    section = recipe.online
    return RoundPlan(
        seed=recipe.run.seed,
        n_prompts=n_prompts,
        per_round=min(section.prompts_per_round, n_prompts),
        batch_size=recipe.optimizer.batch_size,
        passes=section.passes,
    )
