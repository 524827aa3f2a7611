import math

import pytest

from dpo_diag.reporting import numbers
from dpo_diag.reporting.numbers import Number

SHARE = {"unit": "share of pairs", "n": 200}


def test_share_is_shown_in_per_cent_with_its_interval():
    number = Number(0.781, 0.752, 0.81, **SHARE)
    assert numbers.estimate(number) == "78.1 %"
    assert numbers.interval(number) == "75.2 to 81.0"


def test_share_difference_is_shown_in_points_with_its_sign():
    number = Number(0.012, -0.004, 0.028, **SHARE)
    assert numbers.estimate(number, is_difference=True) == "+1.2 points"
    assert numbers.interval(number, is_difference=True) == "-0.4 to +2.8"


def test_a_unit_that_is_a_difference_of_shares_is_shown_in_points():
    drop = Number(0.026, -0.059, 0.091, unit="difference in share of pairs", n=200)
    assert numbers.estimate(drop) == "2.6 points"
    assert numbers.interval(drop) == "-5.9 to 9.1"
    assert numbers.unit_words(drop.unit, "lower") == "points, lower is better"
    whole = Number(1.0, 0.7, 1.0, unit="difference in share of pairs", n=20)
    assert numbers.estimate(whole) == "100.0 points"


def test_a_whole_number_without_an_interval_has_no_digits_after_the_point():
    assert numbers.estimate(Number(25.0, unit="training step", n=300)) == "25"
    assert numbers.estimate(Number(2.5, unit="training step", n=300)) == "2.500"


def test_zero_events_are_shown_with_their_upper_bound():
    """Clopper-Pearson, one-sided 95 %, 0 of 200: .0149 (statistics.md, section 2)."""
    number = Number(0.0, 0.0, 0.0149, **SHARE)
    assert numbers.estimate(number) == "0 % (≤ 1.5 %)"
    assert numbers.interval(number) == ""


def test_all_events_are_shown_with_their_lower_bound():
    """10 of 10: Clopper-Pearson lower bound .6915, rounded down to stay a bound."""
    assert numbers.estimate(Number(1.0, 0.6915, 1.0, **SHARE)) == "100 % (≥ 69.1 %)"


def test_zero_without_a_bound_says_so_and_never_plus_minus_zero():
    assert numbers.estimate(Number(0.0, 0.0, 0.0, **SHARE)) == "0 (no upper bound)"
    assert numbers.estimate(Number(0.0, unit="cost, 0 to 1", n=5)) == "0 (no upper bound)"


def test_bound_of_a_zero_is_rounded_up():
    assert numbers.estimate(Number(0.0, 0.0, 0.01831, **SHARE)) == "0 % (≤ 1.9 %)"
    assert numbers.estimate(Number(0.0, 0.0, 0.0149, unit="cost")) == "0 (≤ 0.015)"


def test_difference_of_zero_is_an_ordinary_number():
    number = Number(0.0, -0.01, 0.01, **SHARE)
    assert numbers.estimate(number, is_difference=True) == "0.0 points"
    assert numbers.interval(number, is_difference=True) == "-1.0 to +1.0"


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (Number(n=0), "n/a (no rows)"),
        (Number(n=5), "n/a (not estimable)"),
        (Number(n=0, flag="no gold order"), "n/a (no gold order)"),
    ],
)
def test_missing_number_says_why(number, shown):
    assert numbers.estimate(number) == shown
    assert numbers.interval(number) == ""


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (math.nan, 0.9, "≤ 0.900"),
        (0.2, math.nan, "≥ 0.200"),
        (math.nan, math.nan, ""),
        (-math.inf, 0.9, "≤ 0.900"),
    ],
)
def test_interval_with_one_end_is_a_bound(low, high, shown):
    assert numbers.interval(Number(0.5, low, high, unit="cost"), 3) == shown


@pytest.mark.parametrize(
    ("value", "half", "unit", "digits"),
    [
        (0.5, 0.03, "share", 1),
        (0.5, 0.0004, "share", 2),
        (12.34, 1.5, "nats", 1),
        (123.4, 25.0, "nats", 0),
        (0.5, 0.0004, "cost", 3),
        (0.0041, 0.0004, "cost", 4),
    ],
)
def test_digits_follow_the_interval(value, half, unit, digits):
    assert numbers.decimals([Number(value, value - half, value + half, unit=unit)]) == digits


def test_small_number_never_rounds_to_zero():
    assert numbers.shown(0.000013, 3) == "1.3e-05"
    assert numbers.shown(-0.0, 2, signed=True) == "0.00"


def test_thousands_are_separated():
    assert numbers.shown(12345.678, 1) == "12,345.7"


@pytest.mark.parametrize(
    ("p", "shown"),
    [(0.3, "p = 0.30"), (0.0213, "p = 0.021"), (0.0021, "p = 0.0021"), (1e-7, "p < 0.0001"),
     (1.0, "p = 1.00"), (0.0, "p < 0.0001"), (math.nan, "")],
)  # fmt: skip
def test_p_value_keeps_its_digits(p, shown):
    assert numbers.p_value(Number(0.1, p_adjusted=p)) == shown


def test_detectable_difference_of_shares_is_in_points():
    assert (
        numbers.detectable(Number(0.0, unit="share", detectable=0.023), 1) == "detects 2.3 points"
    )
    assert numbers.detectable(Number(0.0, unit="cost", detectable=0.06), 3) == "detects 0.060"
    assert numbers.detectable(Number(0.0), 1) == ""


def test_unit_words_name_the_direction():
    assert numbers.unit_words("share of pairs", "higher") == "%, higher is better"
    assert numbers.unit_words("nats", "neither") == "nats"


def test_title_spells_abbreviations():
    assert numbers.title("cost_cvar") == "cost CVaR"
    assert numbers.title("ood_accuracy_drop") == "OOD accuracy drop"
