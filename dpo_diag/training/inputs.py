"""Data beside the preference pairs that only some variants read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from dpo_diag.pairs import PromptSet


@dataclass(frozen=True)
class Inputs:
    """What is given to a run beside its pairs; None where it is not given.

    Attributes:
        prompts: what an online variant samples answers to: the rows with split ``train``, or all
            where there are none; without it the training pairs' prompts. A column
            ``reference_answer`` serves the variants that need one.
        unlabelled: answers without preferences: columns ``prompt`` and ``response``.
        samples: scored samples of one policy: columns ``prompt``, ``response``, ``reward``,
            ``cost``.
    """

    prompts: "PromptSet | None" = None
    unlabelled: "pd.DataFrame | None" = None
    samples: "pd.DataFrame | None" = None
