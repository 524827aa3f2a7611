"""What a change of weights can express of the wanted margins, at the length that the run moved.

Start reading at ``expressed``; the theory is in ``stats.expressible``.
"""

import numpy as np
import pandas as pd

from dpo_diag.pipeline.gradients import GradientFeatures
from dpo_diag.stats import expressible
from dpo_diag.tables import EXPRESSIBLE, validate

TRAIN = "train"
NORMS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)  # of the length that the run moved
DIMENSIONS = (16, 64, 256, 1024)  # of random subspaces


def expressed(
    own: pd.DataFrame,
    frame: pd.DataFrame,
    features: GradientFeatures,
    *,
    moved_norm: float,
    max_fitted: int,
    seed: int,
) -> pd.DataFrame:
    """EXPRESSIBLE of one model: what a change of the run's length, or of few dimensions, can make.

    The targets have the pattern of the true margins (gold, else annotators' shares, else the
    labels) and the size of the run's own margins: their scale in reward is seldom known, and a
    pattern that is scaled up can be expressed by nothing.

    Args:
        own: IMPLICIT_REWARDS rows of the model, in order of ``features.pair_ids``.
        frame: the pairs.
        features: at its reference.
        moved_norm: length of the run's change of weights.
        max_fitted: pairs fitted, and as many looked at beside; of more, so many at random.
        seed: of that draw and of the random subspaces.
    """
    rng = np.random.default_rng(seed)
    targets = target_margins(own, frame)
    usable = np.flatnonzero(np.isfinite(targets))
    is_train = (own["split"] == TRAIN).to_numpy()
    fitted, others = usable[is_train[usable]], usable[~is_train[usable]]
    fitted, others = (
        np.sort(rng.choice(part, min(len(part), max_fitted), replace=False))
        for part in (fitted, others)
    )
    rows = []
    plain = np.asarray(features.plain, float)
    spaces = [("all", features.n_parameters, plain)]
    spaces += [
        ("random", dimension, expressible.subspace_features(plain, dimension, rng=rng))
        for dimension in DIMENSIONS
        if dimension < plain.shape[1]
    ]
    for space, dimension, columns in spaces:
        held_out = expressible.HeldOut(columns[others] @ columns[fitted].T, targets[others])
        paths = expressible.residual_path(
            _spectrum(columns[fitted]),
            targets[fitted],
            [moved_norm * part for part in NORMS],
            held_out=held_out,
        )
        rows += [
            {
                "model_id": str(own["model_id"].iloc[0]),
                "space": space if features.space == "all" else f"lora {space}",
                "dimension": dimension,
                "norm": fit.max_norm,
                "moved_norm": moved_norm,
                "residual_share": fit.residual_share,
                "sign_errors": fit.sign_errors,
                "held_out_sign_errors": fit.held_out_sign_errors,
                "n": len(fitted),
                "n_prompts": own["prompt_id"].iloc[fitted].nunique(),
            }
            for fit in paths
        ]
    return validate(pd.DataFrame(rows, columns=list(EXPRESSIBLE.column_names)), EXPRESSIBLE)


def noise_of_sketch(features: GradientFeatures, table: pd.DataFrame) -> str:
    """What a sketch does to the numbers of ``expressed``, in words; empty for exact gradients.

    Products between pairs get noise that no change of weights can follow: at half of the length
    that would express everything, 1,500 independent pairs had 28 % left over in 4,096 columns and
    25 % in 16,384, where exact gradients leave 24 %.

    Args:
        features: what the table was made from.
        table: EXPRESSIBLE.
    """
    if features.kind == "exact" or table.empty:
        return ""
    return (
        f"What cannot be expressed is read off sketches of {features.k} columns for "
        f"{table['n'].max()} pairs; their noise makes the residual and the sign errors too large, "
        "the more pairs there are for a column the more. More columns (--sketch) say by how much."
    )


def _spectrum(columns: np.ndarray) -> expressible.Spectrum:
    """Of the Gram matrix of (n, d) columns, the cheaper way."""
    if columns.shape[1] < len(columns):
        return expressible.spectrum_of(columns)
    return expressible.spectrum(columns @ columns.T)


def target_margins(own: pd.DataFrame, frame: pd.DataFrame) -> np.ndarray:
    """(n,) wanted margins, nats, as large in the mean square as the run's own; NaN where unknown.

    Args:
        own: IMPLICIT_REWARDS rows of one model.
        frame: the pairs.
    """
    pairs = frame.set_index("pair_id").reindex(own["pair_id"])
    if "gold_margin" in pairs and pairs["gold_margin"].notna().any():
        pattern = pd.to_numeric(pairs["gold_margin"]).to_numpy(float)
    elif "vote_share" in pairs and pairs["vote_share"].notna().any():
        pattern = expressible.targets_from_votes(pairs["vote_share"].to_numpy(float), 1.0)
    else:
        pattern = np.ones(len(pairs))
    reached = (own["logratio_chosen"] - own["logratio_rejected"]).to_numpy(float)
    size, wanted = (float(np.sqrt(np.nanmean(values**2))) for values in (reached, pattern))
    return pattern * (size / wanted) if wanted else np.full(len(pairs), np.nan)
