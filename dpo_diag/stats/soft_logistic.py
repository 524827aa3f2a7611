"""Logistic regression on probabilities instead of labels, its point held inside a ball.

``min over |w| <= R of sum_i s_i * CE(p_i, sigmoid(scale * x_i . w))`` with CE the cross-entropy.
Start reading at ``best_point``.
"""

from typing import NamedTuple

import numpy as np
from scipy import linalg, optimize, special
from scipy.sparse import linalg as splinalg

_NEWTON_STEPS, _SETTLED, _HALVINGS = 200, 1e-12, 60
_SMALL = 300  # dimensions up to which a matrix is solved outright


class SoftLabels(NamedTuple):
    """What the regression is on.

    Attributes:
        shares: (n,) weight of each row, 0 or more.
        probabilities: (n,) wanted, in [0, 1].
        scale: of the score, above 0.
    """

    shares: np.ndarray
    probabilities: np.ndarray
    scale: float


def best_point(
    features: np.ndarray, labels: SoftLabels, max_norm: float
) -> tuple[np.ndarray, float]:
    """The best point of this length or less, (r,), and the multiplier of the bound.

    The multiplier ``u`` is that of the penalty ``u / 2 * |w|^2`` with the same optimum; 0 where
    the bound does not bind.

    Args:
        features: (n, r) rows.
        labels: weights and probabilities.
        max_norm: longest length, above 0; infinity for none, and then some hundreds of dimensions
            at most.

    Raises:
        ValueError: a probability of 0 or 1 without a bound, or no optimum was found.
    """
    start = np.zeros(features.shape[1])
    if np.isinf(max_norm):
        used = labels.probabilities[labels.shares > 0.0]
        if ((used <= 0.0) | (used >= 1.0)).any():  # a slope below rounding is no optimum
            raise ValueError("Labels of 0 or 1 may have no finite optimum; give a bound.")
        return _newton(features, labels, 0.0, start), 0.0
    wanted = labels.shares * (0.5 - labels.probabilities)
    most = labels.scale * float(np.linalg.norm(features.T @ wanted)) / max_norm
    if most == 0.0:
        return start, 0.0
    reached = {"point": start}  # each search starts where the last one ended

    def excess(log_multiplier: float) -> float:
        multiplier = float(np.exp(log_multiplier))
        reached["point"] = _newton(features, labels, multiplier, reached["point"])
        return float(np.linalg.norm(reached["point"])) - max_norm

    high = float(np.log(most)) + 1e-9  # there the length is at most the bound
    low, last = high, -max_norm
    for _ in range(_HALVINGS):
        low -= 1.0
        now = excess(low)
        if now > 0.0:
            break
        if now - last <= 1e-11 * (now + max_norm):
            return reached["point"], 0.0  # a smaller penalty changes nothing: it does not bind
        last = now
    else:
        return reached["point"], 0.0
    multiplier = float(np.exp(optimize.brentq(excess, low, high, xtol=1e-13, rtol=1e-13)))
    return _newton(features, labels, multiplier, reached["point"]), multiplier


def curvature(features: np.ndarray, labels: SoftLabels, point: np.ndarray) -> np.ndarray:
    """(r, r) second derivative of the loss at a point."""
    weights = _weights(features, labels, point)
    return features.T @ (weights[:, None] * features)


def _weights(features: np.ndarray, labels: SoftLabels, point: np.ndarray) -> np.ndarray:
    chance = special.expit(labels.scale * (features @ point))
    return labels.scale**2 * labels.shares * chance * (1.0 - chance)


def _newton(
    features: np.ndarray, labels: SoftLabels, multiplier: float, start: np.ndarray
) -> np.ndarray:
    """Minimum of the loss plus ``multiplier / 2 * |w|^2``, by Newton's method with halved steps."""
    shares, p, scale = labels

    def loss(point: np.ndarray) -> float:
        scores = scale * (features @ point)
        fit = shares @ (np.logaddexp(0.0, scores) - p * scores)
        return float(fit + 0.5 * multiplier * point @ point)

    point, value = start, loss(start)
    size_of = scale * float(np.sqrt(shares @ np.sum(features**2, axis=1))) if len(start) else 0.0
    for _ in range(_NEWTON_STEPS):
        chance = special.expit(scale * (features @ point))
        slope = features.T @ (scale * shares * (chance - p)) + multiplier * point
        if np.linalg.norm(slope) <= _SETTLED * size_of:
            return point
        step = -_newton_step(features, _weights(features, labels, point), multiplier, slope)
        size, slack = 1.0, 1e-14 * (1.0 + abs(value))  # near the minimum only rounding is left
        while loss(point + size * step) > value + slack and size > 1e-12:
            size /= 2.0
        point = point + size * step
        value = loss(point)
    raise ValueError("No finite optimum was found; bound the length of the point.")


def _newton_step(
    features: np.ndarray, weights: np.ndarray, multiplier: float, slope: np.ndarray
) -> np.ndarray:
    """``(features.T W features + multiplier)^-1 slope``; no matrix is made where a penalty helps.

    Without one, directions that no row with a weight sees stay at 0 through the pseudo-inverse.
    """
    if not multiplier:
        return linalg.pinvh(features.T @ (weights[:, None] * features)) @ slope
    if len(slope) <= _SMALL:
        matrix = features.T @ (weights[:, None] * features) + multiplier * np.eye(len(slope))
        return linalg.solve(matrix, slope, assume_a="pos")
    operator = splinalg.LinearOperator(
        (len(slope), len(slope)),
        matvec=lambda v: features.T @ (weights * (features @ v)) + multiplier * v,
    )
    step, _ = splinalg.cg(operator, slope, rtol=1e-8, maxiter=2000)
    return step  # a rough step costs another one, not the answer
