"""DPO's answer in a policy class that cannot express the truth, to first order at the reference.

With infinitely many labels DPO minimises ``sum_i n_i KL(p_i || sigmoid(beta m_i))`` over the
margins that its class can make (Bernoulli divergences; ``n_i`` how often pair i is compared,
``p_i`` how often its first answer is truly preferred). If the class can make all of
``logit(p_i) / beta``, the counts do not matter; if not, they decide which pairs come out right.
Near the reference the class is linear: ``m_i = <g_i, delta>``, known through the Gram matrix of the
pairs' gradients ``g_i``.

Signatures::

    dpo_solution(kernel, population) -> Solution;  Population(counts, preferences, beta, max_norm)
    frequency_sensitivity(solution) -> (n, n), d margin_i / d log count_j
    reversed_pairs(solution) -> (n,) bool
    turning_factor(solution, sensitivity) -> (n,)
    redraw_spread(sensitivity, counts, *, clusters=None) -> (n,)
    frequency_threshold(kernel, population, *, pair, moved) -> float
    rlhf_log_ratios(cell_kernel, mass, rewards, beta) -> (M,)
    pair_kernel(cell_kernel, first, second) -> (n, n)

Misleads: it is about the *optimum*: a run that stops early, or whose learning rate is small, is
nearer to ``linearised_dpo``. All guarantees of the theory are for large beta (small changes); at
the usual 0.1 a policy moves far beyond the linear class, and "RLHF's local solution" is not RLHF's.
A full-parameter class expresses nearly every margin and then predicts no reversal at all: bound its
length by what the run moved (``max_norm``), or take the gradients of a smaller class.

Source: arXiv 2510.20413 (AuxDPO), Proposition 1 and equation 5; the sensitivities are the implicit
function theorem applied to the former.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import linalg, optimize, special

from dpo_diag.stats.expressible import spectrum
from dpo_diag.stats.soft_logistic import SoftLabels, best_point, curvature


@dataclass(frozen=True)
class Population:
    """What is compared, and what is true.

    Attributes:
        counts: (n,) how often each pair is compared, 0 or more; only ratios matter. A pair with
            count 0 is predicted, not fitted.
        preferences: (n,) true probability that the pair's first answer is preferred, in [0, 1];
            strictly inside for the pairs that are compared, unless ``max_norm`` is finite.
        beta: of DPO, above 0.
        max_norm: longest parameter change, above 0.
    """

    counts: np.ndarray
    preferences: np.ndarray
    beta: float
    max_norm: float = np.inf

    def __post_init__(self) -> None:
        counts, p = np.asarray(self.counts, float), np.asarray(self.preferences, float)
        if counts.ndim != 1 or counts.shape != p.shape:
            raise ValueError(f"counts of shape {counts.shape}, preferences of {p.shape}.")
        if not (np.isfinite(counts).all() and (counts >= 0).all() and counts.any()):
            raise ValueError("counts must be finite, 0 or more and not all 0.")
        if not ((p >= 0) & (p <= 1)).all():
            raise ValueError("preferences must be probabilities.")
        if not (self.beta > 0 and self.max_norm > 0):
            raise ValueError("beta and max_norm must be above 0.")
        used = p[counts > 0]
        if np.isinf(self.max_norm) and ((used == 0) | (used == 1)).any():
            raise ValueError(
                "A preference of 0 or 1 has no finite optimum; give max_norm, or shares inside."
            )


class Solution(NamedTuple):
    """DPO's optimum in the linear class.

    Attributes:
        margins: (n,) nats; times beta, the reward margins.
        norm: length of the parameter change.
        multiplier: of the bound on the squared length's half; 0 where it does not bind.
        population: what was solved.
        coordinates: (n, r) features behind the kernel.
        point: (r,) the optimum in them.
    """

    margins: np.ndarray
    norm: float
    multiplier: float
    population: Population
    coordinates: np.ndarray
    point: np.ndarray


def dpo_solution(kernel: np.ndarray, population: Population) -> Solution:
    """The population DPO optimum within the linear class.

    Without a bound for hundreds of pairs; with one that binds for thousands (3,142 take half a
    minute on one core).

    Args:
        kernel: (n, n) Gram matrix of the pairs' gradients; any rank.
        population: counts, true preferences, beta and the longest change.

    Returns:
        Margins of every pair, those with count 0 too.

    Raises:
        ValueError: shapes do not fit, or no optimum was found.
    """
    if len(kernel) != len(population.counts):
        raise ValueError(f"{len(population.counts)} counts for {len(kernel)} pairs.")
    features = spectrum(kernel).coordinates
    point, multiplier = best_point(features, _labels(population), population.max_norm)
    margins = features @ point
    return Solution(margins, float(np.linalg.norm(point)), multiplier, population, features, point)


def reversed_pairs(solution: Solution) -> np.ndarray:
    """(n,) true where the optimum prefers the answer that is truly dispreferred.

    A margin within 1e-9 of the largest is a tie, and so is a preference of one half.
    """
    p = np.asarray(solution.population.preferences, float)
    slack = 1e-9 * float(np.abs(solution.margins).max(initial=0.0))
    sides = np.where(np.abs(solution.margins) > slack, np.sign(solution.margins), 0.0)
    return sides * np.sign(p - 0.5) < 0.0


def frequency_sensitivity(solution: Solution) -> np.ndarray:
    """(n, n) how margin i (row) moves with the log of the count of pair j (column), nats.

    ``d w / d log n_j = -H^-1 n_j grad loss_j`` with H the curvature at the optimum; with a bound
    on the length that binds, w moves along the sphere. A column of a pair that the class fits
    exactly is 0: counts matter only where something cannot be expressed. Scaling all counts
    changes nothing, so every row sums to 0.
    """
    population, features = solution.population, solution.coordinates
    labels = _labels(population)
    chance = special.expit(labels.scale * solution.margins)
    weights = labels.scale * labels.shares * (chance - labels.probabilities)
    pulls = (features * weights[:, None]).T  # (r, n), one per pair
    matrix = curvature(features, labels, solution.point)
    if not solution.multiplier:
        return -features @ (linalg.pinvh(matrix) @ pulls)
    factor = linalg.cho_factor(matrix + solution.multiplier * np.eye(len(matrix)))
    free, radial = linalg.cho_solve(factor, pulls), linalg.cho_solve(factor, solution.point)
    # the change of the multiplier that keeps the length: point . dw = 0
    along = (solution.point @ free) / (solution.point @ radial)
    return -features @ (free - radial[:, None] * along)


def turning_factor(solution: Solution, sensitivity: np.ndarray) -> np.ndarray:
    """Factor by which counts must be off, each up or down as is worst, to turn each pair's order.

    To first order, ``exp(|margin_i| / sum_j |d margin_i / d log count_j|)``. It asks for the worst
    re-weighting, so with thousands of pairs it is near 1 for most; ``redraw_spread`` asks for an
    ordinary one.

    Args:
        solution: the optimum.
        sensitivity: (n, n) from ``frequency_sensitivity``.

    Returns:
        (n,) of 1 or more; infinity where no count matters.
    """
    moved = np.abs(sensitivity).sum(axis=1)
    size = np.abs(solution.margins)
    exponent = np.divide(size, moved, out=np.full(len(size), np.inf), where=moved > 0.0)
    return np.exp(np.minimum(exponent, 700.0)) + np.where(np.isinf(exponent), np.inf, 0.0)


def redraw_spread(
    sensitivity: np.ndarray, counts: np.ndarray, *, clusters: np.ndarray | None = None
) -> np.ndarray:
    """Standard deviation of each margin if the pairs were drawn anew, Poisson around their counts.

    ``sqrt(sum_j (d margin_i / d log count_j)^2 / count_j)``, the infinitesimal jackknife. A margin
    within twice of it has an order that this data set decided by chance. With clusters whole
    prompts are drawn anew, each with all of its pairs: the root of the sum over prompts of the
    squared sum of its pairs' derivatives. Pairs that come together and pull together are few draws.

    Args:
        sensitivity: (n, n) from ``frequency_sensitivity``.
        counts: (n,) numbers of comparisons, not shares; pairs with count 0 play no part.
        clusters: (n,) prompt of each pair; None draws pairs.

    Returns:
        (n,) nats.
    """
    counts = np.asarray(counts, float)
    if clusters is not None:
        used = counts > 0.0
        _, codes = np.unique(np.asarray(clusters)[used], return_inverse=True)
        together = np.zeros((int(codes.max(initial=-1)) + 1, len(sensitivity)))
        np.add.at(together, codes, sensitivity[:, used].T)
        return np.sqrt(np.square(together).sum(axis=0))
    inverse = np.divide(1.0, counts, out=np.zeros(len(counts)), where=counts > 0.0)
    return np.sqrt(np.square(sensitivity) @ inverse)


def frequency_threshold(
    kernel: np.ndarray,
    population: Population,
    *,
    pair: int,
    moved: int,
    most: float = 1e6,
) -> float:
    """Count of the pair ``moved`` at which the margin of ``pair`` changes sign, others as they are.

    Args:
        kernel: (n, n) Gram matrix.
        population: the other pairs' counts; that of ``moved`` is not read.
        pair: whose margin.
        moved: whose count.
        most: the count is looked for between the mean of the other counts over and times this.

    Returns:
        The count; NaN where the sign is the same at both ends.
    """
    features = spectrum(kernel).coordinates
    counts = np.asarray(population.counts, float).copy()
    others = np.delete(counts, moved)
    scale = float(others[others > 0].mean()) if (others > 0).any() else 1.0

    def margin(log_count: float) -> float:
        counts[moved] = scale * np.exp(log_count)
        trial = Population(counts, population.preferences, population.beta, population.max_norm)
        point, _ = best_point(features, _labels(trial), trial.max_norm)
        return float(features[pair] @ point)

    low, high = -np.log(most), np.log(most)
    if margin(low) * margin(high) >= 0.0:
        return float("nan")
    return scale * float(np.exp(optimize.brentq(margin, low, high, xtol=1e-12, rtol=1e-12)))


def rlhf_log_ratios(
    cell_kernel: np.ndarray, mass: np.ndarray, rewards: np.ndarray, beta: float
) -> np.ndarray:
    """Log-ratio of each answer at the local solution of two-stage RLHF, first order in 1 / beta.

    ``A.T @ pinv(A D A.T) @ A D r / beta`` with a column of A for each answer's gradient and D the
    mass: the reward projected onto what the class can make, weighted by the reference. Unlike
    DPO's it does not depend on how often pairs are compared.

    Args:
        cell_kernel: (M, M) Gram matrix ``A.T @ A`` of ``grad log pi(answer | prompt)``.
        mass: (M,) chance of the prompt times the reference's probability of the answer, 0 or more.
        rewards: (M,) true rewards. A constant of a prompt drops out only where *all* answers of
            the prompt are cells; with a sample of them, subtract the prompt's mean under the mass.
        beta: weight of the divergence, above 0.

    Returns:
        (M,) nats; the margin of a pair is a difference of two.

    Source: arXiv 2510.20413, equation 5.
    """
    root = np.sqrt(np.asarray(mass, float))
    kernel = np.asarray(cell_kernel, float)
    weighted = spectrum(root[:, None] * kernel * root)
    solved = weighted.vectors @ (
        (weighted.vectors.T @ (root * np.asarray(rewards, float))) / weighted.values
    )
    return kernel @ (root * solved) / beta


def pair_kernel(cell_kernel: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n, n) Gram matrix of pairs' gradient differences from that of single answers.

    Args:
        cell_kernel: (M, M) Gram matrix of the answers' gradients.
        first: (n,) position of each pair's first answer.
        second: (n,) of its second.
    """
    rows = np.asarray(cell_kernel, float)[first] - np.asarray(cell_kernel, float)[second]
    return rows[:, first] - rows[:, second]


def _labels(population: Population) -> SoftLabels:
    counts = np.asarray(population.counts, float)
    return SoftLabels(
        counts / counts.sum(), np.asarray(population.preferences, float), population.beta
    )
