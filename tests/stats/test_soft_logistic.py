"""Logistic regression in a ball: by hand, its optimality conditions, and where there is none."""

import numpy as np
import pytest
from scipy import special

from dpo_diag.stats.soft_logistic import SoftLabels, best_point, curvature


def labels_of(p, shares=None, scale: float = 1.0) -> SoftLabels:
    p = np.asarray(p, float)
    return SoftLabels(np.full(len(p), 1 / len(p)) if shares is None else shares, p, scale)


def test_one_row_by_hand() -> None:
    """One feature of 2, probability .8, scale .5: the point is logit(.8) = 1.386294."""
    point, multiplier = best_point(np.array([[2.0]]), labels_of([0.8], scale=0.5), np.inf)
    assert point == pytest.approx([1.386294], abs=1e-6)
    assert multiplier == 0.0


def test_bound_by_hand() -> None:
    """The same held to length 1: slope .5 * 2 * (sigmoid(1) - .8) = -.068941, the multiplier."""
    point, multiplier = best_point(np.array([[2.0]]), labels_of([0.8], scale=0.5), 1.0)
    assert point == pytest.approx([1.0], abs=1e-9)
    assert multiplier == pytest.approx(0.8 - special.expit(1.0), rel=1e-8)


@pytest.mark.parametrize("dimensions", [5, 340])
@pytest.mark.parametrize("bound", [0.3, 3.0])
def test_slope_is_along_the_point_on_the_ball(dimensions: int, bound: float) -> None:
    """With matrices (5 dimensions) and without (340), labels certain: nothing is free."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(380, dimensions))
    shares = generator.uniform(size=380)
    labels = labels_of(features[:, 0] > 0, shares / shares.sum(), 0.4)
    point, multiplier = best_point(features, labels, bound)
    assert np.linalg.norm(point) == pytest.approx(bound, rel=1e-9)
    left = labels.shares * (special.expit(0.4 * features @ point) - labels.probabilities)
    np.testing.assert_allclose(0.4 * features.T @ left, -multiplier * point, atol=1e-10)


def test_curvature_is_the_slopes_finite_difference() -> None:
    generator = np.random.default_rng(1)
    features, point = generator.normal(size=(9, 3)), generator.normal(size=3)
    labels = labels_of(generator.uniform(size=9), scale=0.7)

    def slope(at: np.ndarray) -> np.ndarray:
        left = labels.shares * (special.expit(0.7 * features @ at) - labels.probabilities)
        return 0.7 * features.T @ left

    expected = [(slope(point + 1e-6 * e) - slope(point - 1e-6 * e)) / 2e-6 for e in np.eye(3)]
    np.testing.assert_allclose(curvature(features, labels, point), expected, atol=1e-8)


def test_nothing_to_learn_stays_at_the_start() -> None:
    point, multiplier = best_point(np.ones((2, 1)), labels_of([0.5, 0.5]), 1.0)
    assert (point, multiplier) == (0.0, 0.0)


def test_certain_labels_without_a_bound_are_refused() -> None:
    with pytest.raises(ValueError, match="no finite optimum"):
        best_point(np.array([[1.0]]), labels_of([1.0]), np.inf)
