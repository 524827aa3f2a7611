"""How well scores made before training tell the pairs reversed after it; not a plug-in.

A score's AUC is the chance that it is higher for a reversed pair than for one that is not, ties in
the score one half; a pair with a margin of exactly 0 is neither and is left out. Start reading at
``model_rows``; ``_reversal_seeds`` does the same for several training seeds at once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _compare, _rows
from dpo_diag.analyzers._base import finding
from dpo_diag.analyzers._rows import Slice, Statistic
from dpo_diag.errors import TableError
from dpo_diag.stats.compare import Difference
from dpo_diag.stats.intervals import Interval, cluster_codes
from dpo_diag.stats.ranks import auc, auc_difference

FEW_REVERSED = 20
AUC_UNIT = "chance that a reversed pair scores higher"
TURNED = "sign turned to its better side"


class Scored(NamedTuple):
    """The pairs of one model.

    Attributes:
        pairs: rows indexed by pair_id, in its order: ``prompt_id``, ``split``, ``margin``, ``gold``
            (NaN unknown).
        scores: same index, one column per predictor, NaN unknown.
        turned: baselines whose sign was turned because the other side predicts better.
    """

    pairs: pd.DataFrame
    scores: pd.DataFrame
    turned: frozenset[str]


def scored_pairs(model: pd.DataFrame, predictions: pd.DataFrame) -> Scored:
    """A model's pairs with every score, the baselines made from its rows where none are given.

    Args:
        model: ImplicitRewards of one model in order of pair_id, with ``gold_margin`` where known.
        predictions: ReversalPredictions of any models.

    Raises:
        TableError: a predictor has two scores for one pair.
    """
    model_id = str(model["model_id"].iloc[0])
    pairs = model[["prompt_id", "split", "margin"]].set_index(pd.Index(model["pair_id"]))
    gold = pd.to_numeric(model["gold_margin"]) if "gold_margin" in model else np.nan
    pairs = pairs.assign(gold=np.asarray(gold, float) * np.ones(len(pairs)))
    own = predictions[predictions["model_id"] == model_id]
    twice = own.duplicated(["predictor", "pair_id"])
    if twice.any():
        name = own.loc[twice, "predictor"].iloc[0]
        raise TableError(f"ReversalPredictions: {model_id} has two scores of {name} for one pair.")
    scores = own.pivot(index="pair_id", columns="predictor", values="score")
    scores = scores.reindex(pairs.index).astype(float)
    made = {
        "length": model["n_tokens_rejected"] - model["n_tokens_chosen"],
        "reference_margin": model["ref_logp_rejected"] - model["ref_logp_chosen"],
    }
    for name, values in made.items():
        if name not in scores:
            scores[name] = values.to_numpy(float)
    return Scored(pairs, scores, frozenset())


def slices(pairs: pd.DataFrame, gold_gap: float) -> list[Slice]:
    """All pairs, by split, and those whose label agrees with the gold order, by split too.

    Args:
        pairs: with ``split`` and ``gold``.
        gold_gap: smallest gold margin that is an order, exclusive.
    """
    is_training = (pairs["split"] == "train").to_numpy()
    splits = {"split=train": is_training, "split=held-out": ~is_training}
    parts = [Slice("all", np.ones(len(pairs), bool))]
    parts += [Slice(label, mask) for label, mask in splits.items()]
    is_right = pairs["gold"].to_numpy(float) > gold_gap
    if is_right.any():
        parts.append(Slice("label=right", is_right))
        parts += [Slice(f"{name}, label=right", mask & is_right) for name, mask in splits.items()]
    return parts


def turn_baselines(models: Sequence[Scored], baselines: Sequence[str]) -> list[Scored]:
    """The models with each baseline on the side on which its mean AUC over them is above 1/2.

    Nobody knows beforehand whether shorter or longer answers get reversed; to pick the side after
    the fact favours the baseline, which is what a baseline is for.

    Args:
        models: of one kind; each baseline is turned in all of them or in none.
        baselines: columns of the scores.
    """
    turned = set()
    for name in baselines:
        areas = [_area(model, name) for model in models if name in model.scores]
        known = [area for area in areas if not np.isnan(area)]
        if known and float(np.mean(known)) < 0.5:
            turned.add(name)
    return [
        model._replace(
            scores=model.scores.assign(
                **{name: -model.scores[name] for name in turned if name in model.scores}
            ),
            turned=frozenset(turned),
        )
        for model in models
    ]


def model_rows(
    analyzer: str,
    model_id: str,
    model: Scored,
    *,
    predictors: Sequence[str],
    baselines: Sequence[str],
    parts: Sequence[Slice],
    params: Any,
) -> tuple[list[dict[str, Any]], list[_compare.Comparison]]:
    """AUC of every predictor on every slice, and its gain over the best baseline there.

    Args:
        analyzer: its name.
        model_id: the model's.
        model: its pairs and scores.
        predictors: all that any model has, baselines among them; one that this model lacks gives a
            row without an estimate, in the slice ``all`` only.
        baselines: of the predictors, those that the others must beat.
        parts: slices with masks over the pairs.
        params: the analyzer's, with ``ci_level``.
    """
    rows: list[dict[str, Any]] = []
    family: list[_compare.Comparison] = []
    for part in parts:
        areas = {name: _auc(model, name, part.mask, params.ci_level) for name in predictors}
        for name, area in areas.items():
            if part.label == "all" or area.n:
                flag = _flags(model, name, part.mask, area)
                rows.append(
                    auc_row(
                        analyzer, model_id, name, area, label=part.label, flag=flag, params=params
                    )
                )
        best = best_of({name: areas[name].estimate for name in baselines if name in areas})
        for name in predictors:
            if best and name not in baselines and areas[name].n:
                difference = _gain(model, name, best, mask=part.mask, level=params.ci_level)
                family.append(
                    gain_row(
                        analyzer,
                        model_id,
                        name,
                        best,
                        label=part.label,
                        difference=difference,
                        params=params,
                    )
                )
    return rows, family


def is_reversed(margin: np.ndarray) -> np.ndarray:
    """1 where the margin is below 0, 0 where above, NaN where it is 0 or unknown."""
    margin = np.asarray(margin, float)
    return np.where(np.isnan(margin) | (margin == 0.0), np.nan, (margin < 0.0).astype(float))


def usable_rows(model: Scored, names: Sequence[str], mask: np.ndarray) -> np.ndarray:
    """(n,) pairs of the mask whose margin is not 0 and that have all of these scores."""
    usable = mask & ~np.isnan(is_reversed(model.pairs["margin"].to_numpy(float)))
    for name in names:
        known = model.scores[name].notna().to_numpy() if name in model.scores else False
        usable = usable & known
    return usable


def _auc(model: Scored, name: str, mask: np.ndarray, level: float) -> Interval:
    usable = usable_rows(model, [name], mask)
    if not usable.any():
        return Interval(np.nan, np.nan, np.nan, np.nan, 0, 0, "", False)
    pairs = model.pairs[usable]
    return auc(
        model.scores[name].to_numpy(float)[usable],
        is_reversed(pairs["margin"].to_numpy(float)) == 1.0,
        cluster_codes(pairs["prompt_id"].to_numpy()),
        level=level,
    )


def _area(model: Scored, name: str) -> float:
    return _auc(model, name, np.ones(len(model.pairs), bool), 0.95).estimate


def _gain(model: Scored, name: str, best: str, *, mask: np.ndarray, level: float) -> Difference:
    usable = usable_rows(model, [name, best], mask)
    pairs = model.pairs[usable]
    return auc_difference(
        model.scores[name].to_numpy(float)[usable],
        model.scores[best].to_numpy(float)[usable],
        is_reversed(pairs["margin"].to_numpy(float)) == 1.0,
        cluster_codes(pairs["prompt_id"].to_numpy()),
        level=level,
    )


def best_of(areas: Mapping[str, float]) -> str:
    """Name of the largest area, the first by name where several are; empty without any."""
    known = {name: area for name, area in sorted(areas.items()) if not np.isnan(area)}
    return max(known, key=known.__getitem__) if known else ""


def _flags(model: Scored, name: str, mask: np.ndarray, area: Interval) -> str:
    if name not in model.scores:
        return "not predicted for this model"
    margin = model.pairs["margin"].to_numpy(float)[mask]
    n_ties = int(np.count_nonzero(margin == 0.0))
    n_unknown = int(np.count_nonzero(mask)) - n_ties - int(usable_rows(model, [name], mask).sum())
    n_reversed = int(np.count_nonzero(margin < 0.0))
    flags = [TURNED] if name in model.turned else []
    if not area.n and len(margin):
        flags.append("no score" if n_unknown else "all or none of the pairs are reversed")
    elif area.n and n_reversed < FEW_REVERSED:
        flags.append(f"{n_reversed} reversed pairs")
    if area.n and n_ties:
        flags.append(f"{n_ties} pairs with margin 0 left out")
    if area.n and n_unknown > 0:
        flags.append(f"{n_unknown} pairs without a score left out")
    return "; ".join(flags)


def auc_row(
    analyzer: str, model_id: str, name: str, area: Interval, *, label: str, flag: str, params: Any
) -> dict[str, Any]:
    return finding(
        analyzer,
        f"auc:{name}",
        model_id,
        params=params,
        slice=label,
        unit=AUC_UNIT,
        better="higher",
        flag=_rows.flags_of(area, flag),
        **_rows.estimate_columns(area, params.ci_level),
    )


def gain_row(
    analyzer: str,
    model_id: str,
    name: str,
    best: str,
    *,
    label: str,
    difference: Difference,
    params: Any,
) -> _compare.Comparison:
    return _compare.comparison(
        analyzer,
        Statistic(f"auc:{name}", f"{AUC_UNIT}, more than by {best}", "higher"),
        model_id,
        best,
        difference=difference,
        params=params,
        label=label,
    )
