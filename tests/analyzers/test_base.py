"""Rows of Findings: what is missing stays missing, what ought to cancel is zero."""

import math

import pytest

from dpo_diag.analyzers._base import finding


@pytest.mark.parametrize(
    ("estimate", "kept"),
    [(-5.6e-17, 0.0), (2.8e-30, 0.0), (1e-14, 1e-14), (-0.2, -0.2), (0.0, 0.0)],
)
def test_an_estimate_that_is_round_off_is_zero(estimate: float, kept: float) -> None:
    assert finding("ood", "drop", "m", estimate=estimate)["estimate"] == kept


def test_an_estimate_that_is_not_given_is_missing() -> None:
    assert math.isnan(finding("ood", "drop", "m")["estimate"])
