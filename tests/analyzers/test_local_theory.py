"""Findings of the local theory: sure and unsure orders by hand."""

import numpy as np
import pandas as pd

from dpo_diag.analyzers._local_theory import local_columns


def test_sure_and_unsure_orders_by_hand() -> None:
    """Margins 3, -3, 1 and unknown, all spreads 1: the third lies within two of 0."""
    local = pd.DataFrame(
        {"margin": [3.0, -3.0, 1.0, np.nan], "redraw_spread": [1.0, 1.0, 1.0, np.nan]}
    )
    found = local_columns(local, np.array([0.5, 0.5, 0.0, 1.0]))
    np.testing.assert_equal(found["foreseen_reversal_rate"].to_numpy(), [0, 1, 0, np.nan])
    np.testing.assert_equal(found["chance_order_rate"].to_numpy(), [0, 0, 1, np.nan])
    np.testing.assert_equal(found["foreseen_right"].to_numpy(), [1, 0, 0.5, np.nan])
    np.testing.assert_equal(found["foreseen_right_sure"].to_numpy(), [1, 0, np.nan, np.nan])
    unsure = found["foreseen_right_unsure"].to_numpy()
    np.testing.assert_equal(unsure, [np.nan, np.nan, 0.5, np.nan])


def test_a_margin_at_exactly_two_spreads_is_unsure() -> None:
    local = pd.DataFrame({"margin": [2.0], "redraw_spread": [1.0]})
    assert local_columns(local, np.array([1.0]))["chance_order_rate"].iloc[0] == 1.0
