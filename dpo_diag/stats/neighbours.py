"""How far points lie from a set of others: cosine distance to the nearest few.

Start reading at ``nearest_distance``.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

CHUNK_BYTES = 64 * 2**20  # of distances at a time


class Nearest(NamedTuple):
    """Distances of n points from a set: (n,) mean over the nearest few, (n,) nearest of all."""

    distance: np.ndarray
    index: np.ndarray


def nearest_distance(
    points: np.ndarray, base: np.ndarray, *, n_nearest: int, own: np.ndarray | None = None
) -> Nearest:
    """Mean cosine distance to the nearest points of a base, directions seen from its mean.

    Hidden states share a large common direction, against which every cosine is near 1; so the
    base's mean is taken off first.

    Args:
        points: (n, d) whose distance is asked for.
        base: (m, d) what they are compared with, m at least 1.
        n_nearest: over how many to average; fewer where the base has fewer.
        own: (n,) position of a point in the base, -1 for none: it is not its own neighbour.

    Returns:
        Distances in [0, 2] and the nearest point's position in the base; NaN and -1 for a point
        whose only neighbour is itself.

    Raises:
        ValueError: an empty base.
    """
    if not len(base):
        raise ValueError("there is no base to be near to.")
    middle = base.mean(axis=0)
    unit, base_unit = _directions(points - middle), _directions(base - middle)
    distance, index = np.full(len(points), np.nan), np.full(len(points), -1)
    own = np.full(len(points), -1) if own is None else np.asarray(own)
    rows = max(1, CHUNK_BYTES // (8 * len(base)))
    for start in range(0, len(points), rows):
        part = slice(start, start + rows)
        # half the squared distance of unit vectors is the cosine distance
        gaps = cdist(unit[part], base_unit, "sqeuclidean") / 2.0
        mine = own[part]
        gaps[np.flatnonzero(mine >= 0), mine[mine >= 0]] = np.inf
        count = min(n_nearest, len(base))
        near = np.sort(np.partition(gaps, count - 1, axis=1)[:, :count], axis=1)
        known = np.isfinite(near)
        found = known.any(axis=1)
        sums = np.where(known, near, 0.0).sum(axis=1)
        distance[part] = np.where(found, sums / np.maximum(known.sum(axis=1), 1), np.nan)
        index[part] = np.where(found, gaps.argmin(axis=1), -1)
    return Nearest(distance, index)


def _directions(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1; one that is 0 stays 0 (distance 1/2 from every direction)."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0.0, lengths, 1.0)
