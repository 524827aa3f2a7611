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
from dpo_diag.stats.intervals import Interval
from dpo_diag.stats.ranks import auc_influence


def seed_rows(
    analyzer: str,
    group: str,
    models: Sequence[Scored],
    *,
    predictors: Sequence[str],
    baselines: Sequence[str],
    parts: Mapping[str, frozenset[str]],
    params: Any,
) -> tuple[list[dict[str, Any]], list[_compare.Comparison]]:
    """The same, as a mean over training seeds with both prompts and seeds in the error.

    Each seed has its own reversed pairs and its own AUC; the estimate is their mean over the pairs
    that all seeds have. Its error is that of a mean over crossed prompts and seeds (``two_way``) of
    what each pair adds to each seed's AUC.

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
        tables = {name: _influences(models, [name], members)[name] for name in predictors}
        areas = {name: _over_seeds(table, params.ci_level) for name, table in tables.items()}
        for name, area in areas.items():
            if area.n:
                flag = TURNED if name in turned else ""
                rows.append(
                    auc_row(analyzer, group, name, area, label=label, flag=flag, params=params)
                )
        best = best_of({name: areas[name].estimate for name in baselines if name in areas})
        for name in predictors:
            if best and name not in baselines and areas[name].n:
                both = _influences(models, [name, best], members)
                difference = _gain_over_seeds(both[name] - both[best], params.ci_level)
                family.append(
                    gain_row(
                        analyzer,
                        group,
                        name,
                        best,
                        label=label,
                        difference=difference,
                        params=params,
                    )
                )
    return rows, family


def _gain_over_seeds(paired: pd.DataFrame, level: float) -> Difference:
    if not len(paired):
        return no_difference("no pair with both scores in every seed")
    found = two_way(paired, level=level)
    return found._replace(low=float(max(found.low, -1.0)), high=float(min(found.high, 1.0)))


def _influences(
    models: Sequence[Scored], names: Sequence[str], members: frozenset[str]
) -> dict[str, pd.DataFrame]:
    """(pairs, seeds) of what each pair adds to each seed's AUC, over the pairs that all have."""
    usable = []
    for model in models:
        mask = usable_rows(model, names, model.pairs.index.isin(members))
        usable.append(model.pairs.index[mask])
    shared = usable[0]
    for index in usable[1:]:
        shared = shared.intersection(index)
    shared = shared.sort_values()
    prompts = models[0].pairs.loc[shared, "prompt_id"]
    index = pd.MultiIndex.from_arrays([shared, prompts], names=["unit_id", "prompt_id"])
    tables = {}
    for name in names:
        columns = {}
        for seed, model in enumerate(models):
            outcome = is_reversed(model.pairs.loc[shared, "margin"].to_numpy(float)) == 1.0
            columns[seed] = auc_influence(_scores(model, name, shared), outcome)
        tables[name] = pd.DataFrame(columns, index=index).dropna()
    return tables


def _scores(model: Scored, name: str, shared: pd.Index) -> np.ndarray:
    return model.scores.loc[shared, name].to_numpy(float) if len(shared) else np.zeros(0)


def _over_seeds(table: pd.DataFrame, level: float) -> Interval:
    """Mean AUC over seeds; its limits on the logit scale, so that they stay inside 0 and 1."""
    if not len(table):
        return Interval(np.nan, np.nan, np.nan, np.nan, 0, 0, "", False)
    found = two_way(table, level=level)
    method = "mean over training seeds; prompts and seeds in the error"
    row = Interval(
        found.estimate, np.nan, np.nan, found.se, found.n, found.n_clusters, method, False
    )
    inside = found.estimate * (1.0 - found.estimate)
    if not found.se > 0.0 or inside <= 0.0:
        return row._replace(method=f"{method}; no spread: no interval")
    half = float(stats.t.isf((1.0 - level) / 2.0, found.df)) * found.se / inside
    centre = float(np.log(found.estimate / (1.0 - found.estimate)))
    low, high = 1.0 / (1.0 + np.exp(-(centre + np.array([-half, half]))))
    return row._replace(low=float(low), high=float(high))
