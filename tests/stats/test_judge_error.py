"""Corrections for a judge's error: numbers by hand, populations, coverage in worlds."""

from typing import NamedTuple

import numpy as np
import pytest

from dpo_diag.stats.judge_error import JudgeRates, judge_rates, prediction_powered, rogan_gladen

ONES = np.arange(10)


def test_one_error_rate_by_hand() -> None:
    """Agreement 7 of 10, judge right 4 of 5: (0.7 - 0.2) / (1 - 0.4) = 0.8333."""
    agrees = np.array([1.0] * 7 + [0.0] * 3)
    found = rogan_gladen(agrees, np.ones(10, bool), ONES, rates=JudgeRates(2, 3, 2, 2))
    assert found.estimate == pytest.approx(5 / 6)
    assert "one error rate" in found.method
    assert found.low < found.estimate < found.high


def test_two_error_rates_solve_the_population_exactly() -> None:
    """Truth first in 60 %, model right 80/70 %, judge .9/.6, independent: accuracy 0.76.

    Expected counts of (model first, judge first), with 10,000 pairs:
    first and first: .6*.8*.9 + .4*.3*.4 = .48; first and second: .6*.8*.1 + .4*.3*.6 = .12;
    second and first: .6*.2*.9 + .4*.7*.4 = .22; second and second: .6*.2*.1 + .4*.7*.6 = .18.
    """
    cells = {(1, 1): 4800, (1, 0): 1200, (0, 1): 2200, (0, 0): 1800}
    model = np.concatenate([np.full(n, m) for (m, _), n in cells.items()])
    judge = np.concatenate([np.full(n, j) for (_, j), n in cells.items()])
    rates = JudgeRates(900, 1000, 600, 1000)
    agrees = (model == judge).astype(float)
    found = rogan_gladen(agrees, judge == 1, np.arange(10_000), rates=rates)
    assert found.estimate == pytest.approx(0.6 * 0.8 + 0.4 * 0.7)


def test_a_perfect_judge_on_few_pairs_is_not_certain() -> None:
    agrees = np.array([1.0, 0.0] * 500)
    few = rogan_gladen(agrees, np.ones(1000, bool), np.arange(1000), rates=JudgeRates(6, 6, 6, 6))
    many = JudgeRates(600, 600, 600, 600)
    sure = rogan_gladen(agrees, np.ones(1000, bool), np.arange(1000), rates=many)
    assert few.estimate == sure.estimate == 0.5
    agrees = np.array([1.0] * 900 + [0.0] * 100)
    few, sure = (
        rogan_gladen(agrees, np.ones(1000, bool), np.arange(1000), rates=rates)
        for rates in (JudgeRates(6, 6, 6, 6), many)
    )
    assert few.high - few.low > 2 * (sure.high - sure.low)


def test_a_judge_at_chance_gives_no_number() -> None:
    found = rogan_gladen(np.ones(10), np.ones(10, bool), ONES, rates=JudgeRates(10, 20, 10, 20))
    assert np.isnan(found.estimate)
    assert found.method == "the judge is not better than chance"


def test_rates_are_counted_by_the_truth() -> None:
    judged = np.array([True, True, False, False, True])
    gold = np.array([1.0, 0.0, 0.0, 1.0, np.nan])
    assert judge_rates(judged, gold) == JudgeRates(1, 2, 1, 2)


def test_prediction_powered_by_hand() -> None:
    """Validated z = (1, 0), g = (1, 0); others g = (1, 1, 1, 0): everything varies with g.

    cov = 1/4, var of all six g = 2/9, so k = (1/4) / ((1 + 1/2) * 2/9) = 0.75; the estimate is
    1/2 + 0.75 * (3/4 - 1/2) = 0.6875.
    """
    agrees = np.array([1.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    validated = np.array([1.0, 0.0, np.nan, np.nan, np.nan, np.nan])
    found = prediction_powered(agrees, validated, np.arange(6))
    assert found.estimate == pytest.approx(0.6875)
    assert found.n == 6


def test_a_judge_that_says_nothing_leaves_the_validated_mean() -> None:
    agrees = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    validated = np.array([1.0, 1.0, 0.0, 0.0, np.nan, np.nan])
    found = prediction_powered(agrees, validated, np.arange(6))
    assert found.estimate == 0.5
    assert found.n == 4
    assert "weight 0.00" in found.method


def test_few_validated_pairs_do_not_promise_more_than_they_know() -> None:
    """500 worlds of 400 pairs, 15 validated, accuracy .9.

    Normal limits alone hold in .69 of them; in .22 there are none.
    """
    generator, hits = np.random.default_rng(12), 0
    for _ in range(500):
        right = generator.random(400) < 0.9
        agrees = np.where(generator.random(400) < 0.9, right, ~right).astype(float)
        validated = np.where(np.arange(400) < 15, right.astype(float), np.nan)
        found = prediction_powered(agrees, validated, np.arange(400))
        hits += found.low <= 0.9 <= found.high
    assert hits / 500 >= 0.93


def test_without_validated_pairs_there_is_no_number() -> None:
    found = prediction_powered(np.ones(4), np.full(4, np.nan), np.arange(4))
    assert np.isnan(found.estimate)
    assert found.n == 0


class World(NamedTuple):
    """Pairs of a planted world: truth, judge and model as who takes the first answer."""

    truth: np.ndarray
    judge: np.ndarray
    model: np.ndarray
    known: np.ndarray

    @property
    def agrees(self) -> np.ndarray:
        return (self.model == self.judge).astype(float)

    @property
    def validated(self) -> np.ndarray:
        right = (self.model == self.truth).astype(float)
        return np.where(self.known, right, np.nan)


def world(rng: np.random.Generator, *, shared: float = 0.0) -> World:
    """300 pairs, 60 validated; model right 75 %, judge right 88 % and 78 %.

    ``shared``: chance that a wrong model draws the judge into its error.
    """
    n = 300
    truth = rng.random(n) < 0.5
    model = np.where(rng.random(n) < 0.75, truth, ~truth)
    right = rng.random(n) < np.where(truth, 0.88, 0.78)
    right &= ~((model != truth) & (rng.random(n) < shared))
    known = np.zeros(n, bool)
    known[rng.choice(n, 60, replace=False)] = True
    return World(truth, np.where(right, truth, ~truth), model, known)


def coverage(shared: float, worlds: int = 1000) -> dict[str, float]:
    rng, clusters = np.random.default_rng(11), np.arange(300)
    hits = {"rogan_gladen": 0, "prediction_powered": 0, "as if the judge were the truth": 0}
    for _ in range(worlds):
        w = world(rng, shared=shared)
        gold = np.where(w.known, w.truth.astype(float), np.nan)
        rates = judge_rates(w.judge, gold)
        naive = w.agrees.mean()
        half = 1.96 * np.sqrt(naive * (1 - naive) / 300)
        corrected = rogan_gladen(w.agrees, w.judge, clusters, rates=rates)
        powered = prediction_powered(w.agrees, w.validated, clusters)
        hits["rogan_gladen"] += corrected.low <= 0.75 <= corrected.high
        hits["prediction_powered"] += powered.low <= 0.75 <= powered.high
        hits["as if the judge were the truth"] += abs(naive - 0.75) <= half
    return {name: n / worlds for name, n in hits.items()}


def test_both_cover_where_judge_and_model_err_apart() -> None:
    """1,000 worlds of 300 pairs, 60 validated; agreement taken for accuracy covers in few."""
    found = coverage(shared=0.0)
    assert 0.93 <= found["rogan_gladen"] <= 0.985
    assert 0.93 <= found["prediction_powered"] <= 0.975
    assert found["as if the judge were the truth"] < 0.4


def test_only_prediction_powered_covers_where_they_err_together() -> None:
    found = coverage(shared=0.5)
    assert 0.93 <= found["prediction_powered"] <= 0.975
    assert found["rogan_gladen"] < 0.7
