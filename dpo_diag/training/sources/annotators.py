"""Who judged each pair, as a code; the names are in the run record."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from dpo_diag.training.sources._base import Context, FieldSource, required_column


class Annotators(FieldSource):
    """``PairLogps.extra["annotator"]``: int64 codes in the alphabetical order of the names.

    Attributes:
        names: of the annotators, the code is the position.
    """

    def __init__(self, context: Context) -> None:
        values = required_column(context.frame, "annotator", context.variant).astype(str)
        codes, names = pd.factorize(values, sort=True)
        self.names = tuple(names)
        self._codes, self._device = codes.astype(np.int64), context.policy.device

    def fields(self, index: np.ndarray) -> Mapping[str, Any]:
        """The codes, (B,)."""
        return {"extra": {"annotator": torch.as_tensor(self._codes[index], device=self._device)}}


make_source = Annotators
