"""DPO's optimum in the linear class: what it says of each pair, and how far that is chance.

Start reading at ``local_margins``; the theory is in ``stats.local_theory``.
"""

import numpy as np
import pandas as pd

from dpo_diag.pipeline.gradients import GradientFeatures
from dpo_diag.pipeline.pushes import TRAIN, Products, foreseen
from dpo_diag.stats.local_theory import (
    Population,
    dpo_solution,
    frequency_sensitivity,
    redraw_spread,
)
from dpo_diag.tables import LOCAL_MARGINS, empty, validate

MAX_PAIRS = 5000  # time grows with their cube: some minutes on one core at 5,000


def local_margins(
    model_id: str,
    frame: pd.DataFrame,
    features: GradientFeatures,
    products: Products,
    *,
    beta: float,
) -> tuple[pd.DataFrame, str]:
    """LOCAL_MARGINS of every pair, and why there are none, in words.

    The training pairs are compared once each, with their annotators' share as the truth where it
    is known and with their label where not; the change of parameters may be as long as that of the
    descent behind ``linearised_dpo``, since without a bound a large model expresses every label.

    Args:
        model_id: the model's.
        frame: the pairs.
        features: at its reference.
        products: of the same.
        beta: of the run.
    """
    ids, variant = products.pair_ids, products.best
    if len(ids) > MAX_PAIRS:
        return empty(LOCAL_MARGINS), (
            f"The local theory's optimum is for up to {MAX_PAIRS} pairs, there are {len(ids)}; "
            "linearised_dpo stands in for it. --limit makes them fewer."
        )
    pairs = frame.set_index("pair_id").reindex(ids)
    counts = (pairs["split"] == TRAIN).to_numpy(float)
    preferences = np.ones(len(ids))
    if "vote_share" in pairs:
        preferences = pairs["vote_share"].fillna(1.0).to_numpy(float)
    norm = foreseen(products, variant, beta).norm
    kernel = features.kernel(ids, ids, preconditioned=variant == "adam")
    solution = dpo_solution(kernel, Population(counts, preferences, beta, max_norm=norm))
    prompts = pairs["prompt_id"].to_numpy()
    spread = redraw_spread(frequency_sensitivity(solution), counts, clusters=prompts)
    table = pd.DataFrame(
        {
            "model_id": model_id,
            "pair_id": ids,
            "margin": solution.margins,
            "redraw_spread": spread,
        }
    )
    return validate(table, LOCAL_MARGINS), ""


def as_prediction(own: pd.DataFrame, local: pd.DataFrame) -> pd.DataFrame:
    """The local margins as rows of ReversalPredictions under the name ``local_theory``.

    Args:
        own: IMPLICIT_REWARDS rows of the model, any order.
        local: its LOCAL_MARGINS, any order.
    """
    columns = ["model_id", "pair_id", "prompt_id", "domain", "split"]
    rows = own[columns].merge(local[["pair_id", "margin"]], on="pair_id")
    return rows.assign(predictor="local_theory", score=-rows["margin"]).drop(columns="margin")
