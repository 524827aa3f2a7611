"""Pairs to products of hidden states, one stored row per pair and model: what CHES is made of.

The states themselves are never kept: each answer's are summed as they come, and a pair's two sums
become two numbers. Start reading at ``state_rows``.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dpo_diag.checkpoints import Checkpoint, ModelRef
from dpo_diag.engines._base import Engine, ScoreRequest
from dpo_diag.errors import EngineError
from dpo_diag.pairs import PairSet
from dpo_diag.pipeline.score import stored_rows
from dpo_diag.pipeline.work import EngineChoice, EnginePool, Work
from dpo_diag.tables import PAIR_STATES


def state_rows(
    checkpoint: Checkpoint, pairs: PairSet, choice: EngineChoice, work: Work
) -> pd.DataFrame:
    """PAIR_STATES of a model on the pairs: stored rows first, the missing ones made and stored.

    Raises:
        EngineError: the engine gives no hidden states, or they are not numbers.
    """
    with EnginePool(choice, "score", work) as pool:
        return stored_rows(
            checkpoint.model,
            pairs,
            pool,
            spec=PAIR_STATES,
            measure=_products,
            template=checkpoint.template,
            verb="reading the states of",
        )


def _products(
    model: ModelRef, engine: Engine, requests: Sequence[ScoreRequest]
) -> dict[str, np.ndarray]:
    sums = engine.state_sums(requests)  # (2B, H), chosen and rejected in turns
    chosen, rejected = sums[0::2], sums[1::2]
    if not np.isfinite(sums).all():
        raise EngineError(
            f"{model.name} has hidden states that are no numbers; its weights or its dtype are "
            "broken. Try --dtype float32."
        )
    return {
        "state_product": (chosen * rejected).sum(axis=1),
        "state_square": (chosen * chosen).sum(axis=1),
    }
