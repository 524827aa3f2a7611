"""The best step is chosen honestly: no loss is seen where there is none, a real one is."""

import numpy as np
import pytest
from scipy import stats

from dpo_diag.stats.intervals import clustered_mean
from dpo_diag.stats.selection import best_column, cross_fit, simultaneous_band, since_chosen


def test_best_column_is_the_largest_mean_and_the_last_of_equal_ones() -> None:
    assert best_column(np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])) == 2
    assert best_column(np.array([[1.0, 0.0], [np.nan, 1.0]])) == 0


def test_a_row_is_judged_by_the_choice_of_the_other_half() -> None:
    """Prompts of which column 0 and prompts of which column 1 is right: each half sees its own."""
    rng = np.random.default_rng(0)
    scores = rng.random((40, 3))
    clusters = np.repeat(np.arange(20), 2)
    choice = cross_fit(scores, clusters, rng=np.random.default_rng(1))
    for row in range(40):
        others = [r for r in range(40) if choice.of_row[r] != choice.of_row[row]]
        if choice.chosen[0] != choice.chosen[1]:
            assert choice.of_row[row] == best_column(scores[others])
    for prompt in range(20):  # a prompt is never split
        assert len(set(choice.of_row[clusters == prompt])) == 1


def test_loss_by_hand_where_both_halves_choose_alike() -> None:
    """Column 0 right on 8 of 10, the end on 5, all of them among the 8: 5/10 - 8/10."""
    scores = np.zeros((10, 2))
    scores[:8, 0] = 1.0
    scores[:5, 1] = 1.0
    choice = cross_fit(scores, np.arange(10), rng=np.random.default_rng(4))
    assert choice.chosen == (0, 0)
    found = since_chosen(scores, choice, np.arange(10), rng=np.random.default_rng(0))
    assert found.estimate == pytest.approx(-0.3)
    assert "cross-fitted" in found.method and "McNemar" in found.method


def test_one_prompt_has_no_halves() -> None:
    with pytest.raises(ValueError, match="1 prompts cannot be split"):
        cross_fit(np.ones((3, 2)), np.zeros(3, int), rng=np.random.default_rng(0))


def test_winners_curse_is_gone() -> None:
    """Ten steps and an end of one true accuracy .7, 200 worlds of 150 prompts.

    The best step on the same prompts looks better than the end by points; cross-fitted by none.
    """
    rng = np.random.default_rng(5)
    naive, fitted = [], []
    for _ in range(200):
        scores = (rng.random((150, 11)) < 0.7).astype(float)
        naive.append(scores.mean(axis=0).max() - scores[:, -1].mean())
        choice = cross_fit(scores, np.arange(150), rng=rng)
        fitted.append(since_chosen(scores, choice, np.arange(150), rng=rng).estimate)
    assert np.mean(naive) > 0.05
    assert abs(np.mean(fitted)) < 3 * np.std(fitted) / np.sqrt(200)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_interval_covers_the_loss_since_what_the_halves_chose(loss: float) -> None:
    """Six steps; the third is better than the end by ``loss``: 400 worlds, 150 prompts of two."""
    rng = np.random.default_rng(6)
    accuracy = np.full(6, 0.6)
    accuracy[2] += loss
    clusters, held, alarms = np.repeat(np.arange(150), 2), 0, 0
    for _ in range(400):
        base = np.repeat(rng.normal(size=(150, 1)), 2, axis=0)
        latent = 0.7 * base + np.sqrt(1 - 0.49) * rng.normal(size=(300, 6))
        scores = (latent < stats.norm.ppf(accuracy)).astype(float)
        choice = cross_fit(scores, clusters, rng=rng)
        found = since_chosen(scores, choice, clusters, rng=rng)
        truth = np.mean(accuracy[-1] - accuracy[choice.of_row])
        held += found.low <= truth <= found.high if not np.isnan(found.low) else True
        alarms += found.p_value < 0.05 and found.estimate < 0.0
    assert 0.93 <= held / 400 <= 0.995
    assert alarms / 400 <= 0.06 if loss == 0.0 else alarms / 400 > 0.5


def test_band_of_one_column_is_the_clustered_t_interval() -> None:
    rng = np.random.default_rng(7)
    values, clusters = rng.normal(size=(60, 1)), np.repeat(np.arange(30), 2)
    band = simultaneous_band(values, clusters, rng=rng)
    interval = clustered_mean(values[:, 0], clusters)
    assert band.low[0] == pytest.approx(interval.low, abs=0.01)
    assert band.high[0] == pytest.approx(interval.high, abs=0.01)


def test_band_of_equal_columns_is_no_wider_and_of_unlike_ones_below_bonferroni() -> None:
    rng = np.random.default_rng(8)
    one = rng.normal(size=(200, 1))
    single = simultaneous_band(one, np.arange(200), rng=np.random.default_rng(0))
    same = simultaneous_band(np.repeat(one, 8, axis=1), np.arange(200), rng=rng)
    assert (same.high - same.low)[3] == pytest.approx(
        (single.high - single.low)[0],
        rel=0.025,  # four standard errors of two drawn quantiles
    )
    wide = simultaneous_band(rng.normal(size=(200, 8)), np.arange(200), rng=rng)
    bonferroni = stats.t.isf(0.025 / 8, 199) / np.sqrt(200)
    assert 1.02 * bonferroni > (wide.high - wide.low).mean() / 2 > 0.8 * bonferroni


@pytest.mark.slow
def test_band_covers_all_steps_at_once() -> None:
    rng = np.random.default_rng(9)
    held = 0
    for _ in range(400):
        values = rng.normal(size=(80, 1)) + rng.normal(size=(80, 7))
        band = simultaneous_band(values, np.arange(80), rng=rng)
        held += bool(np.all((band.low <= 0.0) & (band.high >= 0.0)))
    assert 0.925 <= held / 400 <= 0.975


def test_nothing_that_varies_has_no_band() -> None:
    band = simultaneous_band(np.zeros((5, 2)), np.arange(5), rng=np.random.default_rng(0))
    assert np.isnan(band.low).all() and band.estimate.tolist() == [0.0, 0.0]
    assert np.isnan(simultaneous_band(np.empty((0, 2)), np.empty(0, int), rng=None).estimate).all()
