"""Both safety bits of each pair, sides as trained on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from dpo_diag.training.sources._base import Context, FieldSource, required_column

_NAMES = ("is_chosen_safe", "is_rejected_safe")


class SafetyLabels(FieldSource):
    """``is_chosen_safe`` and ``is_rejected_safe``, (B,) bool."""

    def __init__(self, context: Context) -> None:
        self._device = context.policy.device
        self._values = {
            name: required_column(context.frame, name, context.variant).to_numpy(dtype=bool)
            for name in _NAMES
        }

    def fields(self, index: np.ndarray) -> Mapping[str, Any]:
        """The labels of the pairs."""
        return {
            name: torch.as_tensor(values[index], device=self._device)
            for name, values in self._values.items()
        }


make_source = SafetyLabels
