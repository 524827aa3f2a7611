"""Numeric columns of the pairs, as the variant's ``needs.columns`` names them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from dpo_diag.errors import DataError
from dpo_diag.training.sources._base import Context, FieldSource, required_column


class Columns(FieldSource):
    """``PairLogps.extra``: one float tensor per column."""

    def __init__(self, context: Context) -> None:
        self._device = context.policy.device
        self._values = {
            name: _numbers(context, name).astype(np.float32)
            for name in context.variant.needs.columns
        }

    def fields(self, index: np.ndarray) -> Mapping[str, Any]:
        """The columns' values, (B,) each."""
        return {
            "extra": {
                name: torch.as_tensor(values[index], device=self._device)
                for name, values in self._values.items()
            }
        }

    def whole(self) -> dict[str, torch.Tensor]:
        """The columns of all pairs, (n,) each."""
        return {
            name: torch.as_tensor(values, device=self._device)
            for name, values in self._values.items()
        }


def _numbers(context: Context, name: str) -> np.ndarray:
    values = required_column(context.frame, name, context.variant)
    try:
        numbers = values.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{context.variant.name} needs numbers in the column {name}: {error}."
        ) from error
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise DataError(
            f"{context.variant.name} needs finite numbers in {name}; pair_id "
            f"{context.frame['pair_id'].iloc[row]} has {numbers[row]}."
        )
    return numbers


make_source = Columns
