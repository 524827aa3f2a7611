"""Gradient features of pairs as they are used: inner products and cosines between pairs.

Numpy only. Start reading at ``GradientFeatures.kernel``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dpo_diag.errors import DataError

KERNEL_NUMBERS = 1 << 25  # of both factors at a time: 256 MiB


@dataclass(frozen=True)
class GradientFeatures:
    """Gradients of n pairs' margins at a reference, as rows whose inner products are kept.

    Attributes:
        pair_ids: (n,) of the rows.
        plain: (n, k) float32, mapped from disk.
        adam: (n, k) float32 of the preconditioned gradients, or None.
        squares: (n,) squared norms of the gradients themselves, not of their sketches.
        adam_squares: the same of the preconditioned ones, or None.
        kind: ``sketch`` or ``exact``; then k is ``n_parameters``.
        n_parameters: length of a gradient.
        space: ``all`` or ``lora``.
        seed: of the sketch.
        k: columns.
    """

    pair_ids: np.ndarray
    plain: np.ndarray
    adam: np.ndarray | None
    squares: np.ndarray
    adam_squares: np.ndarray | None
    kind: str
    n_parameters: int
    space: str
    seed: int
    k: int

    def kernel(
        self, i_ids: Sequence[str], j_ids: Sequence[str], *, preconditioned: bool
    ) -> np.ndarray:
        """Inner products ``<g_i, g_j>``, (m, n) float64.

        Of a sketch they are unbiased, with a standard error of at most
        ``sqrt((|g_i|^2 |g_j|^2 + <g_i, g_j>^2) / k)``. Preconditioned ones are the linearised
        change of margin i by a step of Adam on pair j, in nats per learning rate.

        Args:
            i_ids: m pairs.
            j_ids: n pairs.
            preconditioned: of the variant for Adam.

        Raises:
            DataError: a pair without features, or features without that variant.
        """
        rows, _ = self._variant(preconditioned)
        left, right = self._rows(i_ids), self._rows(j_ids)
        result = np.zeros((len(left), len(right)))
        width = max(1, KERNEL_NUMBERS // max(1, len(left) + len(right)))
        for begin in range(0, self.k, width):
            part = rows[:, begin : begin + width]
            result += part[left].astype(np.float64) @ part[right].astype(np.float64).T
        return result

    def cosines(
        self, i_ids: Sequence[str], j_ids: Sequence[str], *, preconditioned: bool
    ) -> np.ndarray:
        """Inner products over the exact norms, (m, n) float64; NaN where a gradient is zero.

        Of a sketch they err by about ``1 / sqrt(k)`` and may leave [-1, 1] by as much.

        Raises:
            DataError: as ``kernel``.
        """
        _, squares = self._variant(preconditioned)
        norms = [np.sqrt(squares[self._rows(ids)]) for ids in (i_ids, j_ids)]
        scale = np.outer(*norms)
        products = self.kernel(i_ids, j_ids, preconditioned=preconditioned)
        return np.divide(products, scale, out=np.full_like(scale, np.nan), where=scale > 0)

    def _variant(self, preconditioned: bool) -> tuple[np.ndarray, np.ndarray]:
        if not preconditioned:
            return self.plain, self.squares
        if self.adam is None or self.adam_squares is None:
            raise DataError(
                "these gradient features have no preconditioned variant; make them with "
                "preconditioned=True."
            )
        return self.adam, self.adam_squares

    def _rows(self, pair_ids: Sequence[str]) -> np.ndarray:
        unknown = [pair_id for pair_id in pair_ids if pair_id not in self._places]
        if unknown:
            raise DataError(
                f"{len(unknown)} of {len(pair_ids)} pairs have no gradient features, first "
                f"{unknown[0]}; make them of these pairs, too."
            )
        return np.array([self._places[pair_id] for pair_id in pair_ids], dtype=np.int64)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {str(pair_id): row for row, pair_id in enumerate(self.pair_ids)}
