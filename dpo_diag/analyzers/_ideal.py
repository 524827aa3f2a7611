"""What a pair's order could have been: the idealised order, and the chance that it had.

Pure functions of arrays behind ``attainable``; not a plug-in. ``c`` is everywhere the reference's
gap against the label, ``log ref(rejected) - log ref(chosen)`` in nats: how far the log-ratio margin
``m`` of a pair must rise for the policy to rank it right. Start reading at ``required_loss``.
"""

import numpy as np
from scipy import special

CLIP = 1e-3  # a unanimous vote counts as so much short of certainty
BLOCK = 16_384  # pairs compared at once
BETAS = (0.01, 0.1, 1.0, 5.0, 10.0)


def idealised_margin(gap: np.ndarray, vote_share: np.ndarray, beta: float) -> np.ndarray:
    """``log`` of ``(ref(y_w) / ref(y_l)) * (a / (1 - a))^(1 / beta)``, (n,) nats.

    Above 0 where the perfect optimum of DPO (or RLHF) at this beta ranks the pair as labelled.

    Args:
        gap: (n,) c in nats; per token it is a difference of means, as the authors' code has it.
        vote_share: (n,) share a of annotators who prefer the chosen answer, in [0, 1]; at most
            ``1 - CLIP`` and at least ``CLIP`` of it count.
        beta: strength of the pull to the reference, above 0.

    Source: Chen et al., arXiv 2405.19534, idealised ranking accuracy.
    """
    share = np.clip(np.asarray(vote_share, float), CLIP, 1.0 - CLIP)
    return special.logit(share) / beta - np.asarray(gap, float)


def required_loss(gap: np.ndarray, beta: float) -> np.ndarray:
    """``-log sigmoid(beta c)``, (n,): the DPO loss at or below which a pair is ranked right.

    By hand, beta 0.1: c = 5 needs 0.474, c = 30 needs 0.049; c = 0 needs log 2, what every pair
    has before training.

    Source: Chen et al., arXiv 2405.19534, theorem 4.1.
    """
    return -special.log_expit(beta * np.asarray(gap, float))


def own_loss(margin: np.ndarray, beta: float) -> np.ndarray:
    """DPO's loss of each pair, ``-log sigmoid(beta m)``, (n,), from log-ratio margins in nats."""
    return -special.log_expit(beta * np.asarray(margin, float))


def strength(margin: np.ndarray, reward_margin: np.ndarray) -> float:
    """The beta with which rewards are beta times log-ratios; NaN where they are not.

    Args:
        margin: (n,) log-ratio margins, nats.
        reward_margin: (n,) margins of the implicit reward.

    Returns:
        Their common quotient; NaN where it varies by more than a thousandth, is not above 0, or
        where no log-ratio differs from 0 (the policy is its reference).
    """
    margin, reward_margin = np.asarray(margin, float), np.asarray(reward_margin, float)
    kept = np.abs(margin) > 1e-6
    if not kept.any():
        return float("nan")
    quotient = reward_margin[kept] / margin[kept]
    middle = float(np.median(quotient))
    weight = np.abs(margin[kept]) / np.abs(margin[kept]).max()  # rounding hits small margins most
    steady = np.abs(quotient - middle) * weight <= 1e-3 * abs(middle)
    return middle if middle > 0.0 and steady.all() else float("nan")


def chance(
    gap: np.ndarray, like_gap: np.ndarray, like_margin: np.ndarray, *, n_like: int
) -> np.ndarray:
    """Share of like pairs that training moved as far as a pair needs, (n,) in [0, 1].

    A pair needs ``m >= c``. The like pairs are the ``n_like`` whose own reference gap is nearest to
    its c (of those there are), so that "as far" is measured where the reference stands alike. A
    pair that is itself among them counts; it is one of ``n_like``.

    By hand, n_like 2: c = 3, like gaps 2, 4, 20 with margins 1, 5, 30: the nearest two reached 1
    and 5, one of them at least 3, so 1/2.

    Args:
        gap: (n,) c of the pairs asked about, nats.
        like_gap: (k,) c of the pairs that training is judged by.
        like_margin: (k,) their log-ratio margins, nats.
        n_like: pairs compared with, at least 1.

    Returns:
        NaN where there is no pair to compare with.
    """
    gap = np.asarray(gap, float)
    if not len(like_gap):
        return np.full(len(gap), np.nan)
    # equal gaps are ordered by margin, so that the order of rows cannot matter
    order = np.lexsort((like_margin, like_gap))
    gaps, margins = np.asarray(like_gap, float)[order], np.asarray(like_margin, float)[order]
    width = min(n_like, len(gaps))
    start = _window(gap, gaps, width)
    found = np.empty(len(gap))
    for low in range(0, len(gap), BLOCK):
        part = slice(low, low + BLOCK)
        like = margins[start[part, None] + np.arange(width)]
        found[part] = (like >= gap[part, None]).mean(axis=1)
    return np.where(np.isnan(gap), np.nan, found)


def _window(gap: np.ndarray, gaps: np.ndarray, width: int) -> np.ndarray:
    """First position of the ``width`` sorted gaps nearest to each c, by bisection."""
    low, high = np.zeros(len(gap), int), np.full(len(gap), len(gaps) - width)
    while (low < high).any():
        middle = (low + high) // 2
        moves = gap - gaps[middle] > gaps[np.minimum(middle + width, len(gaps) - 1)] - gap
        open_ = low < high
        low, high = (
            np.where(open_ & moves, middle + 1, low),
            np.where(open_ & ~moves, middle, high),
        )
    return low
