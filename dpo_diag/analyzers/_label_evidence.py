"""Evidence, pair by pair, that a label is wrong or that the model is; a rule over it.

Pure functions behind ``label_or_model``; not a plug-in. Start reading at ``evidence_of``.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.analyzers._steps import runs_of
from dpo_diag.stats import label_noise

LABEL, MODEL, UNDECIDED = "label", "model", "undecided"
VERDICTS = (LABEL, MODEL, UNDECIDED)


class Evidence(NamedTuple):
    """What speaks of the reversed pairs of one model.

    Attributes:
        table: one row per pair that was looked at (reversed or not), index pair_id, columns of
            ``evidence_of``.
        reliability: annotator to estimated reliability.
        scale: factor on the margins behind it, NaN where it could not be fitted.
        mislabelled_share: Hölder's estimate at that scale.
        n_models: models whose orders were compared, this one included.
        n_steps: steps of this model's run that were.
    """

    table: pd.DataFrame
    reliability: dict[str, float]
    scale: float
    mislabelled_share: float
    n_models: int
    n_steps: int


def evidence_of(model: pd.DataFrame, frame: pd.DataFrame, texts: pd.DataFrame | None) -> Evidence:
    """Every piece of evidence for every pair of one model.

    Columns of the table: ``margin``; ``vote_share`` and ``n_votes`` (given, or NaN);
    ``twins`` (pairs of the same prompt with the two answers swapped); ``models_reversing`` and
    ``steps_reversing`` (share of the models, and of the run's steps, that put the pair the other
    way round than its label; ties one half); ``mean_margin`` (over the models); ``label_right``
    (RE-PO's posterior from it, at the fitted scale); ``holder_weight`` and ``is_outlier``
    (likewise). Averaging over seeds takes out what chance did to one of them.

    Args:
        model: rows of ImplicitRewards of one final model, with the pairs' columns.
        frame: rows of all models, steps included.
        texts: PreferencePairs of *all* pairs, for the twins; None leaves them NaN.
    """
    asked = pd.Index(model["pair_id"])
    margin = model["margin"].to_numpy(float)
    seeds = _orders(_siblings(model, frame), asked)
    steps = _orders(_steps(model, frame), asked)
    annotator = (
        model["annotator"].fillna("").astype(str).to_numpy()
        if "annotator" in model
        else np.full(len(model), "")
    )
    codes, names = pd.factorize(annotator, sort=True)
    mean = np.sort(seeds, axis=1).mean(axis=1)  # sorted: no matter in what order models come
    scale = label_noise.fitted_scale(mean, codes)
    scaled = mean * (scale if np.isfinite(scale) else np.nan)
    known = np.isfinite(scaled).all() and len(scaled) > 0
    right, eta = label_noise.posterior(scaled, codes) if known else (np.nan, [])
    table = pd.DataFrame(
        {
            "margin": margin,
            "vote_share": _numbers(model, "vote_share"),
            "n_votes": _numbers(model, "n_votes"),
            "twins": _twins(asked, texts),
            "models_reversing": (seeds < 0).mean(axis=1) + 0.5 * (seeds == 0).mean(axis=1),
            "steps_reversing": np.nan,
            "mean_margin": mean,
            "label_right": right,
            "holder_weight": label_noise.holder_weight(scaled),
            "is_outlier": label_noise.outliers(scaled) if known else False,
        },
        index=asked,
    )
    if steps.shape[1]:
        table["steps_reversing"] = (steps < 0).mean(axis=1) + 0.5 * (steps == 0).mean(axis=1)
    return Evidence(
        table,
        {str(name): float(value) for name, value in zip(names, eta, strict=False)},
        scale,
        label_noise.mislabelled_share(scaled) if known else float("nan"),
        seeds.shape[1],
        steps.shape[1],
    )


def judge(table: pd.DataFrame, params: Any, *, n_models: int, n_steps: int) -> pd.DataFrame:
    """The verdict on each pair, taking every pair for reversed, and what it rests on.

    For the label being wrong: most voters prefer the rejected answer; the data hold the swapped
    pair too; or its posterior is below ``label_below``. For the model being wrong: at least
    ``min_votes`` votes of which ``clear_votes`` or more are for the label; at most half of at least
    ``min_models`` models put it this way round; or at most half of at least ``min_models`` steps of
    the run did. Votes outrank the rest. Where both sides have evidence, or none has, the verdict
    is ``undecided``.

    Args:
        table: of ``evidence_of``.
        params: with ``label_below``, ``min_votes``, ``clear_votes``, ``min_models``.
        n_models: models compared.
        n_steps: steps compared.

    Returns:
        ``verdict`` and ``because``, indexed as the table.
    """
    share, votes = table["vote_share"], table["n_votes"].fillna(0.0)
    unlikely = f"posterior of the label below {params.label_below:g}"
    label = {
        "votes against the label": share < 0.5,
        "the same answers labelled the other way round": table["twins"] > 0,
        unlikely: table["label_right"] < params.label_below,
    }
    model = {
        "votes for the label": (votes >= params.min_votes) & (share >= params.clear_votes),
        "other models order it as labelled": (table["models_reversing"] <= 0.5)
        & (n_models >= params.min_models),
        "earlier steps ordered it as labelled": (table["steps_reversing"] <= 0.5)
        & (n_steps >= params.min_models),
    }
    against, spoken = pd.DataFrame(label), pd.DataFrame(model)
    voted = against.iloc[:, 0] | spoken.iloc[:, 0]
    is_label = np.where(voted, against.iloc[:, 0], against.any(axis=1))
    is_model = np.where(voted, spoken.iloc[:, 0], spoken.any(axis=1))
    verdict = np.select(
        [is_label & ~is_model, is_model & ~is_label], [LABEL, MODEL], default=UNDECIDED
    )
    both = pd.concat([against, spoken], axis=1)
    kinds, inverse = np.unique(both.to_numpy(bool), axis=0, return_inverse=True)
    words = [", ".join(both.columns[kind]) or "no evidence" for kind in kinds]
    because = np.array(words, dtype=object)[inverse.reshape(-1)] if len(both) else []
    return pd.DataFrame({"verdict": verdict, "because": because}, index=table.index)


def _siblings(model: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the final models with this one's reward and reference, itself among them."""
    same = frame["step"] == -1
    for column in ("reward_def", "reference_id"):
        same &= frame[column] == model[column].iloc[0]
    return frame[same | (frame["model_id"] == model["model_id"].iloc[0])]


def _steps(model: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the steps of this model's run."""
    runs = runs_of(frame)
    own = model["model_id"].iloc[0]
    wanted = [name for name, run in runs.items() if run == own and name != own]
    return frame[frame["model_id"].isin(wanted) & (frame["step"] >= 0)]


def _orders(rows: pd.DataFrame, asked: pd.Index) -> np.ndarray:
    """Margins of models on the pairs asked about, (n, models); models without all pairs are out."""
    wide = rows.pivot_table(index="pair_id", columns="model_id", values="margin").reindex(asked)
    return wide.dropna(axis=1).to_numpy(float).reshape(len(asked), -1)


def _twins(asked: pd.Index, texts: pd.DataFrame | None) -> np.ndarray:
    """How many pairs of the same prompt hold the two answers with the label turned round."""
    if texts is None:
        return np.full(len(asked), np.nan)
    columns = ["prompt_id", "chosen", "rejected"]
    shared = texts[texts["prompt_id"].duplicated(keep=False)]  # others have no twin
    swapped = shared.groupby(columns).size()
    swapped.index = swapped.index.rename(["prompt_id", "rejected", "chosen"])
    own = shared.drop_duplicates("pair_id").set_index("pair_id")[columns]
    counts = swapped.reindex(pd.MultiIndex.from_frame(own[["prompt_id", "rejected", "chosen"]]))
    found = pd.Series(counts.fillna(0.0).to_numpy(float), index=own.index).reindex(asked)
    return np.where(asked.isin(texts["pair_id"]), found.fillna(0.0).to_numpy(float), np.nan)


def _numbers(model: pd.DataFrame, column: str) -> np.ndarray:
    if column not in model:
        return np.full(len(model), np.nan)
    return pd.to_numeric(model[column]).to_numpy(float)
