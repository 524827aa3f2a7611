"""What training pairs do to others, from products of gradients at the reference.

Predictions made before training, the training pairs that pushed each reversed pair, and those that
are to blame for many. Start reading at ``products_of``; the theory is in ``stats.linearised_dpo``
and ``stats.gradient_conflicts``.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.pipeline.gradients import GradientFeatures
from dpo_diag.stats.gradient_conflicts import conflict_scores, negative_products, same_pair
from dpo_diag.stats.linearised_dpo import Prediction, Settings, descend, strongest_pushes
from dpo_diag.tables import PAIR_CONFLICTS, REVERSAL_PREDICTIONS, validate

TRAIN = "train"
FORESEEN_REWARD = 0.25
"""Mean reward margin of the training pairs at which the prediction made before training stops.
Chosen on the sandbox's world 100, which no reported number uses; there the AUC of the held-out
pairs hardly moves (.88 to .91) between .1 and .7."""


class Products(NamedTuple):
    """Inner products of every pair with the training pairs that may push.

    Attributes:
        pair_ids: (n,) of all pairs.
        train: (m,) positions of the pushing pairs among them.
        kernel: variant (``plain``, ``adam``) -> (n, m) products.
        norms: variant -> (n,) exact lengths.
    """

    pair_ids: np.ndarray
    train: np.ndarray
    kernel: Mapping[str, np.ndarray]
    norms: Mapping[str, np.ndarray]

    @property
    def best(self) -> str:
        """The variant that stands for how the run was optimised."""
        return "adam" if "adam" in self.kernel else "plain"

    def among_training(self, variant: str) -> np.ndarray:
        """(m, m) Gram matrix of the pushing pairs."""
        return self.kernel[variant][self.train]


def products_of(
    features: GradientFeatures, frame: pd.DataFrame, *, max_train: int, seed: int
) -> tuple[Products, str]:
    """Products with the training pairs, and what was left out, in words.

    Args:
        features: of every pair.
        frame: the pairs.
        max_train: training pairs that may push; of more, so many at random.
        seed: of that draw.
    """
    ids = np.asarray(features.pair_ids)
    split = frame.set_index("pair_id")["split"].reindex(ids)
    train, note = np.flatnonzero((split == TRAIN).to_numpy()), ""
    if len(train) > max_train:
        note = (
            f"Only {max_train} of {len(train)} training pairs, drawn at random, are asked "
            "for what they pushed; give a larger --max-train for all of them."
        )
        rng = np.random.default_rng(seed)
        train = np.sort(rng.choice(train, max_train, replace=False))
    variants = {"plain": False} | ({"adam": True} if features.adam is not None else {})
    kernel = {
        name: features.kernel(ids, ids[train], preconditioned=is_adam).astype(np.float32)
        for name, is_adam in variants.items()
    }
    norms = {
        name: np.sqrt(features.adam_squares if is_adam else features.squares)
        for name, is_adam in variants.items()
    }
    return Products(ids, train, kernel, norms), note


def foreseen(products: Products, variant: str, beta: float) -> Prediction:
    """The descent that a prediction made before training rests on, see ``FORESEEN_REWARD``."""
    settings = Settings(beta, mean_margin=FORESEEN_REWARD / beta)
    return descend(products.among_training(variant), settings)


def predictions(own: pd.DataFrame, products: Products, *, beta: float) -> pd.DataFrame:
    """REVERSAL_PREDICTIONS of one model: what gradients at the reference foretell.

    ``linearised_dpo`` is minus the margin that a descent on the DPO loss in the tangent space
    reaches where the training pairs' mean reward margin is ``FORESEEN_REWARD``; ``conflict`` is
    minus the sum of cosines with the training pairs; both for the optimiser's preconditioned
    gradients, and for plain ones under ``_plain``. ``negative_products`` is a weak baseline.

    Args:
        own: IMPLICIT_REWARDS rows of the model, in order of ``products.pair_ids``.
        products: of its reference.
        beta: of the run.
    """
    scores: dict[str, np.ndarray] = {}
    excluded = same_pair(products.pair_ids, products.pair_ids[products.train])
    for variant, kernel in products.kernel.items():
        suffix = "" if variant == products.best else "_plain"
        norms = products.norms[variant]
        alpha = foreseen(products, variant, beta).alpha
        scores[f"linearised_dpo{suffix}"] = -(kernel @ alpha.astype(kernel.dtype)).astype(float)
        scores[f"conflict{suffix}"] = conflict_scores(
            kernel, eval_norms=norms, train_norms=norms[products.train], excluded=excluded
        )
    scores["negative_products"] = negative_products(products.kernel["plain"], excluded=excluded)
    columns = ["model_id", "pair_id", "prompt_id", "domain", "split"]
    rows = [own[columns].assign(predictor=name, score=score) for name, score in scores.items()]
    table = pd.concat(rows, ignore_index=True)
    return validate(table[list(REVERSAL_PREDICTIONS.column_names)], REVERSAL_PREDICTIONS)


def conflicts(own: pd.DataFrame, products: Products, *, beta: float, n_named: int) -> pd.DataFrame:
    """PAIR_CONFLICTS of one model: what pushed each pair that came out reversed.

    The descent in the tangent space stops at the run's own mean training margin, so pushes add up
    to margins of the run's own size. A pair's push on itself is left out: it is no conflict.

    Args:
        own: IMPLICIT_REWARDS rows of the model, in order of ``products.pair_ids``.
        products: of its reference.
        beta: of the run.
        n_named: training pairs kept for a pair, each way.
    """
    variant, ids = products.best, products.pair_ids
    alpha = run_weights(own, products, beta)
    reversed_at = np.flatnonzero(own["margin"].to_numpy(float) < 0.0)
    kernel = products.kernel[variant][reversed_at].astype(float)
    same = ids[reversed_at][:, None] == ids[products.train][None, :]
    kernel[same] = 0.0
    norms = products.norms[variant]
    found = strongest_pushes(
        kernel,
        alpha,
        eval_norms=norms[reversed_at],
        train_norms=norms[products.train],
        n_each=n_named,
    )
    table = pd.DataFrame(
        {
            "model_id": str(own["model_id"].iloc[0]),
            "pair_id": ids[reversed_at][found.pair],
            "train_pair_id": ids[products.train][found.train_pair],
            "push": found.push,
            "cosine": found.cosine,
            "share": found.share,
        }
    )
    return validate(table, PAIR_CONFLICTS)


def run_weights(own: pd.DataFrame, products: Products, beta: float) -> np.ndarray:
    """(m,) what each training pair has pushed when the margins are as large as the run's.

    A run whose training pairs have no positive mean margin stops where the prediction does.
    """
    return towards_run(own, products, beta).alpha


def towards_run(own: pd.DataFrame, products: Products, beta: float) -> Prediction:
    """The descent behind ``run_weights``; it may end short of the run's margins (``short_of``)."""
    # of log-ratios, not of rewards: what a parameter change moves, whatever the method's reward is
    moved = (own["logratio_chosen"] - own["logratio_rejected"]).to_numpy(float)
    reached = float(moved[products.train].mean())
    stop = reached if reached > 0.0 else FORESEEN_REWARD / beta
    settings = Settings(beta, mean_margin=stop)
    return descend(products.among_training(products.best), settings)


def short_of(name: str, reached: Prediction, what: str) -> str:
    """Where a descent ran out of steps before the mean margin it should stop at, in words.

    So it is where few directions carry most of the gradients' length and most pairs nothing of the
    mean margin, as with answers of very unlike length: the pushes are then those of a shorter run.

    Args:
        name: the model's.
        reached: the descent.
        what: the descent was for.
    """
    if reached.stopped_by == "mean margin":
        return ""
    return (
        f"{name}: {what} rest on a descent that ended after {reached.steps:.0f} steps at a mean "
        f"margin of {reached.train_margins.mean():.3g} nats, short of where it should have: they "
        "are those of a shorter run."
    )


def most_opposed(products: Products, targets: np.ndarray, alpha: np.ndarray, n: int) -> np.ndarray:
    """Ids of the training pairs that pushed the targets round hardest, hardest first.

    Each target counts alike, whatever the length of its gradient: pushes are divided by it.

    Args:
        products: of the reference.
        targets: ids of pairs that should not be reversed; a target is never blamed for itself.
        alpha: (m,) from ``run_weights``.
        n: how many to name; only pairs that pushed against the targets in sum are.
    """
    ids, variant = products.pair_ids, products.best
    at = np.flatnonzero(np.isin(ids, targets))
    lengths = products.norms[variant][at]
    scaled = np.divide(1.0, lengths, out=np.zeros(len(at)), where=lengths > 0.0)
    total = (products.kernel[variant][at].T.astype(float) @ scaled) * alpha
    own = np.isin(ids[products.train], targets)
    total[own] = np.inf
    order = np.argsort(total, kind="stable")[:n]
    return ids[products.train][order[total[order] < 0.0]]
