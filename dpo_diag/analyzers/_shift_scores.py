"""Per-pair scores of the off-distribution analysis; not a plug-in."""

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _pairs, _rows
from dpo_diag.stats import calibration


def ood_columns(frame: pd.DataFrame, *, gold_gap: float = 0.0) -> pd.DataFrame:
    """Every per-pair score: ``_pairs.pair_columns``, ``brier``, explicit reward and best of n.

    ``best_of_n_accuracy`` is on the first pair of each group only, NaN on the others: 1 when the
    chosen answer's reward is above all rejected ones of the group, with t ties at the top
    1 / (1 + t), else 0.

    Args:
        frame: (n,) rows of ImplicitRewards of one model with the optional columns.
        gold_gap: see ``_pairs.pair_columns``.
    """
    columns = _pairs.pair_columns(frame, gold_gap=gold_gap)
    explicit = np.full(len(frame), np.nan)
    if {"explicit_reward_chosen", "explicit_reward_rejected"} <= set(frame.columns):
        explicit = pd.to_numeric(frame["explicit_reward_chosen"]).to_numpy(float) - pd.to_numeric(
            frame["explicit_reward_rejected"]
        ).to_numpy(float)
    return columns.assign(
        brier=calibration.brier(frame["margin"].to_numpy(float)),
        explicit_reward_accuracy=_pairs.order_score(explicit),
        best_of_n_accuracy=_best_of_n(frame),
    )


def _best_of_n(frame: pd.DataFrame) -> np.ndarray:
    score = np.full(len(frame), np.nan)
    if "group_id" not in frame.columns:
        return score
    group = _rows.as_text(frame["group_id"])
    known = np.flatnonzero(group != "")
    if not len(known):
        return score
    codes, _ = pd.factorize(group[known])
    margin = frame["margin"].to_numpy(float)[known]
    lost = np.bincount(codes, weights=margin < 0.0) > 0
    ties = np.bincount(codes, weights=margin == 0.0)
    first = known[np.unique(codes, return_index=True)[1]]
    score[first] = np.where(lost, 0.0, 1.0 / (1.0 + ties))
    return score
