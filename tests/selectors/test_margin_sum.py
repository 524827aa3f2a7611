"""The additive mixture by hand."""

import numpy as np
import pandas as pd
import pytest

from dpo_diag.errors import DataError
from dpo_diag.selectors.margin_sum import MarginSum


def test_mixture_by_hand() -> None:
    """Chances 0, 1/4, 1/2, 1 and 1, 1/2, 0, 0: sums 1, 3/4, 1/2, 1; no source vetoes."""
    table = pd.DataFrame({"external_margin": [0, 1, 2, 4], "implicit_margin": [8, 4, 0, 0]})
    found = MarginSum(low=0, high=1).scores(table)
    np.testing.assert_allclose(found, [1, 0.75, 0.5, 1])


def test_quantiles_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(DataError, match="margin_sum: the quantiles"):
        MarginSum(low=0.5, high=0.5)
