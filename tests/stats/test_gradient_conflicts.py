"""Conflict scores by hand and against loops."""

import numpy as np
import pytest

from dpo_diag.stats.gradient_conflicts import (
    conflict_scores,
    negative_products,
    same_pair,
    same_prompt,
)


def test_scores_by_hand() -> None:
    """One pair of length 2 with products -2, 4 of lengths 1, 4: cosines -1, 1/2, so 1/2."""
    kernel = np.array([[-2.0, 4.0]])
    lengths = {"eval_norms": np.array([2.0]), "train_norms": np.array([1.0, 4.0])}
    np.testing.assert_allclose(conflict_scores(kernel, **lengths), [0.5])
    np.testing.assert_allclose(negative_products(kernel), [2.0])


@pytest.mark.parametrize("key", ["pair", "prompt"])
def test_scores_are_loops_over_the_other_pairs(key: str) -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(14, 5))
    train = np.arange(9)  # the other five are held out, one on a prompt of the training pairs
    pairs, prompts = np.array([f"p{i}" for i in range(14)]), np.arange(14) // 2
    kernel, norms = features @ features[train].T, np.linalg.norm(features, axis=1)
    excluded = (
        same_pair(pairs, pairs[train]) if key == "pair" else same_prompt(prompts, prompts[train])
    )
    names = pairs if key == "pair" else prompts
    cosines, products = np.zeros(14), np.zeros(14)
    for i in range(14):
        for j in train:
            if names[i] != names[j]:
                product = features[i] @ features[j]
                cosines[i] -= product / (norms[i] * norms[j])
                products[i] -= min(product, 0.0)
    found = conflict_scores(kernel, eval_norms=norms, train_norms=norms[train], excluded=excluded)
    np.testing.assert_allclose(found, cosines)
    np.testing.assert_allclose(negative_products(kernel, excluded=excluded), products)


def test_lengths_of_gradients_do_not_matter_to_the_cosines() -> None:
    generator = np.random.default_rng(1)
    features = generator.normal(size=(8, 3))
    scaled = features * generator.uniform(0.1, 50, size=(8, 1))
    scores = [
        conflict_scores(
            f @ f.T, eval_norms=np.linalg.norm(f, axis=1), train_norms=np.linalg.norm(f, axis=1)
        )
        for f in (features, scaled)
    ]
    np.testing.assert_allclose(*scores)


def test_a_pair_without_gradient_has_no_score_and_pulls_nowhere() -> None:
    kernel = np.array([[1.0, 0.0], [0.0, 0.0]])
    norms = np.array([1.0, 0.0])
    found = conflict_scores(kernel, eval_norms=norms, train_norms=norms)
    np.testing.assert_allclose(found, [-1.0, np.nan])


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="kernel of shape"):
        conflict_scores(np.zeros((2, 3)), eval_norms=np.ones(3), train_norms=np.ones(2))
    with pytest.raises(ValueError, match="exclusions"):
        negative_products(np.zeros((2, 3)), excluded=[])
