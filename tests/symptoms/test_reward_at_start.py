"""The level of rewards before the first step, by hand."""

import pytest

from dpo_diag.symptoms.reward_at_start import _level


@pytest.mark.parametrize(
    ("first", "second", "level"),
    [
        (4.0, 4.2, 3.9),  # a wrong reference: off by 3.9 before anything was learned
        (-0.2, -0.6, 0.0),  # learned evenly from 0: the line passes 0 half a row before
        (-0.1, -1.0, 0.0),  # learned ever faster: the line overshoots to the other side
        (-1.0, -1.2, -0.9),
        (2.0, 0.0, 2.0),  # falling back towards 0: never more than was seen
        (0.0, 3.0, 0.0),
    ],
)
def test_level_before_the_first_step(first: float, second: float, level: float) -> None:
    assert _level(first, second) == pytest.approx(level)
