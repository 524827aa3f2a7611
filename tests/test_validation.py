"""The simulations of ``tests/validation`` measure what they say: exact answers where there are."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from dpo_diag.reporting.saved import read_saved
from dpo_diag.stats.intervals import clopper_pearson

ROOT = Path(__file__).parents[1]
WORLDS = 1500


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tests" / "validation")
    return importlib.import_module("cells")


@pytest.fixture
def worlds(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tests" / "validation")
    return importlib.import_module("worlds")


def rate(cell, worlds: int = WORLDS) -> float:
    return float(np.mean(list(cell.answers(np.random.default_rng(0), worlds))))


def four_errors(value: float) -> float:
    return 4 * np.sqrt(value * (1 - value) / WORLDS)


@pytest.mark.parametrize(("n", "share"), [(50, 0.01), (20, 0.05), (50, 0.5)])
def test_coverage_of_independent_pairs_is_the_binomials(cells, n: int, share: float) -> None:
    """Sum of the probabilities of the counts whose interval holds the share."""
    k = np.arange(n + 1)
    low, high = clopper_pearson(k, np.full(n + 1, n))
    exact = stats.binom.pmf(k, n, share)[(low <= share) & (share <= high)].sum()
    row = f"n, true share={n}, {share:g}"
    cell = next(c for c in cells.share_cells() if (c.column, c.row) == ("one pair per prompt", row))
    assert rate(cell) == pytest.approx(exact, abs=four_errors(exact))


def test_power_of_separate_shares_is_the_normal_one(cells) -> None:
    """Z = 31 of 500 is needed; K has mean 25 and sd sqrt(500 * (.08 - .05^2)): P(K >= 30.5)."""
    cell = list(cells.power_cells(is_paired=False))[1]
    sd = np.sqrt(500 * (0.08 - 0.05**2))
    expected = stats.norm.sf((30.5 - 25.0) / sd)
    assert rate(cell) == pytest.approx(expected, abs=four_errors(expected) + 0.01)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_worlds_have_the_share_and_the_correlation_they_say(worlds, share: float) -> None:
    rng = np.random.default_rng(1)
    sets = worlds.shares(rng, n=4000, share=share, worlds=20, size=2, icc=0.3, ties=0.4)
    values = np.concatenate([values for values, _ in sets])
    assert values.mean() == pytest.approx(share, abs=0.01)
    assert np.corrcoef(values[::2], values[1::2])[0, 1] == pytest.approx(0.3, abs=0.03)
    assert (values == 0.5).mean() == pytest.approx(0.4 * min(share, 1 - share), abs=0.01)


def test_models_of_a_world_differ_by_what_it_says(worlds) -> None:
    rng = np.random.default_rng(2)
    first, second = next(worlds.discordant(rng, n=200_000, gain=0.05, disagreeing=0.08, worlds=1))
    assert first.mean() - second.mean() == pytest.approx(0.05, abs=0.003)
    assert (first != second).mean() == pytest.approx(0.08, abs=0.003)
    one, two, _ = next(
        worlds.couples(rng, n=200_000, first=0.7, second=0.65, worlds=1, size=4, icc=0.3)
    )
    assert (one.mean(), two.mean()) == pytest.approx((0.7, 0.65), abs=0.005)


def test_committed_report_meets_the_issues_aims() -> None:
    """Power and false alarms as aimed at; no interval of shares covers less than 93 %."""
    report = read_saved(ROOT / "reports" / "validation" / "coverage")
    findings = report.findings
    assert (findings["n"] >= 1000).all()
    shares = findings[findings["analyzer"].isin(["shares", "drops", "paired_differences"])]
    assert (shares["flag"] != "below the aim").all()
    alarms = findings[findings["analyzer"] == "false_alarms"]
    assert (alarms["flag"] != "above the aim").all()
    power = findings[findings["statistic"] == "power"].groupby("analyzer")["estimate"]
    assert power.min()["power_paired"] >= 0.7 and power.max()["power_unpaired"] <= 0.22
