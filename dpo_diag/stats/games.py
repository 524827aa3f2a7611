"""How far a policy is from being unbeatable in a game of preferences: lower bounds with intervals.

A policy is asked how well a stated, finite set of deviations does against it. The best of them is
picked on one half of the prompts and measured on the other, both ways round, so that the maximum
does not profit from its own noise. What comes out is a lower bound in expectation: a deviation
that nobody stated may do better, and a small gap proves nothing. Knows arrays of preference
probabilities only. Start reading at ``duality_gap``; ``exploitability`` serves a table of policies,
``player_gap`` a game in which players judge by different oracles, ``best_of_n`` makes a deviation
out of the policy's own samples.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dpo_diag.stats.intervals import clustered_mean


class Gap(NamedTuple):
    """A gain from deviating, cross-fitted over two halves of the prompts.

    Attributes:
        estimate: the gain; the truth is 0 or more, so a negative estimate is noise. NaN where
            there is nothing to estimate.
        low, high: limits of the mean gain of the deviations that were picked. ``low`` is also an
            approximate lower limit of the gap; ``high`` is no upper limit of it. NaN where the
            gains do not vary, e.g. because no deviation was picked in either half.
        n_prompts: prompts behind it.
        picked: for each half, the row of the deviation that the other half picked; -1 is the
            policy itself, which gains nothing.
        method: how the interval was made, in words.
    """

    estimate: float
    low: float
    high: float
    n_prompts: int
    picked: tuple[int, ...]
    method: str


class HeldOut(NamedTuple):
    """Gains of deviations that were picked on other prompts.

    Attributes:
        values: (P,) gain at each prompt of the deviation that the other half picked.
        picked: row measured on the first half and on the second; -1 is staying, which gains 0.
    """

    values: np.ndarray
    picked: tuple[int, ...]


class BestOfN(NamedTuple):
    """The policy "best of n own samples" against the policy, prompt by prompt.

    Attributes:
        win_rate: (P,) chance that the best of n beats a sample of the policy, in [0, 1]; NaN where
            the oracle abstained on what was needed.
        chosen: (P,) index of the sample that was taken; -1 where none could be.
        n: samples it is the best of.
        kl_bound: nats, upper bound ``log n - (n - 1) / n`` of its divergence from the policy.
    """

    win_rate: np.ndarray
    chosen: np.ndarray
    n: int
    kl_bound: float


def duality_gap(
    wins: np.ndarray,
    *,
    rng: np.random.Generator,
    penalties: np.ndarray | None = None,
    level: float = 0.95,
) -> Gap:
    """Lower bound of a policy's duality gap in the symmetric two-player preference game.

    ``J(p, q) = E[P(p > q)] - tau KL(p||ref) + tau KL(q||ref)`` is constant-sum, so
    ``max_p J(p, pi) - min_p J(pi, p) = 2 max_p J(p, pi) - 1``. The maximum runs over the given
    deviations and the policy itself (``J = 1/2``). Misleads as a measure of closeness: it is as
    good as the deviations are.

    Args:
        wins: (D, P) chance that deviation d beats the policy at prompt p, in [0, 1]; NaN where it
            is not known.
        rng: splits the prompts into halves.
        penalties: (D, P) ``tau * (KL(d||ref) - KL(policy||ref))`` at the prompt; None is tau = 0.
        level: nominal coverage, in (0, 1).

    Returns:
        The gap in units of win probability, 0 to 1 without penalties; NaN for fewer than 2 prompts.

    Raises:
        ValueError: wins outside [0, 1], or shapes that do not match.

    Source: definition in MNPO, arXiv 2509.23102; estimator ours.
    """
    wins = _probabilities(wins)
    gains = 2.0 * wins - 1.0
    if penalties is not None:
        penalties = np.asarray(penalties, float)
        if penalties.shape != wins.shape:
            raise ValueError(f"penalties have shape {penalties.shape}, wins {wins.shape}.")
        gains = gains - 2.0 * penalties
    return _cross_fitted(gains, rng, level)


def player_gap(
    deviations: np.ndarray,
    own: np.ndarray,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
) -> Gap:
    """Lower bound of what one player could gain by deviating while the others stay as they are.

    ``max_p J_i(p, others) - J_i(pi_i, others)`` by the player's own oracle. In a game whose players
    judge differently the sum of what they win is not constant; this is a number per player and no
    distance to anything.

    Args:
        deviations: (D, P) chance, by the player's oracle, that deviation d beats the other
            players' answers at prompt p; NaN where it is not known.
        own: (P,) the same for the player's own policy.
        rng: splits the prompts into halves.
        level: nominal coverage, in (0, 1).

    Returns:
        The gain in win probability; NaN for fewer than 2 prompts.

    Raises:
        ValueError: values outside [0, 1], or shapes that do not match.

    Source: player-specific gaps, MNPO, arXiv 2509.23102; estimator ours.
    """
    deviations, own = _probabilities(deviations), np.asarray(own, float)
    if own.shape != deviations.shape[1:]:
        raise ValueError(f"own has shape {own.shape}, deviations {deviations.shape}.")
    return _cross_fitted(deviations - own, rng, level)


def exploitability(
    win_matrix: np.ndarray, *, rng: np.random.Generator, level: float = 0.95
) -> list[Gap]:
    """How far the best of the other policies beats each policy, above one half.

    For policy j ``max_i P(i beats j) - 1/2``, half its duality gap without regularisation, over
    the other policies of the table.

    Args:
        win_matrix: (M, M, P) chance that policy i beats policy j at prompt p; the diagonal is not
            read, NaN is what is not known.
        rng: splits the prompts into halves, the same for every policy.
        level: nominal coverage, in (0, 1).

    Returns:
        One gap for each policy, in win probability, 0 to 1/2; ``picked`` counts rows of the
        matrix.

    Raises:
        ValueError: not (M, M, P), or values outside [0, 1].
    """
    matrix = np.asarray(win_matrix, float)
    if matrix.ndim != 3 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"win_matrix has shape {matrix.shape}, expected (M, M, P).")
    seed = int(rng.integers(2**63))
    gaps = []
    for j in range(len(matrix)):
        others = [i for i in range(len(matrix)) if i != j]
        gap = duality_gap(matrix[others, j], rng=np.random.default_rng(seed), level=level)
        gaps.append(
            gap._replace(
                estimate=gap.estimate / 2,
                low=gap.low / 2,
                high=gap.high / 2,
                picked=tuple(others[i] if i >= 0 else -1 for i in gap.picked),
            )
        )
    return gaps


def best_of_n(preferences: np.ndarray) -> BestOfN:
    """The policy's own samples turned into a deviation: the best of n against fresh samples.

    K exchangeable samples per prompt are split into candidates, selectors and judges. The
    candidate that does best against the selectors is taken and measured against the judges, so
    its measured win rate is not inflated by the choice.

    Args:
        preferences: (P, K, K) chance that sample a beats sample b of the same prompt; the diagonal
            is not read, NaN where the oracle abstained. K is 4 or more.

    Raises:
        ValueError: not (P, K, K), or K below 4: two candidates, a selector, a judge.

    Source: the divergence bound is Beirami et al., arXiv 2401.01879 (from memory, unverified).
    """
    matrix = np.asarray(preferences, float)
    if matrix.ndim != 3 or matrix.shape[1] != matrix.shape[2]:
        raise ValueError(f"preferences have shape {matrix.shape}, expected (P, K, K).")
    k = matrix.shape[1]
    if k < 4:
        raise ValueError(f"best of n needs 4 or more samples per prompt, got {k}.")
    n, half = k // 2, k // 2 + (k - k // 2) // 2
    against = _mean(matrix[:, :n, n:half])  # (P, n)
    judged = _mean(matrix[:, :n, half:])
    known = ~np.isnan(against)
    best = np.where(known, against, -np.inf).argmax(axis=1)
    has_one = known.any(axis=1)
    wins = np.where(has_one, judged[np.arange(len(matrix)), best], np.nan)
    return BestOfN(wins, np.where(has_one, best, -1), n, float(np.log(n) - (n - 1) / n))


def held_out_best(gains: np.ndarray, in_first: np.ndarray) -> HeldOut:
    """Each half's gains of the row that does best on the other half, or of staying.

    The choice never sees the prompts it is measured on, so the mean of the values does not profit
    from the noise of a maximum.

    Args:
        gains: (D, P) gain of deviation d at prompt p over staying; NaN where it is not known.
        in_first: (P,) which prompts are the first half.
    """
    values, picked = np.full(gains.shape[1], np.nan), []
    for measured in (in_first, ~in_first):
        best = _pick(gains[:, ~measured])
        picked.append(best)
        values[measured] = 0.0 if best < 0 else gains[best, measured]
    return HeldOut(values, tuple(picked))


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    n = known.sum(-1)
    total = np.where(known, values, 0.0).sum(-1)
    return np.divide(total, n, out=np.full(n.shape, np.nan), where=n > 0)


def _cross_fitted(gains: np.ndarray, rng: np.random.Generator, level: float) -> Gap:
    """Mean gain of the deviation that the other half of the prompts picks; 0 by staying."""
    n = gains.shape[1]
    if n < 2:
        return Gap(np.nan, np.nan, np.nan, n, (), "fewer than 2 prompts")
    order = rng.permutation(n)
    in_first = np.zeros(n, bool)
    in_first[order[: n // 2]] = True
    values, picked = held_out_best(gains, in_first)
    mean = clustered_mean(values, np.arange(n), level=level)
    method = f"deviations picked on the other half of the prompts; {mean.method}"
    return Gap(mean.estimate, mean.low, mean.high, mean.n, picked, method)


def _pick(gains: np.ndarray) -> int:
    """Row with the largest mean gain; -1 where none is above 0."""
    if not len(gains):
        return -1
    means = _mean(gains)
    means = np.where(np.isnan(means), -np.inf, means)
    best = int(means.argmax())
    return best if means[best] > 0.0 else -1


def _probabilities(values: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
    array = np.asarray(values, float)
    if array.ndim != 2:
        raise ValueError(f"expected (deviations, prompts), got shape {array.shape}.")
    if ((array < 0.0) | (array > 1.0)).any():
        raise ValueError("a chance to win is outside [0, 1].")
    return array
