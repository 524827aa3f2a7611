"""From answers and an oracle of preferences to pairs: arrays in, positions out, no model.

Start reading at ``win_matrix``, then ``best_and_worst`` and ``drawn_pairs``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from dpo_diag.errors import DataError
from dpo_diag.oracles._base import Oracle

# mean chances to win are sums of a few float64 numbers in different orders
_TIE = 1e-9


@dataclass(frozen=True)
class Judged:
    """What an oracle says of the answers to P prompts, K each.

    Attributes:
        wins: (P, K, K) chance that the row's answer is preferred to the column's; 1/2 between
            equal texts, which are not asked about; NaN where the oracle abstained.
        same: (P, K, K) bool, whether two answers are the same text.
        n_asked, n_abstained: comparisons.
    """

    wins: np.ndarray
    same: np.ndarray
    n_asked: int
    n_abstained: int


@dataclass(frozen=True)
class Chosen:
    """One pair per prompt, where one can be made.

    Attributes:
        chosen, rejected: (P,) index of the answer within its prompt; -1 where there is no pair.
        n_identical, n_tied, n_abstained: prompts without a pair because all (or both) answers are
            the same text, are preferred alike, or were not judged.
    """

    chosen: np.ndarray
    rejected: np.ndarray
    n_identical: int
    n_tied: int
    n_abstained: int


def win_matrix(oracle: Oracle, prompts: Sequence[str], answers: Sequence[Sequence[str]]) -> Judged:
    """Every answer against every other of its prompt, each pair of texts asked about once.

    Args:
        oracle: of preferences.
        prompts: P.
        answers: P times K.

    Raises:
        DataError: the oracle gave another number of values, or one outside [0, 1].
    """
    p, k = len(prompts), len(answers[0]) if answers else 0
    codes = np.array([[texts.index(text) for text in texts] for texts in map(list, answers)])
    codes = codes.reshape(p, k)
    distinct = [np.unique(row) for row in codes]  # place of each text's first occurrence
    places = [(row, a, b) for row in range(p) for a, b in combinations(distinct[row], 2)]
    found = ask(
        oracle,
        [prompts[row] for row, _, _ in places],
        [answers[row][a] for row, a, _ in places],
        [answers[row][b] for row, _, b in places],
    )
    table = np.full((p, k, k), 0.5)  # between the first occurrences of each text
    for (row, a, b), value in zip(places, found, strict=True):
        table[row, a, b], table[row, b, a] = value, 1.0 - value
    rows = np.arange(p)[:, None, None]
    wins = table[rows, codes[:, :, None], codes[:, None, :]]
    same = codes[:, :, None] == codes[:, None, :]
    return Judged(wins, same, len(places), int(np.isnan(found).sum()))


def ask(
    oracle: Oracle, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
) -> np.ndarray:
    """P(first preferred) of each pair, (N,), checked; NaN where the oracle abstains.

    Raises:
        DataError: another number of values, or one outside [0, 1].
    """
    if not prompts:
        return np.zeros(0)
    found = np.asarray(oracle.prefer(list(prompts), list(first), list(second)), float)
    if found.shape != (len(prompts),):
        raise DataError(
            f"oracle {oracle.name} gave values of shape {found.shape} for {len(prompts)} pairs; "
            "expected one chance per pair."
        )
    bad = (found < 0) | (found > 1)
    if bad.any():
        raise DataError(
            f"oracle {oracle.name} gave {found[bad][0]:g} for the first of {int(bad.sum())} pairs "
            "outside [0, 1]; expected the chance that the first answer is preferred."
        )
    return found


def mean_wins(judged: Judged) -> np.ndarray:
    """Mean chance of each answer against its prompt's others, (P, K); NaN where none was judged."""
    k = judged.wins.shape[1]
    others = np.where(np.eye(k, dtype=bool), np.nan, judged.wins)
    known = ~np.isnan(others)
    total, n = np.where(known, others, 0.0).sum(2), known.sum(2)
    return np.divide(total, n, out=np.full(n.shape, np.nan), where=n > 0)


def best_and_worst(judged: Judged) -> Chosen:
    """The answer that wins most against the prompt's others, and the one that wins least."""
    means = mean_wins(judged)
    known = ~np.isnan(means)
    best = np.where(known, means, -np.inf).argmax(1)
    worst = np.where(known, means, np.inf).argmin(1)
    rows = np.arange(len(means))
    is_identical = judged.same.all(axis=(1, 2))
    is_judged = ~np.isnan(judged.wins[rows, best, worst]) & (known.sum(1) > 1)
    gap = np.where(is_judged, means[rows, best] - means[rows, worst], np.nan)
    return _counted(best, worst, is_identical, is_judged, ~(gap > _TIE))


def drawn_pairs(judged: Judged, rng: np.random.Generator) -> Chosen:
    """Two answers at random; which of them is chosen is drawn with the oracle's chance."""
    p, k = judged.wins.shape[:2]
    places = rng.permuted(np.tile(np.arange(k), (p, 1)), axis=1)[:, :2]
    first, second, rows = places[:, 0], places[:, 1], np.arange(p)
    chance = judged.wins[rows, first, second]
    draws = rng.random(p)  # one for each prompt, so that abstentions do not shift the others
    wins = draws < np.where(np.isnan(chance), 0.5, chance)
    best, worst = np.where(wins, first, second), np.where(wins, second, first)
    is_identical = judged.same[rows, first, second]
    return _counted(best, worst, is_identical, ~np.isnan(chance), np.zeros(p, dtype=bool))


def _counted(
    best: np.ndarray,
    worst: np.ndarray,
    is_identical: np.ndarray,
    is_judged: np.ndarray,
    is_tied: np.ndarray,
) -> Chosen:
    """Pairs where nothing speaks against one; each prompt without is counted under one reason."""
    abstained = ~is_identical & ~is_judged
    tied = ~is_identical & is_judged & is_tied
    usable = ~(is_identical | abstained | tied)
    return Chosen(
        np.where(usable, best, -1),
        np.where(usable, worst, -1),
        int(is_identical.sum()),
        int(tied.sum()),
        int(abstained.sum()),
    )
