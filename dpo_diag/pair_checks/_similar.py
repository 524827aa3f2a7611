"""Which of some texts are nearly among some others: minhash, then the true overlap.

Texts are sets of three neighbouring words. 64 hash minima per text stand for its set; texts that
share the four minima of any of 16 bands are compared, first by their minima, then by the sets. Two
texts that share 80 % of their sets meet in a band with a chance of 99.98 %, so it is near-linear
and almost nothing is missed. Shared by the checks, not a plug-in. Start reading at ``nearest``.

Source: Broder 1997 (minhash); Leskovec, Rajaraman and Ullman 2014, chapter 3 (bands).
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from dpo_diag.pair_checks._words import Words

SHINGLE = 3  # words
N_BANDS, N_ROWS = 16, 4
PER_BAND = 3  # texts of a band that one text is compared with
VERIFIED = 4  # of those, by their minima, whose sets are compared
LIKELY = 0.6  # share of equal minima from which the sets are compared
_PRIME = np.uint64((1 << 31) - 1)
_CHUNK = 2_000  # texts hashed at once


def nearest(
    words: Words, wanted: np.ndarray, among: np.ndarray, *, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """For each wanted text the likest of others, where any shares enough.

    Args:
        words: of all texts.
        wanted: (a,) codes of texts to find.
        among: (b,) codes of texts to find them in, none of them wanted.
        least: Jaccard coefficient of the sets of three words, in (0, 1].

    Returns:
        Code of the likest text, -1 for none, and its Jaccard coefficient, 0 for none; (a,) each.
    """
    best, overlap = np.full(len(wanted), -1, np.int64), np.zeros(len(wanted))
    if not len(wanted) or not len(among):
        return best, overlap
    texts = np.concatenate([wanted, among])
    minima = _minima([_shingles(words.of(text)) for text in texts])
    candidates = _candidates(minima, len(wanted))
    alike = (minima[candidates[:, 0]] == minima[candidates[:, 1]]).mean(axis=1)
    for left, right in _likeliest(candidates, alike):
        first, second = (set(_shingles(words.of(texts[k])).tolist()) for k in (left, right))
        shared = len(first & second)
        jaccard = shared / max(len(first) + len(second) - shared, 1)
        if jaccard >= least and jaccard > overlap[left]:
            best[left], overlap[left] = texts[right], jaccard
    return best, overlap


def _likeliest(candidates: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """The candidates worth a look at the sets: at most ``VERIFIED`` of a wanted text."""
    table = pd.DataFrame({"left": candidates[:, 0], "right": candidates[:, 1], "alike": alike})
    table = table[table["alike"] >= LIKELY].sort_values("alike", ascending=False, kind="stable")
    return table.groupby("left").head(VERIFIED)[["left", "right"]].to_numpy()


def _shingles(ids: np.ndarray) -> np.ndarray:
    """Numbers of the different three-word runs of a text, all of it for a shorter one."""
    wide = ids.astype(np.uint64)
    if not len(wide):
        return wide
    size = min(SHINGLE, len(wide))
    mixed = np.zeros(len(wide) - size + 1, np.uint64)
    for offset in range(size):
        part = wide[offset : offset + len(mixed)]
        # a multiplicative mix that wraps round: order matters, collisions are one in 2^31
        mixed = (mixed ^ (part + np.uint64(0x9E3779B1))) * np.uint64(0xC2B2AE3D27D4EB4F)
        mixed ^= mixed >> np.uint64(29)
    return np.unique(mixed % _PRIME)


def _minima(sets: list[np.ndarray]) -> np.ndarray:
    """64 hash minima of each set, (m, 64); an empty set has none in common with any."""
    rng = np.random.default_rng(0)  # which hash functions makes no difference to what is similar
    n_hashes = N_BANDS * N_ROWS
    factors = rng.integers(1, int(_PRIME), n_hashes).astype(np.uint64)
    shifts = rng.integers(0, int(_PRIME), n_hashes).astype(np.uint64)
    found = np.empty((len(sets), n_hashes), np.uint64)
    for start in range(0, len(sets), _CHUNK):
        part = sets[start : start + _CHUNK]
        # the index of an empty set stands for a number of its own
        own = [s if len(s) else np.array([start + k], np.uint64) for k, s in enumerate(part)]
        flat, begins = np.concatenate(own), np.cumsum([0, *map(len, own[:-1])])
        for k in range(n_hashes):
            hashed = (flat * factors[k] + shifts[k]) % _PRIME
            found[start : start + len(part), k] = np.minimum.reduceat(hashed, begins)
    return found


def _candidates(minima: np.ndarray, n_wanted: int) -> np.ndarray:
    """(c, 2) positions of wanted texts and others of their bands, at most ``PER_BAND`` each."""
    pairs = [part for band in range(N_BANDS) for part in _of_band(minima, band, n_wanted)]
    if not pairs:
        return np.zeros((0, 2), np.int64)
    return np.unique(np.concatenate(pairs), axis=0)


def _of_band(minima: np.ndarray, band: int, n_wanted: int) -> Iterator[np.ndarray]:
    columns = minima[:, band * N_ROWS : (band + 1) * N_ROWS]
    keys = pd.factorize(pd.util.hash_array(_mixed(columns)))[0]
    position = np.arange(len(keys))
    others = pd.DataFrame({"key": keys[n_wanted:], "right": position[n_wanted:]})
    others = others.groupby("key").head(PER_BAND)
    wanted = pd.DataFrame({"key": keys[:n_wanted], "left": position[:n_wanted]})
    met = wanted.merge(others, on="key")
    if len(met):
        yield met[["left", "right"]].to_numpy()


def _mixed(columns: np.ndarray) -> np.ndarray:
    """One number for each row of a band's minima."""
    mixed = np.zeros(len(columns), np.uint64)
    for column in columns.T:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(31)
    return mixed
