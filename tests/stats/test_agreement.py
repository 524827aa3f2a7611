"""Alpha by hand, against an independent pairwise oracle, and its coverage."""

import numpy as np
import pytest

from dpo_diag.stats.agreement import krippendorff_alpha


def slow_alpha(votes: np.ndarray) -> float:
    """Disagreement over all pairs of votes, within units and overall, one pair at a time."""
    units = [np.repeat(np.arange(len(row)), row.astype(int)) for row in votes if row.sum() >= 2]
    pool = np.concatenate(units)
    within = sum((u[:, None] != u[None, :]).sum() / (len(u) - 1) for u in units) / len(pool)
    overall = (pool[:, None] != pool[None, :]).sum() / (len(pool) * (len(pool) - 1))
    return 1 - within / overall


def test_by_hand() -> None:
    """Votes (2,0), (0,2), (1,1): observed 2/6, expected 18/30, alpha 1 - (1/3) / (3/5) = 4/9."""
    found = krippendorff_alpha(np.array([[2, 0], [0, 2], [1, 1]]), np.arange(3))
    assert found.estimate == pytest.approx(4 / 9) and found.n == 3


def test_agrees_with_counting_pairs_of_votes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        votes = rng.integers(0, 4, (12, 3))
        assert krippendorff_alpha(votes, np.arange(12)).estimate == pytest.approx(slow_alpha(votes))


def test_perfect_agreement_is_one_and_no_variety_is_missing() -> None:
    assert krippendorff_alpha(np.array([[3, 0], [0, 3]]), np.arange(2)).estimate == 1.0
    assert np.isnan(krippendorff_alpha(np.array([[3, 0], [3, 0]]), np.arange(2)).estimate)
    assert krippendorff_alpha(np.zeros((0, 2)), np.zeros(0, int)).n == 0


def test_interval_covers_the_truth() -> None:
    """Units prefer one side with 0.8 or 0.2: alpha is 0.36 in the limit; 200 sets of 80 units."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        up = rng.binomial(4, np.where(rng.random(80) < 0.5, 0.8, 0.2))
        found = krippendorff_alpha(np.column_stack([up, 4 - up]), np.arange(80))
        covered += found.low <= 0.36 <= found.high
    assert 178 <= covered <= 199


def test_units_of_one_prompt_move_together() -> None:
    rng = np.random.default_rng(2)
    votes = np.repeat(rng.multinomial(3, [0.5, 0.5], 20), 10, axis=0)
    single = krippendorff_alpha(votes, np.arange(200))
    whole = krippendorff_alpha(votes, np.repeat(np.arange(20), 10))
    assert whole.se > 2 * single.se and whole.estimate == single.estimate
