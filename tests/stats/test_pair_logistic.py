"""The fit against Newton's method on dense arrays; folds keep prompts whole."""

import numpy as np
import pytest
from scipy import sparse

from dpo_diag.stats.pair_logistic import fit_pair_logistic, held_out_scores


def newton(x: np.ndarray, penalty: float) -> np.ndarray:
    weights = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(x @ weights))  # of the label's opposite
        gradient = penalty * weights - x.T @ p
        hessian = penalty * np.eye(x.shape[1]) + x.T @ (x * (p * (1 - p))[:, None])
        weights = weights - np.linalg.solve(hessian, gradient)
    return weights


def test_weights_are_newtons() -> None:
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 0.0, 0.0, 1.0], (80, 6)) + np.array([0.3, 0, 0, 0, 0, -0.2])
    for penalty in (0.3, 1.0, 10.0):
        found = fit_pair_logistic(sparse.csr_array(x), penalty=penalty)
        np.testing.assert_allclose(found, newton(x, penalty), atol=2e-4)


def test_one_feature_by_hand() -> None:
    """One row of 1: the weight w solves w = sigma(-w), 0.4011."""
    weight = fit_pair_logistic(sparse.csr_array(np.ones((1, 1))))[0]
    assert weight == pytest.approx(1 / (1 + np.exp(weight)), abs=1e-4)


def test_a_prompts_rows_are_never_fitted_and_scored_together() -> None:
    """Each prompt has a word of its own, the same in its two rows: unseen, so the score is 0."""
    x = sparse.csr_array(np.repeat(np.eye(10), 2, axis=0))
    scores = held_out_scores(x, np.repeat(np.arange(10), 2), rng=np.random.default_rng(0))
    assert (scores == 0.0).all()


def test_a_shared_word_is_learnt() -> None:
    x = sparse.csr_array(np.ones((20, 1)))
    assert (held_out_scores(x, np.arange(20), rng=np.random.default_rng(0)) > 0).all()


def test_one_prompt_cannot_be_held_out() -> None:
    x = sparse.csr_array(np.ones((3, 1)))
    assert np.isnan(held_out_scores(x, np.zeros(3), rng=np.random.default_rng(0))).all()


def test_no_rows_and_no_features_give_nothing() -> None:
    assert len(fit_pair_logistic(sparse.csr_array((0, 4)))) == 4
    assert len(held_out_scores(sparse.csr_array((0, 4)), np.zeros(0), rng=None)) == 0
