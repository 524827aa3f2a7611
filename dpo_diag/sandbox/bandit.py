"""Three responses and one parameter: the smallest world in which DPO turns a preference round.

One prompt, responses a1, a2, a3 with gold rewards 1, 2, 0, a uniform reference and the policies
``softmax([theta, -theta, 0])``. No policy of this class raises a1 and a2 together, though both are
better than a3; so a preference of a1 over a3, compared often enough, is bought by putting a1 above
the better a2. Preferences are exact (Bradley-Terry in the gold reward, infinitely many labels), so
nothing here is noise, bad optimisation or missing data.

Start reading at ``Counts``; ``dpo_diag.training.population`` has the optimum of each variant.

Source: arXiv 2510.20413 (AuxDPO), its didactic example, main text read. The counts of ``SETTINGS``
are ours; at 1:1:10 they give the rewards that its appendix is said to report (second-hand).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dpo_diag.errors import DataError

RESPONSES = ("a1", "a2", "a3")
GOLD = np.array([1.0, 2.0, 0.0])  # the paper's [2, 3, 1] less 1: only differences count
FEATURES = np.array([1.0, -1.0, 0.0])  # gradient of each response's log-prob at theta 0
REFERENCE = np.full(3, 1.0 / 3.0)
PAIRS = ((0, 1), (1, 2), (0, 2))  # in the order of ``Counts``

# half of the interval in which optima are looked for, and the narrowing of one look
_REACH, _POINTS, _LOOKS = 8.0, 401, 6


@dataclass(frozen=True)
class Counts:
    """How often each pair is compared; only ratios matter.

    Attributes:
        n_12, n_23, n_13: comparisons of the two responses, 0 or more, at least one above 0.
    """

    n_12: float
    n_23: float
    n_13: float

    def __post_init__(self) -> None:
        values = np.array([self.n_12, self.n_23, self.n_13])
        if not (np.isfinite(values).all() and (values >= 0).all() and values.any()):
            raise DataError(
                f"bandit: counts must be finite, 0 or more and not all 0, got {values.tolist()}."
            )

    def __str__(self) -> str:
        return f"{self.n_12:g}:{self.n_23:g}:{self.n_13:g}"


#: even; then (a1, a3) ever more often; then (a1, a2) most of the time
SETTINGS = (
    Counts(1, 1, 1),
    Counts(1, 1, 5),
    Counts(1, 1, 10),
    Counts(1, 1, 100),
    Counts(100, 1, 1),
)


@dataclass(frozen=True)
class Comparisons:
    """Every ordered pair of the population with its weight.

    Attributes:
        chosen, rejected: (6,) int64, positions in ``RESPONSES``.
        weight: (6,) how often the pair is compared and labelled this way round; sums to 1.
    """

    chosen: np.ndarray
    rejected: np.ndarray
    weight: np.ndarray


def comparisons(counts: Counts) -> Comparisons:
    """The population of labelled pairs: ``n_ij * sigmoid(r_i - r_j)`` that i is preferred to j."""
    first, second = np.array(PAIRS).T
    n = np.array([counts.n_12, counts.n_23, counts.n_13], dtype=float)
    p = preference(first, second)
    weight = np.concatenate([n * p, n * (1.0 - p)]) / n.sum()
    return Comparisons(np.concatenate([first, second]), np.concatenate([second, first]), weight)


def preference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Probability that the first response is preferred to the second, by their gold rewards."""
    return 1.0 / (1.0 + np.exp(GOLD[second] - GOLD[first]))


def log_policy(theta: np.ndarray | float) -> np.ndarray:
    """Log-probs of the three responses, shape (..., 3), nats."""
    logits = np.asarray(theta, dtype=float)[..., None] * FEATURES
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def policy(theta: np.ndarray | float) -> np.ndarray:
    """Mass of the three responses, shape (..., 3)."""
    return np.exp(log_policy(theta))


def expected_reward(theta: np.ndarray | float) -> np.ndarray:
    """Expected gold reward of the policy, shape (...); 1 for the reference."""
    return policy(theta) @ GOLD


def reversal_slope(counts: Counts) -> float:
    """Minus the slope of the population DPO loss at the reference, per unit of ``beta * theta``.

    Positive if and only if DPO's optimum has theta above 0, that is, puts a1 above the better a2:
    the loss is convex. In numbers ``.23106 n_13 - .46212 n_12 - .38080 n_23``; the sign is the
    same for IPO.
    """
    first, second = np.array(PAIRS).T
    n = np.array([counts.n_12, counts.n_23, counts.n_13], dtype=float)
    moved = FEATURES[first] - FEATURES[second]  # of the implicit margin, per unit
    return float((n * moved * (preference(first, second) - 0.5)).sum())


def reversal_threshold(n_12: float, n_23: float) -> float:
    """The ``n_13`` above which DPO and IPO put a1 above a2; 3.648 for one comparison of each."""
    per_13 = reversal_slope(Counts(0, 0, 1))
    return -reversal_slope(Counts(n_12, n_23, 0)) / per_13


def null_space() -> np.ndarray:
    """Orthonormal basis of the offsets that the policy gradient does not see, shape (3, 2).

    The null space of ``A_rho``, the row of each response's reference mass times its feature: here
    all offsets with ``delta_1 = delta_2``.
    """
    row = (REFERENCE * FEATURES)[None, :]
    _, values, basis = np.linalg.svd(row)
    rank = int((values > 1e-12).sum())
    return basis[rank:].T


def local_solution(beta: float) -> float:
    """Theta of two-stage RLHF to first order in ``1 / beta``: ``pinv(F) A_rho r / beta``, -1/2.

    Source: arXiv 2510.20413, equation 5.
    """
    fisher = float((REFERENCE * FEATURES**2).sum())
    return float((REFERENCE * FEATURES) @ GOLD) / fisher / beta


def kl_optimum(beta: float) -> float:
    """Theta that maximises expected gold reward less ``beta`` times KL to the reference, exactly.

    At beta 1 it is -.995, far from the local solution's -.5: what holds for large beta is no
    statement about the usual 0.1.
    """

    def objective(theta: np.ndarray) -> np.ndarray:
        logp = log_policy(theta)
        kl = (np.exp(logp) * (logp - np.log(REFERENCE))).sum(-1)
        return beta * kl - expected_reward(theta)

    return least(objective)


def least(objective: Callable[[np.ndarray], np.ndarray]) -> float:
    """Theta of the least value of a function of one parameter, by looking ever closer.

    A first look over the whole interval finds the right valley; kinks do no harm.

    Args:
        objective: maps (n,) thetas to (n,) values.
    """
    middle, reach = 0.0, _REACH
    for _ in range(_LOOKS):
        points = np.linspace(middle - reach, middle + reach, _POINTS)
        middle = float(points[np.argmin(objective(points))])
        reach *= 4.0 / (_POINTS - 1)
    return middle
