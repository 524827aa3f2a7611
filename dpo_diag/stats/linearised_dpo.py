"""DPO in the tangent space: what the training pairs together do to every margin, pair by pair.

With the gradient of a pair's margin at the reference, ``g_i = grad (log pi(chosen) - log
pi(rejected))``, a small parameter change ``delta`` moves the margin to ``m_i = <g_i, delta>``. The
DPO loss is then a logistic regression in ``delta``, and gradient descent on it needs the Gram
matrix ``K_ij = <g_i, g_j>`` only: after any number of steps ``m_i = sum_j alpha_j K_ij``, so each
training pair j has pushed the margin of i by ``alpha_j K_ij``.

Signatures::

    descend(kernel, settings, *, eval_kernel=None, weights=None) -> Prediction
    pushes(eval_kernel, alpha) -> (n_eval, n_train)
    strongest_pushes(eval_kernel, alpha, *, eval_norms, train_norms, n_each=100) -> Pushes
    stable_learning_rate(kernel, beta, *, weights=None) -> float

Kernels are of plain or sketched gradients; of preconditioned ones, ``<P^(1/2) g_i, P^(1/2) g_j>``,
they describe the preconditioned descent (Adam with its second moments held still), and the length
of ``delta`` is then that of ``P^(-1/2) delta``.

Misleads: the features are those of the reference, so the further a run moves, the less it holds
(compare the norm with the run's own); real runs have batches, momentum, a schedule and clipping.
At a small ``beta * m`` every pair still pushes with nearly its full weight and the prediction is
little more than a sum of inner products; what the logistic loss adds shows once pairs are fitted.
The stop matters more than the learning rate: take the run's norm or its mean margin.

Source: arXiv 2510.20413, section on local geometry, for the linear class; the descent is ours.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special


@dataclass(frozen=True)
class Settings:
    """How the descent is run and where it ends: at the first of the three stops.

    Attributes:
        beta: of DPO, above 0.
        steps: most steps, each over all training pairs.
        learning_rate: of the mean loss; None for a tenth of ``stable_learning_rate``: small enough
            that where the descent stops, not how it steps, decides the margins.
        label_smoothing: share of labels taken for wrong, in [0, 1/2); 0 is DPO, else cDPO.
        max_norm: stop where the length of ``delta`` reaches it, e.g. what the run itself moved.
        mean_margin: stop where the mean margin of the training pairs reaches it, nats (a reward
            margin over beta).
    """

    beta: float
    steps: int = 500
    learning_rate: float | None = None
    label_smoothing: float = 0.0
    max_norm: float = np.inf
    mean_margin: float = np.inf

    def __post_init__(self) -> None:
        if not (self.beta > 0.0 and np.isfinite(self.beta)):
            raise ValueError(f"beta must be above 0 and finite, got {self.beta}.")
        if self.steps < 1:
            raise ValueError(f"steps must be 1 or more, got {self.steps}.")
        if self.learning_rate is not None and not self.learning_rate > 0.0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}.")
        if not 0.0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing must be in [0, .5), got {self.label_smoothing}.")
        if not (self.max_norm > 0.0 and self.mean_margin > 0.0):
            raise ValueError("max_norm and mean_margin must be above 0.")


class Prediction(NamedTuple):
    """Where the descent ended.

    Attributes:
        train_margins: (n_train,) nats.
        eval_margins: (n_eval,) nats; empty without a kernel of evaluated pairs.
        alpha: (n_train,) what each training pair has pushed; a margin is ``kernel row @ alpha``.
        norm: length of ``delta``, ``sqrt(alpha @ kernel @ alpha)``.
        steps: steps taken, the last one cut at the stop.
        stopped_by: ``norm``, ``mean margin`` or ``steps``.
    """

    train_margins: np.ndarray
    eval_margins: np.ndarray
    alpha: np.ndarray
    norm: float
    steps: float
    stopped_by: str


class Pushes(NamedTuple):
    """The strongest pushes on each pair, both ways, as long columns of one length.

    Attributes:
        pair, train_pair: positions of the pushed and of the pushing pair.
        push: nats; negative turns the pair round.
        cosine: of the two pairs' gradients; NaN where one is 0.
        share: of all negative pushes on the pair, in (0, 1]; NaN for a push that is not negative.
    """

    pair: np.ndarray
    train_pair: np.ndarray
    push: np.ndarray
    cosine: np.ndarray
    share: np.ndarray


def descend(
    kernel: np.ndarray,
    settings: Settings,
    *,
    eval_kernel: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> Prediction:
    """Gradient descent on the DPO loss of the training pairs in the tangent space, from 0.

    Args:
        kernel: (n, n) Gram matrix of the training pairs' gradients, nats^2 per parameter^2; any
            floating-point type, products are taken in it.
        settings: beta, steps and stops.
        eval_kernel: (n_eval, n) products of the evaluated pairs with the training pairs.
        weights: (n,) weight of each training pair, 0 or more; None for equal ones. Their sum is
            made 1.

    Returns:
        Margins, weights and stop; the last step is cut so that a norm or mean margin is met
        exactly.

    Raises:
        ValueError: shapes do not fit, a kernel holds a value that is not finite, or the steps grow
            without bound (a learning rate that is too large).
    """
    shares = _shares(kernel, weights)
    if eval_kernel is not None and eval_kernel.shape[1:] != kernel.shape[:1]:
        raise ValueError(f"eval_kernel of shape {eval_kernel.shape} for {len(kernel)} pairs.")
    beta, wanted = settings.beta, 1.0 - settings.label_smoothing
    rate = settings.learning_rate or 0.1 * stable_learning_rate(kernel, beta, weights=weights)
    alpha, margins = np.zeros(len(kernel)), np.zeros(len(kernel))
    taken, stopped_by = 0.0, "steps"
    for _ in range(settings.steps if rate > 0.0 else 0):
        step = rate * beta * shares * (wanted - special.expit(beta * margins))
        moved = _product(kernel, step)
        part, reason = _until(alpha, margins, step, moved, settings)
        alpha, margins, taken = alpha + part * step, margins + part * moved, taken + part
        if not np.isfinite(margins).all():
            raise ValueError(f"The descent runs away; take a learning rate below {rate:g}.")
        if reason:
            stopped_by = reason
            break
    evaluated = np.zeros(0) if eval_kernel is None else _product(eval_kernel, alpha)
    norm = float(np.sqrt(max(alpha @ margins, 0.0)))
    return Prediction(margins, evaluated, alpha, norm, taken, stopped_by)


def stable_learning_rate(
    kernel: np.ndarray, beta: float, *, weights: np.ndarray | None = None
) -> float:
    """Learning rate at which every step lowers the loss: one over its largest curvature.

    The curvature of the mean loss is at most ``beta^2 / 4`` times the largest eigenvalue of the
    weighted Gram matrix, found here by power iteration and rounded up by a tenth.

    Args:
        kernel: (n, n) Gram matrix.
        beta: of DPO.
        weights: (n,) as in ``descend``.

    Returns:
        The rate; 0 where every gradient is 0.
    """
    root = np.sqrt(_shares(kernel, weights))
    vector, largest = root * np.sqrt(np.maximum(np.diagonal(kernel), 0.0)), 0.0
    vector = vector + 1e-3 * np.abs(vector).max(initial=0.0) * np.cos(np.arange(len(vector)))
    for _ in range(50):
        length = float(np.linalg.norm(vector))
        if length == 0.0:
            return 0.0
        vector = root * _product(kernel, root * (vector / length))
        largest = max(largest, float(np.linalg.norm(vector)))
    return 4.0 / (beta**2 * 1.1 * largest) if largest > 0.0 else 0.0


def pushes(eval_kernel: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """What each training pair has done to each margin, (n_eval, n_train) nats; rows sum to it.

    Args:
        eval_kernel: (n_eval, n_train) products of gradients.
        alpha: (n_train,) from ``descend``.
    """
    return np.asarray(eval_kernel) * np.asarray(alpha)


def strongest_pushes(
    eval_kernel: np.ndarray,
    alpha: np.ndarray,
    *,
    eval_norms: np.ndarray,
    train_norms: np.ndarray,
    n_each: int = 100,
) -> Pushes:
    """The training pairs that pushed each pair hardest, down and up; rows of ``PairConflicts``.

    Worked row by row, so no second matrix of all pairs is made.

    Args:
        eval_kernel: (n_eval, n_train) products of gradients.
        alpha: (n_train,) from ``descend``.
        eval_norms: (n_eval,) lengths of the pushed pairs' gradients, for the cosines.
        train_norms: (n_train,) of the pushing pairs'.
        n_each: at most so many each way and pair; pushes of 0 are left out.

    Returns:
        Ordered by pair, then from the most negative push to the most positive; equal pushes in
        order of the training pair.
    """
    found: list[tuple[np.ndarray, ...]] = []
    for pair, products in enumerate(eval_kernel):
        push = np.asarray(products, float) * alpha
        order = np.argsort(push, kind="stable")
        down = order[: min(n_each, int(np.count_nonzero(push < 0.0)))]
        n_up = min(n_each, int(np.count_nonzero(push > 0.0)))
        kept = np.concatenate([down, order[len(order) - n_up :]])
        lengths = eval_norms[pair] * train_norms[kept]
        cosine = np.divide(products[kept], lengths, out=np.full(len(kept), np.nan),
                           where=lengths > 0.0)  # fmt: skip
        negative = float(np.minimum(push, 0.0).sum())
        share = np.where(push[kept] < 0.0, push[kept] / (negative or np.nan), np.nan)
        found.append((np.full(len(kept), pair), kept, push[kept], cosine, share))
    if not found:
        nothing = np.zeros(0)
        return Pushes(nothing.astype(int), nothing.astype(int), nothing, nothing, nothing)
    return Pushes(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _until(
    alpha: np.ndarray,
    margins: np.ndarray,
    step: np.ndarray,
    moved: np.ndarray,
    settings: Settings,
) -> tuple[float, str]:
    """Part of the step, in (0, 1], at which a stop is met, and which; 1 and empty for none."""
    part, reason = 1.0, ""
    if np.isfinite(settings.max_norm):
        # |delta|^2 along the step: square * t^2 + 2 * slope * t + now
        square, slope = float(step @ moved), float(step @ margins)
        left = settings.max_norm**2 - float(alpha @ margins)
        if square + 2.0 * slope >= left:
            root = np.sqrt(max(slope**2 + square * left, 0.0))
            part, reason = max(left, 0.0) / (slope + root), "norm"  # the stable form of the root
    if np.isfinite(settings.mean_margin):
        gain, left = float(moved.mean()), settings.mean_margin - float(margins.mean())
        if gain >= left and left < part * gain:
            part, reason = max(left, 0.0) / gain, "mean margin"
    return min(part, 1.0), reason


def _product(kernel: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Kernel times vector in the kernel's own type: a copy of a large kernel costs too much."""
    return (kernel @ vector.astype(kernel.dtype)).astype(float)


def _shares(kernel: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    n = len(kernel)
    if kernel.ndim != 2 or kernel.shape != (n, n) or not n:
        raise ValueError(f"A Gram matrix is square and not empty, got shape {kernel.shape}.")
    if not np.isfinite(kernel.sum(dtype=float)):
        raise ValueError("The Gram matrix holds a value that is not finite.")
    given = np.ones(n) if weights is None else np.asarray(weights, float)
    if given.shape != (n,) or not (np.isfinite(given).all() and (given >= 0).all()):
        raise ValueError(f"weights must be {n} finite values of 0 or more.")
    if not given.any():
        raise ValueError("weights must not all be 0.")
    return given / given.sum()
