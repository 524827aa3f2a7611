"""Worlds with a known truth, drawn many at a time; each yields the data sets of one cell.

Everything takes the generator as an argument. Clusters are prompts: rows of one prompt share a
chance of their own, drawn so that two rows of a prompt correlate by ``icc``.
"""

from collections.abc import Iterator

import numpy as np
from scipy import stats


def prompt_codes(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) prompt of each row: ``size`` rows each, or 1 to 8 at random where size is 0."""
    if size:
        return np.arange(n) // size
    sizes = rng.integers(1, 9, n)
    return np.repeat(np.arange(n), sizes)[:n]


def shares(
    rng: np.random.Generator,
    *,
    n: int,
    share: float,
    worlds: int,
    size: int = 1,
    icc: float = 0.0,
    ties: float = 0.0,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Values of 0, 1 and one half with a true mean of ``share``, with their prompts.

    Args:
        rng: draws.
        n: rows.
        share: true mean.
        worlds: data sets.
        size: rows of a prompt, 0 for 1 to 8.
        icc: correlation within a prompt.
        ties: share of ties among what share and 1 - share have room for, in [0, 1).
    """
    tied = ties * min(share, 1.0 - share)
    for _ in range(worlds):
        codes = prompt_codes(n, size, rng)
        # a prompt's rows share one uniform with chance sqrt(icc) each: correlation icc
        own, common = rng.random(n), rng.random(codes.max() + 1)[codes]
        place = np.where(rng.random(n) < np.sqrt(icc), common, own)
        values = (place < share - tied / 2.0).astype(float)
        values[(place >= share - tied / 2.0) & (place < share + tied / 2.0)] = 0.5
        yield values, codes


def means(
    rng: np.random.Generator, *, n: int, kind: str, worlds: int, size: int = 1, icc: float = 0.0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Values of mean 1: ``normal``, ``heavy`` (t with 4 degrees) or ``skew`` (exponential)."""
    draw = {
        "normal": lambda m: rng.normal(1.0, 2.0, m),
        "heavy": lambda m: 1.0 + rng.standard_t(4, m),
        "skew": lambda m: rng.exponential(1.0, m),
    }[kind]
    for _ in range(worlds):
        codes = prompt_codes(n, size, rng)
        shared = rng.random(n) < np.sqrt(icc)
        yield np.where(shared, draw(codes.max() + 1)[codes], draw(n)), codes


def couples(
    rng: np.random.Generator,
    *,
    n: int,
    first: float,
    second: float,
    worlds: int,
    size: int = 1,
    icc: float = 0.0,
    pairing: float = 0.9,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Right and wrong of two models on the same pairs, true shares ``first`` and ``second``.

    Latent normals: correlation ``pairing`` between the models on a pair, ``icc`` within a prompt.
    """
    limits = stats.norm.ppf([first, second])
    for _ in range(worlds):
        codes = prompt_codes(n, size, rng)
        groups = codes.max() + 1
        item = np.sqrt(icc) * rng.normal(size=(groups, 2))[codes]
        item += np.sqrt(1.0 - icc) * rng.normal(size=(n, 2))
        common = np.sqrt(icc) * rng.normal(size=groups)[codes]
        common += np.sqrt(1.0 - icc) * rng.normal(size=n)
        latent = np.sqrt(pairing) * common[:, None] + np.sqrt(1.0 - pairing) * item
        right = (latent < limits).astype(float)
        yield right[:, 0], right[:, 1], codes


def discordant(
    rng: np.random.Generator, *, n: int, gain: float, disagreeing: float, worlds: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Two models near one half right; the first wins by ``gain``, they disagree on a share."""
    wins, losses = (disagreeing + gain) / 2.0, (disagreeing - gain) / 2.0
    both = 0.5 - wins + gain / 2.0
    for _ in range(worlds):
        place = rng.random(n)
        first = place < both + wins
        second = (place < both) | ((place >= both + wins) & (place < both + wins + losses))
        yield first.astype(float), second.astype(float)
