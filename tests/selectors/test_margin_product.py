"""The multiplicative mixture by hand."""

import numpy as np
import pandas as pd
import pytest

from dpo_diag.errors import DataError
from dpo_diag.selectors.margin_product import MarginProduct


def test_mixture_by_hand() -> None:
    """Chances 0, 1/4, 1/2, 1 and 1, 1/2, 0, 0: products 0, 1/8, 0, 0; a source at 0 vetoes."""
    table = pd.DataFrame({"external_margin": [0, 1, 2, 4], "implicit_margin": [8, 4, 0, 0]})
    found = MarginProduct(low=0, high=1).scores(table)
    np.testing.assert_allclose(found, [0, 0.125, 0, 0])


def test_quantiles_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(DataError, match="margin_product: the quantiles"):
        MarginProduct(low=0.9, high=0.1)
