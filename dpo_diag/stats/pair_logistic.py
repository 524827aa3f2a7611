"""A logistic model of which answer is chosen, from the answers' features, on held-out prompts.

Says how well something simple can do. Knows arrays only. Start reading at ``held_out_scores``.
"""

import numpy as np
from scipy import optimize, sparse, special

MAX_STEPS = 60  # of L-BFGS; far more than a penalised fit of this kind takes


def fit_pair_logistic(differences: sparse.csr_array, *, penalty: float = 1.0) -> np.ndarray:
    """Weights that maximise ``sum log sigma(w . d_i) - penalty / 2 |w|^2``.

    The label of every row is "the first answer", so there is no intercept: exchanging the answers
    turns the sign of the score.

    Args:
        differences: (n, F) features of the chosen answer less those of the rejected one.
        penalty: of the squared weights, above 0; 1 is a standard normal prior.

    Returns:
        (F,) weights; zeros for no rows.
    """
    n, n_features = differences.shape
    if not n or not n_features:
        return np.zeros(n_features)
    turned = differences.T.tocsr()

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = differences @ weights
        value = -special.log_expit(scores).sum() + penalty / 2 * weights @ weights
        return float(value), penalty * weights - turned @ special.expit(-scores)

    start = np.zeros(n_features)
    options = {"maxiter": MAX_STEPS}
    return optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x


def held_out_scores(
    differences: sparse.csr_array,
    clusters: np.ndarray,
    *,
    rng: np.random.Generator,
    n_folds: int = 5,
    penalty: float = 1.0,
) -> np.ndarray:
    """Score of each row under weights fitted to rows of other clusters, (n,).

    Positive where the chosen answer is predicted, 0 where the model cannot tell; NaN with fewer
    than two clusters.

    Args:
        differences: (n, F) as in ``fit_pair_logistic``.
        clusters: (n,) prompt of each row; a prompt is in one fold only.
        rng: deals the prompts out to folds.
        n_folds: at most the number of clusters.
        penalty: as in ``fit_pair_logistic``.
    """
    _, codes = np.unique(clusters, return_inverse=True)
    n_clusters = int(codes.max()) + 1 if len(codes) else 0
    scores = np.full(len(codes), np.nan)
    if n_clusters < 2:
        return scores
    folds = rng.permutation(np.arange(n_clusters) % min(n_folds, n_clusters))[codes]
    for fold in range(folds.max() + 1):
        held = folds == fold
        weights = fit_pair_logistic(differences[~held], penalty=penalty)
        scores[held] = differences[held] @ weights
    return scores
