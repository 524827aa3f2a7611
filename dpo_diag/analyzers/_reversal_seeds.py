"""The areas of ``_reversal_aucs`` as a mean over training seeds; not a plug-in.

Start reading at ``seed_rows``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from dpo_diag.analyzers import _compare
from dpo_diag.analyzers._method_values import two_way
from dpo_diag.analyzers._reversal_aucs import (
    TURNED,
    Scored,
    auc_row,
    best_of,
    gain_row,
    is_reversed,
    usable_rows,
)
from dpo_diag.stats.compare import Difference, no_difference
from dpo_diag.stats.intervals import Interval, clustered_mean
from dpo_diag.stats.ranks import auc_influence

LEAST_SHARED = 0.5  # of a seed's pairs that all seeds must have to be compared on them; ours


def seed_rows(
    analyzer: str,
    group: str,
    models: Sequence[Scored],
    *,
    predictors: Sequence[str],
    baselines: Sequence[str],
    parts: Mapping[str, pd.Index],
    params: Any,
) -> tuple[list[dict[str, Any]], list[_compare.Comparison]]:
    """The same, as a mean over training seeds with both prompts and seeds in the error.

    Each seed has its own reversed pairs and its own AUC; see ``mean_area`` for their mean.

    Args:
        analyzer: its name.
        group: what the seeds are called in the findings.
        models: the seeds, two or more.
        predictors: all there are, baselines among them.
        baselines: those that the others must beat.
        parts: slice label to its pair_ids.
        params: the analyzer's, with ``ci_level``.
    """
    rows: list[dict[str, Any]] = []
    family: list[_compare.Comparison] = []
    turned = models[0].turned
    for label, members in parts.items():
        masks = [model.pairs.index.isin(members) for model in models]
        areas = {name: mean_area(models, [name], masks, params.ci_level) for name in predictors}
        for name, area in areas.items():
            if area.n:
                flag = "; ".join(filter(None, (TURNED if name in turned else "", area.flag)))
                interval = on_logit_scale(area, params.ci_level)
                rows.append(
                    auc_row(analyzer, group, name, interval, label=label, flag=flag, params=params)
                )
        best = best_of({name: areas[name].estimate for name in baselines if name in areas})
        for name in predictors:
            if best and name not in baselines and areas[name].n:
                gain = mean_area(models, [name, best], masks, params.ci_level)
                low, high = np.clip([gain.low, gain.high], -1.0, 1.0)
                gain = gain._replace(low=float(low), high=float(high))
                words = {"label": label, "difference": gain, "params": params}
                family.append(gain_row(analyzer, group, name, best, **words))
    return rows, family


def mean_area(
    models: Sequence[Scored], names: Sequence[str], masks: Sequence[np.ndarray], level: float
) -> Difference:
    """The AUC of a score, or of one less that of another, as a mean over seeds.

    Over the pairs that all seeds have, with prompts and seeds in the error (``two_way``), other
    pairs left out and counted in the flag. Where those are less than ``LEAST_SHARED`` of some
    seed's, each seed is measured on its own pairs, and the error is Student's t over the seeds.

    Args:
        models: the seeds.
        names: the score, and the one to take away if any.
        masks: for each seed, (n,) pairs to look at.
        level: nominal coverage, in (0, 1).

    Returns:
        NaN with n = 0 where a seed has no AUC.
    """
    indexes = [
        model.pairs.index[usable_rows(model, names, mask)]
        for model, mask in zip(models, masks, strict=True)
    ]
    if not all(map(len, indexes)):
        return no_difference("a seed has no pair with these scores")
    shared = indexes[0]
    for index in indexes[1:]:
        shared = shared.intersection(index)
    if len(shared) < LEAST_SHARED * max(map(len, indexes)):
        columns = [_influence(m, names, index) for m, index in zip(models, indexes, strict=True)]
        prompts = pd.concat(
            [m.pairs.loc[i, "prompt_id"] for m, i in zip(models, indexes, strict=True)]
        )
        areas = np.array([column.mean() for column in columns])
        return _over_seeds(areas, len(prompts), prompts.nunique(), level)
    shared = shared.sort_values()
    keys = [shared, models[0].pairs.loc[shared, "prompt_id"]]
    table = pd.DataFrame(
        {seed: _influence(model, names, shared) for seed, model in enumerate(models)},
        index=pd.MultiIndex.from_arrays(keys, names=["unit_id", "prompt_id"]),
    )
    if table.isna().any(axis=None):
        return no_difference("a seed has all or none of the pairs reversed")
    method = "mean over training seeds; prompts and seeds in the error"
    found = two_way(table, level=level)._replace(method=method)
    n_left = sum(map(len, indexes)) - len(indexes) * len(shared)
    left = f"{n_left} scores of pairs that not all seeds have left out" if n_left else ""
    return found._replace(flag="; ".join(filter(None, (found.flag, left))))


def _influence(model: Scored, names: Sequence[str], index: pd.Index) -> np.ndarray:
    """What each pair adds to the AUC of the first score, less what it adds to the second's."""
    outcome = is_reversed(model.pairs.loc[index, "margin"].to_numpy(float)) == 1.0
    parts = [auc_influence(model.scores.loc[index, n].to_numpy(float), outcome) for n in names]
    return parts[0] - parts[1] if len(parts) > 1 else parts[0]


def _over_seeds(areas: np.ndarray, n: int, n_prompts: int, level: float) -> Difference:
    if np.isnan(areas).any():
        return no_difference("a seed has all or none of the pairs reversed")
    found = clustered_mean(areas, np.arange(len(areas)), level=level)
    df = float(max(len(areas) - 1, 1))
    known = np.isfinite(found.se) and found.se > 0.0
    p_value = float(2.0 * stats.t.sf(abs(found.estimate) / found.se, df)) if known else np.nan
    return no_difference("")._replace(
        estimate=found.estimate,
        low=found.low,
        high=found.high,
        p_value=p_value,
        se=found.se,
        df=df,
        n=n,
        n_clusters=n_prompts,
        method="mean over training seeds with pairs of their own; t over seeds",
    )


def on_logit_scale(area: Difference, level: float) -> Interval:
    """An AUC with limits made on the logit scale, so that they stay inside 0 and 1.

    Args:
        area: with the standard error and the degrees of freedom that the limits are made from.
        level: nominal coverage, in (0, 1).
    """
    row = Interval(
        area.estimate, np.nan, np.nan, area.se, area.n, area.n_clusters, area.method, False
    )
    inside = area.estimate * (1.0 - area.estimate)
    if not area.se > 0.0 or inside <= 0.0:
        return row._replace(method=f"{area.method}; no spread: no interval")
    half = float(stats.t.isf((1.0 - level) / 2.0, area.df)) * area.se / inside
    centre = float(np.log(area.estimate / (1.0 - area.estimate)))
    low, high = 1.0 / (1.0 + np.exp(-(centre + np.array([-half, half]))))
    return row._replace(low=float(low), high=float(high))
