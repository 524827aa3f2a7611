"""Answers of the policy in training, drawn anew each round.

Start reading at ``sampler``: a variant's steps make one and ask it for answers; which engine draws
them is the recipe's ``online.engine``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from dpo_diag.engines._base import Completion, SamplingSettings
from dpo_diag.training.optimization import autocast
from dpo_diag.training.policy import Policy
from dpo_diag.training.recipe import OnlineSection


class Sampler(Protocol):
    """What draws a round's answers."""

    def sample(
        self, prompt_ids: Sequence[Sequence[int]], settings: SamplingSettings
    ) -> list[Completion]:
        """``settings.n`` answers per prompt of the policy as it is now.

        Ordered by prompt, then sample; ``logp`` is the policy's own, in the precision it trains
        in, whichever engine drew the answer.
        """


def sampler(policy: Policy, section: OnlineSection, folder: Path) -> Sampler:
    """What draws answers for a run, as its recipe says.

    Args:
        policy: the model in training.
        section: the recipe's ``online`` section, of which ``engine`` is read.
        folder: the run's cache, for weights handed to another engine.
    """
    return _Own(policy)


class _Own:
    """The model in training itself draws, without a copy."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def sample(
        self, prompt_ids: Sequence[Sequence[int]], settings: SamplingSettings
    ) -> list[Completion]:
        """``settings.n`` answers per prompt, ordered by prompt, then sample."""
        with autocast(self._policy.device, self._policy.precision):
            return self._policy.engine().sample(prompt_ids, settings)
