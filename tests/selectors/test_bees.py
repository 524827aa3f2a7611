"""BeeS by hand, its clamp, and what a source without a say does to the other."""

import numpy as np
import pandas as pd
import pytest

from dpo_diag.errors import DataError
from dpo_diag.selectors.bees import Bees

UNCLIPPED = Bees(low=0.0, high=1.0)


def pairs(external: list[float], implicit: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"external_margin": external, "implicit_margin": implicit})


def test_joint_chance_by_hand() -> None:
    """L = 0 and U = 4 for both, so p is 0, 1/4, 1/2, 1; (1/16) / (1/16 + 9/16) = 0.1.

    The third pair has 1/2 and 1/2, so 1/2; the first and last are clamped: odds of eps squared.
    """
    found = UNCLIPPED.scores(pairs([0, 1, 2, 4], [0, 1, 2, 4]))
    odds = (1e-6 / (1 - 1e-6)) ** 2
    np.testing.assert_allclose(found, [odds / (1 + odds), 0.1, 0.5, 1 / (1 + odds)], rtol=1e-9)


def test_sources_of_other_units_give_the_same() -> None:
    """Margins are scaled by their own source: 10 m + 3 is m again."""
    external = np.array([0.0, 1, 2, 4])
    one = UNCLIPPED.scores(pairs(external, [3, 1, 0, 2]))
    np.testing.assert_allclose(UNCLIPPED.scores(pairs(10 * external + 3, [3, 1, 0, 2])), one)


def test_a_pair_at_opposite_bounds_is_undecided_not_0_over_0() -> None:
    """Clamped to eps and 1 - eps: eps (1 - eps) / (2 eps (1 - eps)) = 1/2; else 0 / 0."""
    found = UNCLIPPED.scores(pairs([0, 4, 2], [4, 0, 2]))
    np.testing.assert_allclose(found, [0.5, 0.5, 0.5], rtol=1e-9)


def test_quantiles_clip_each_source_by_hand() -> None:
    """Of 0, 1, ..., 100 the 2 % and 98 % quantiles are 2 and 98: 26 has (26 - 2) / 96 = 1/4."""
    parts = Bees().parts(pairs(list(range(101)), [-m for m in range(101)]))
    external, implicit = parts["p_external"], parts["p_implicit"]
    assert external[26] == pytest.approx(0.25) and implicit[26] == pytest.approx(0.75)
    assert (external[:3] == 1e-6).all() and (external[98:] == 1 - 1e-6).all()


def test_a_source_that_says_nothing_leaves_the_other_alone() -> None:
    """All its chances are 1/2, whose odds are 1."""
    found = UNCLIPPED.scores(pairs([0, 1, 2, 4], [7, 7, 7, 7]))
    np.testing.assert_allclose(found[1:3], [0.25, 0.5], rtol=1e-9)


def test_a_margin_missing_in_one_source_is_no_chance_of_one_half() -> None:
    found = UNCLIPPED.scores(pairs([0, np.nan, 2, 4], [0, 1, np.nan, 4]))
    np.testing.assert_array_equal(np.isnan(found), [False, True, True, False])


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"low": 0.98, "high": 0.02}, "0 <= low < high <= 1, got low 0.98 and high 0.02"),
        ({"low": -0.1}, "low -0.1"),
        ({"high": 1.5}, "high 1.5"),
        ({"eps": 0.0}, "eps must be above 0 and below 0.5, got 0.0"),
        ({"eps": 0.5}, "eps must be above 0"),
    ],
)
def test_parameters_out_of_range(parameters: dict, named: str) -> None:
    with pytest.raises(DataError, match=named):
        Bees(**parameters)
