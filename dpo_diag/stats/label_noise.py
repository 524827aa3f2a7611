"""How likely labels are wrong, from margins alone: Hölder's weight and share, RE-PO's posterior.

The formulas of the variants ``holder_dpo`` and ``re_po``, here for arrays and after training:
margins are rewards, ``p = sigmoid(margin)`` is the model's own belief in a label. All of it takes
the model for the judge: none of it can tell a wrong label from a right one that the model gets
wrong. Start reading at ``posterior``.
"""

import numpy as np
from scipy import special

FIT_UP_TO = 20_000  # labels that a scale is fitted to: it needs no more to be known to a per cent
EDGE = 1e-4  # reliabilities stay so far from 0 and 1, as in training


def holder_weight(margins: np.ndarray, g: float = 2.0) -> np.ndarray:
    """Pull of each pair on the loss of Hölder-DPO, ``g (1 + g) p^g (1 - p)^2``, (n,).

    It vanishes for pairs that are right with certainty and for pairs that are wrong with
    certainty; a reversed pair of small weight is an outlier. By hand, g = 2: p = 1/2 has 3/8.

    Source: Fujisawa et al. 2025, arXiv 2505.17859 (as in the variant).
    """
    p = special.expit(np.asarray(margins, float))
    return g * (1.0 + g) * p**g * (1.0 - p) ** 2


def mislabelled_share(margins: np.ndarray, g: float = 2.0) -> float:
    """``1 - mean(p) * sum p^g / sum p^(1 + g)``, the estimate of the share of wrong labels.

    0 for equal p whatever their value; by hand p = 1, 1, 1, 0 gives 1/4. NaN without pairs.

    Source: arXiv 2505.17859, second-hand and partly from memory (as in the variant).
    """
    if not len(margins):
        return float("nan")
    log_p = special.log_expit(np.asarray(margins, float))
    log_p = log_p - log_p.max()  # the quotient of sums needs no more, and cannot underflow
    p = special.expit(np.asarray(margins, float))
    quotient = np.exp(g * log_p).sum() / np.exp((1.0 + g) * log_p).sum() / p.max()
    return float(np.clip(1.0 - p.mean() * quotient, 0.0, 1.0))


def outliers(margins: np.ndarray, g: float = 2.0) -> np.ndarray:
    """The pairs of lowest p, as many as ``mislabelled_share`` says (rounded down), (n,) bool.

    Pairs with the margin of the last one in go in or stay out together: out.

    Source: arXiv 2505.17859: the estimated share of lowest p is taken for mislabelled.
    """
    margins = np.asarray(margins, float)
    if not len(margins):
        return np.zeros(0, bool)
    n = int(np.floor(mislabelled_share(margins, g) * len(margins) + 1e-9))
    return margins < np.sort(margins)[n] if n < len(margins) else np.ones(len(margins), bool)


def posterior(
    margins: np.ndarray, annotators: np.ndarray, *, start: float = 0.9, rounds: int = 500
) -> tuple[np.ndarray, np.ndarray]:
    """RE-PO's expectation-maximisation on fixed margins, to its end.

    ``w = p eta_k / (p eta_k + (1 - p)(1 - eta_k))`` and ``eta_k`` the mean of w over annotator k's
    labels, in turns; the likelihood is concave in eta, so the end does not depend on the start.
    Weak margins (all p near 1/2) push eta to 0 or 1: what is known of annotators is known only up
    to how sharp the model's beliefs are.

    By hand, one step from .9: margin .5 has p = .622459 and w = .936863.

    Args:
        margins: (n,) rewards, chosen minus rejected.
        annotators: (n,) codes 0 .. K-1.
        start: reliability of all before the first step.
        rounds: steps at most.

    Returns:
        w, the chance that each label is right, (n,), and the reliabilities, (K,).

    Source: Cao et al., ICLR 2026, arXiv 2509.24159, E-step and M-step (as in the variant).
    """
    margins, codes = np.asarray(margins, float), np.asarray(annotators, int)
    counts = np.bincount(codes) if len(codes) else np.zeros(0)
    eta = np.full(len(counts), start)
    weight = np.zeros(len(margins))
    for _ in range(rounds):
        weight = special.expit(margins + special.logit(eta)[codes])
        new = np.bincount(codes, weights=weight, minlength=len(eta)) / np.maximum(counts, 1)
        new = np.clip(new, EDGE, 1.0 - EDGE)
        moved = float(np.abs(new - eta).max()) if len(eta) else 0.0
        eta = new
        if moved < 1e-7:
            break
    return weight, eta


def fitted_scale(margins: np.ndarray, annotators: np.ndarray) -> float:
    """The factor on margins under which labels are likeliest, with a reliability per annotator.

    Rewards carry the beta of training, not the model's own sureness: at beta .03 all p are near
    1/2 and every annotator looks perfect. The model fitted is a logistic curve with a lapse rate
    per annotator, by search over factors from 1/100 to 1,000 (then refined); the reliabilities at
    each are those of ``posterior``. Beyond ``FIT_UP_TO`` labels evenly spaced ones are used. On
    training pairs the margins have seen the labels, so labels look better than they are.

    Returns:
        NaN without pairs or where no margin differs from 0.
    """
    every = max(1, -(-len(margins) // FIT_UP_TO))
    margins = np.asarray(margins, float)[::every]
    codes = np.asarray(annotators, int)[::every]
    if not np.any(margins):
        return float("nan")
    unit = float(np.median(np.abs(margins[margins != 0.0])))
    grid = np.geomspace(1e-2, 1e3, 26) / unit
    for _ in range(2):
        values = [_likelihood(margins * factor, codes) for factor in grid]
        best = int(np.argmax(values))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        grid = np.geomspace(low, high, 9)
    return float(grid[int(np.argmax([_likelihood(margins * f, codes) for f in grid]))])


def _likelihood(margins: np.ndarray, codes: np.ndarray) -> float:
    _, eta = posterior(margins, codes, rounds=60)
    p, reliability = special.expit(margins), eta[codes]
    return float(np.log(reliability * p + (1.0 - reliability) * (1.0 - p)).sum())
