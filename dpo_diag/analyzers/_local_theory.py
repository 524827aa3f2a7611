"""Findings of the table LocalMargins: what the local theory said, and what it left to chance.

Not a plug-in. Start reading at ``local_rows``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _rows
from dpo_diag.analyzers._rows import Statistic

SURE = 2.0  # spreads: a margin that is smaller has an order that this draw of pairs decided
STATISTICS = (
    Statistic("foreseen_reversal_rate", "share of pairs", "lower", is_joint=True),
    Statistic("chance_order_rate", "share of pairs", "lower", is_joint=True),
    Statistic("foreseen_right", "share of pairs whose order was foreseen", "higher", is_joint=True),
    Statistic("foreseen_right_sure", "share of pairs with a sure order", "higher", is_joint=True),
    Statistic(
        "foreseen_right_unsure", "share of pairs with an order by chance", "higher", is_joint=True
    ),
)


def local_columns(local: pd.DataFrame, margin: np.ndarray) -> pd.DataFrame:
    """Each pair's statistics, NaN where they do not apply.

    ``foreseen_reversal_rate``: the theory's margin is below 0. ``chance_order_rate``: it lies
    within ``SURE`` spreads of 0, so another draw of as many training prompts may turn it.
    ``foreseen_right...``: the run's own margin came out on the foreseen side, ties one half; over
    all pairs, the sure and the unsure ones.

    Args:
        local: (n,) rows with ``margin`` and ``redraw_spread``, NaN where the theory says nothing.
        margin: (n,) of the run.
    """
    foreseen = local["margin"].to_numpy(float)
    known = ~np.isnan(foreseen)
    unsure = np.abs(foreseen) <= SURE * local["redraw_spread"].to_numpy(float)
    right = np.where(known, 0.5 + 0.5 * np.sign(foreseen) * np.sign(margin), np.nan)
    return pd.DataFrame(
        {
            "foreseen_reversal_rate": np.where(known, foreseen < 0.0, np.nan),
            "chance_order_rate": np.where(known, unsure, np.nan),
            "foreseen_right": right,
            "foreseen_right_sure": np.where(unsure, np.nan, right),
            "foreseen_right_unsure": np.where(unsure, right, np.nan),
        }
    )


def local_rows(
    analyzer: str,
    model_id: str,
    local: pd.DataFrame,
    pairs: pd.DataFrame,
    *,
    parts: Sequence[_rows.Slice],
    params: Any,
) -> list[dict[str, Any]]:
    """Findings on every slice; none where the theory was not asked.

    Args:
        analyzer: its name.
        model_id: the model's.
        local: LocalMargins of this model.
        pairs: the model's pairs by pair_id, with ``margin`` and ``prompt_id``.
        parts: slices with masks over the pairs.
        params: the analyzer's, with ``ci_level``.
    """
    if local.empty:
        return []
    own = local.set_index("pair_id").reindex(pairs.index)
    return _rows.mean_findings(
        analyzer,
        model_id,
        local_columns(own, pairs["margin"].to_numpy(float)),
        parts,
        statistics=STATISTICS,
        clusters=pd.factorize(pairs["prompt_id"])[0],
        params=params,
        reasons=_rows.Reasons(lambda part: "", lambda name: "no such pairs"),
    )
