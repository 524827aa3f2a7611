"""Sketches of gradients: unbiased, of the variance that is stated, exact norms beside them."""

import numpy as np
import pytest

from dpo_diag.errors import RecipeError
from dpo_diag.training import gradient_sketch
from dpo_diag.training.gradient_sketch import CountSketch, Whole, adam_weights

SIZES = (41, 24, 7)
K = 8


def made(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=n).astype(np.float32) for n in SIZES]


def recurring() -> list[np.ndarray]:
    """An outlier at every K-th coordinate, as a hidden dimension in weights whose rows K divides.

    Were buckets a coordinate's number modulo K, all of them would share one.
    """
    arrays = made(5)
    for array in arrays:
        array[::K] *= 10
    return arrays


def flat(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays).astype(np.float64)


def stretches(values: np.ndarray) -> np.ndarray:
    """Sums over each parameter's stretches of K coordinates."""
    ends = np.cumsum(SIZES)
    parts = [values[end - n : end] for n, end in zip(SIZES, ends, strict=True)]
    return np.array([part[i : i + K].sum() for part in parts for i in range(0, len(part), K)])


@pytest.mark.parametrize("arrays", [(made(1), made(2)), (recurring(), recurring())])
def test_products_are_unbiased_with_the_stated_variance(arrays: tuple) -> None:
    """4000 draws; the variance over pairs of coordinates in different stretches, each 1/k."""
    left, right = arrays
    g, h = flat(left), flat(right)
    found = []
    for seed in range(4000):
        sketch = CountSketch(SIZES, K, seed)
        found.append(float(sketch(left).plain.astype(float) @ sketch(right).plain))
    gg, hh, gh = stretches(g * g), stretches(h * h), stretches(g * h)
    apart = gg.sum() * hh.sum() - (gg * hh).sum() + gh.sum() ** 2 - (gh * gh).sum()
    variance = apart / K
    assert abs(np.mean(found) - g @ h) < 4 * np.sqrt(variance / len(found))
    # the share of a variance estimate's own error: below 6 % for 4000 draws of a heavy tail
    assert np.var(found) == pytest.approx(variance, rel=0.2)
    assert variance <= (g @ g * (h @ h) + (g @ h) ** 2) / K


def test_a_gradient_of_one_stretch_keeps_its_products_to_rounding() -> None:
    left, right = made(1)[:1], made(2)[:1]
    sketch = CountSketch(SIZES[:1], 41, 0)
    products = sketch(left).plain.astype(float) @ sketch(right).plain
    assert products == pytest.approx(flat(left) @ flat(right), rel=1e-5)


def test_sketch_is_linear_in_the_gradient() -> None:
    sketch = CountSketch(SIZES, K, 3)
    left, right = made(1), made(2)
    both = [a - 2 * b for a, b in zip(left, right, strict=True)]
    expected = sketch(left).plain - 2 * sketch(right).plain
    np.testing.assert_allclose(sketch(both).plain, expected, atol=1e-5)


def test_the_same_seed_gives_the_same_sketch_and_another_another() -> None:
    first, again, other = (CountSketch(SIZES, K, seed)(made(1)).plain for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("k", [1, 5, 8, 100])
def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    weights = [np.abs(w) for w in made(3)]
    whole = CountSketch(SIZES, k, 0, weights)(made(1))
    monkeypatch.setattr(gradient_sketch, "BLOCK", 10)
    cut = CountSketch(SIZES, k, 0, weights)(made(1))
    np.testing.assert_allclose(cut.plain, whole.plain, atol=1e-5)
    np.testing.assert_allclose(cut.adam, whole.adam, atol=1e-5)
    assert (cut.square, cut.adam_square) == pytest.approx((whole.square, whole.adam_square))


@pytest.mark.parametrize("kind", ["sketch", "whole"])
def test_norms_are_those_of_the_gradient_and_not_of_the_row(kind: str) -> None:
    weights = [np.abs(w) for w in made(3)]
    keep = CountSketch(SIZES, K, 0, weights) if kind == "sketch" else Whole(SIZES, weights)
    row = keep(made(1))
    g, a = flat(made(1)), flat(made(1)) * flat(weights)
    assert (row.square, row.adam_square) == pytest.approx((g @ g, a @ a), rel=1e-5)


def test_preconditioned_sketch_is_the_sketch_of_the_preconditioned_gradient() -> None:
    weights = [np.abs(w) for w in made(3)]
    scaled = [g * w for g, w in zip(made(1), weights, strict=True)]
    row = CountSketch(SIZES, K, 0, weights)(made(1))
    np.testing.assert_allclose(row.adam, CountSketch(SIZES, K, 0)(scaled).plain, atol=1e-5)
    assert CountSketch(SIZES, K, 0)(scaled).adam is None


def test_weights_of_adam_are_those_of_half_a_step_each() -> None:
    """With v = 4 and epsilon 0: D = 2, half of D^-1 on each side 0.7071; v = 0 is left out.

    v = 9, epsilon 1: D = 4, weight 0.5. A step on g moves by g / D, so <a_i, a_j> of one
    coordinate 3 and 5 with D = 4 is 15 / 4.
    """
    assert adam_weights([np.array([4.0, 0.0], np.float32)], 0.0)[0].tolist() == pytest.approx(
        [2**-0.5, 0.0]
    )
    weight = adam_weights([np.array([9.0], np.float32)], 1.0)[0][0]
    assert (3 * weight) * (5 * weight) == pytest.approx(15 / 4)


@pytest.mark.parametrize("k", [0, -3])
def test_a_sketch_without_columns_is_refused(k: int) -> None:
    with pytest.raises(RecipeError, match=f"at least 1 column, got k = {k}"):
        CountSketch(SIZES, k, 0)
