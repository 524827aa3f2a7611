"""A gradient in few numbers that keep inner products, or in all of its numbers.

``CountSketch`` adds every coordinate, with a sign drawn for it, to one of k buckets. Each
parameter is cut into stretches of k coordinates; a stretch goes to the buckets in order, begun at
a bucket drawn for it. So two coordinates of one stretch never meet, two of different stretches
meet with probability 1/k wherever they stand in their tensor (an outlier dimension that recurs
every 128 weights does not fall on the same bucket of a k that 128 divides, as it would without the
draw), and a sketch is sums of contiguous memory, 5 ms where a scatter takes 100.

For gradients g, h with signs and buckets drawn anew, ``E <s(g), s(h)> = <g, h>`` and, summed over
pairs of coordinates a != b of different stretches::

    Var <s(g), s(h)> = 1/k * sum (g_a^2 h_b^2 + g_a h_a g_b h_b) <= (|g|^2 |h|^2 + <g, h>^2) / k

so a cosine errs by about ``1 / sqrt(k)``: .016 at 4096. Numpy only; no torch. Start reading at
``CountSketch``.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from dpo_diag.errors import RecipeError

BLOCK = 1 << 18  # coordinates handled at once: 1 MiB, which stays in the processor's cache


class Row(NamedTuple):
    """What is kept of a gradient.

    Attributes:
        plain: (k,) float32.
        square: its squared norm before any projection.
        adam: (k,) float32 of the preconditioned gradient; None without preconditioner.
        adam_square: its squared norm before any projection; NaN without preconditioner.
    """

    plain: np.ndarray
    square: float
    adam: np.ndarray | None
    adam_square: float


class Projection(Protocol):
    """From a gradient, parameter by parameter, to its row of ``n_columns`` numbers."""

    n_columns: int

    def __call__(self, gradient: Iterable[np.ndarray]) -> Row:
        """The row of a gradient given as flat float32 arrays, one per parameter in order."""


class CountSketch:
    """Signed sums of a gradient's coordinates in k buckets.

    Args:
        sizes: numbers of each parameter, in order.
        k: buckets, at least 1.
        seed: of signs and buckets; the same seed, sizes and k give the same sketch.
        weights: what the coordinates of the preconditioned gradient are multiplied by, one flat
            float32 array per parameter; None leaves that variant out.

    Raises:
        RecipeError: k below 1.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        k: int,
        seed: int,
        weights: Sequence[np.ndarray] | None = None,
    ) -> None:
        if k < 1:
            raise RecipeError(f"a sketch needs at least 1 column, got k = {k}; take 4096.")
        rng = np.random.default_rng(seed)
        self.n_columns = k
        self._signs = [2 * rng.integers(0, 2, n, dtype=np.int8) - 1 for n in sizes]
        self._starts = [rng.integers(0, k, -(-n // k)).tolist() for n in sizes]
        self._weights = weights
        self._scratch = np.empty(max(1, BLOCK // k) * k, dtype=np.float32)

    def __call__(self, gradient: Iterable[np.ndarray]) -> Row:
        """See ``Projection``."""
        k = self.n_columns
        n_variants = 1 if self._weights is None else 2
        lanes = np.zeros((n_variants, 2 * k), dtype=np.float32)  # the second half is folded back
        squares = [0.0] * n_variants
        for place, flat in enumerate(gradient):
            signs, starts = self._signs[place], self._starts[place]
            for begin in range(0, len(flat), len(self._scratch)):
                end = min(begin + len(self._scratch), len(flat))
                part = self._scratch[: end - begin]
                buckets = starts[begin // k : -(-end // k)]
                np.multiply(flat[begin:end], signs[begin:end], out=part)
                squares[0] += _square(part)
                _add(lanes[0], part, buckets, k)
                if self._weights is not None:
                    part *= self._weights[place][begin:end]
                    squares[1] += _square(part)
                    _add(lanes[1], part, buckets, k)
        rows = lanes[:, :k] + lanes[:, k:]
        if n_variants == 1:
            return Row(rows[0], squares[0], None, float("nan"))
        return Row(rows[0], squares[0], rows[1], squares[1])


class Whole:
    """All coordinates, for small models: rows are as long as the model has parameters.

    Args:
        sizes: as ``CountSketch``.
        weights: as ``CountSketch``.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[np.ndarray] | None = None) -> None:
        self.n_columns = sum(sizes)
        self._weights = None if weights is None else np.concatenate(list(weights))

    def __call__(self, gradient: Iterable[np.ndarray]) -> Row:
        """See ``Projection``."""
        plain = np.concatenate(list(gradient)).astype(np.float32, copy=False)
        if self._weights is None:
            return Row(plain, _square(plain), None, float("nan"))
        adam = plain * self._weights
        return Row(plain, _square(plain), adam, _square(adam))


def adam_weights(mean_squares: Sequence[np.ndarray], epsilon: float) -> list[np.ndarray]:
    """What a gradient is multiplied by so that inner products are those of Adam's steps.

    A step of Adam on pair j moves the parameters by ``-rate * D^-1 * (loss gradient of j)`` with
    ``D = sqrt(v) + epsilon``, so pair i's margin moves by a multiple of ``<g_i, D^-1 g_j>``. Each
    side of the product therefore gets ``D^-1/2``: with ``a_i = D^-1/2 g_i`` it is ``<a_i, a_j>``.
    (Dividing both sides by D would weigh by ``D^-2``, which is no step of this optimiser.)

    At the reference every pair's loss gradient is ``-s g_i`` with s = beta * sigma(0) = beta / 2
    for DPO, and a step on it moves by ``rate * s g / (s sqrt(v) + epsilon)``, v of the features:
    s is gone but for ``epsilon / s``. So ``<a_i, a_j>`` is in units of the learning rate: the
    linearised change of margin i, in nats, by a step of rate 1 on pair j alone.

    A coordinate in which no batch has a gradient (v = 0) is left out: Adam never moves it, and a
    pair that is not trained on would otherwise be known by its rarest tokens alone.

    Args:
        mean_squares: v of the features, one flat array per parameter.
        epsilon: Adam's, at least 0, over s where v is that of the features.
    """
    rows = []
    for v in mean_squares:
        scale = np.sqrt(v.astype(np.float64)) + epsilon
        weights = np.divide(1.0, scale, out=np.zeros_like(scale), where=v > 0)
        rows.append(np.sqrt(weights).astype(np.float32))
    return rows


def _add(lane: np.ndarray, part: np.ndarray, buckets: Sequence[int], k: int) -> None:
    """Add each stretch of k to the lane, begun at its bucket."""
    begin = 0
    for bucket in buckets:
        stretch = part[begin : begin + k]
        lane[bucket : bucket + len(stretch)] += stretch
        begin += k


def _square(part: np.ndarray) -> float:
    """Squared norm, added up block by block in float64: float32 loses 3e-7 of it."""
    blocks = (part[i : i + BLOCK] for i in range(0, len(part), BLOCK))
    return sum(float(np.dot(block, block)) for block in blocks)
