"""Linearised DPO against gradient descent on the parameters of an explicit linear model."""

import numpy as np
import pytest
from scipy import special

from dpo_diag.stats.linearised_dpo import (
    Settings,
    descend,
    pushes,
    stable_learning_rate,
    strongest_pushes,
)


def linear_world(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of 12 training and 5 other pairs of a model with 7 parameters."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=(12, 7)), generator.normal(size=(5, 7))


def explicit(
    train: np.ndarray, *, steps: int, rate: float, beta: float, smoothing: float = 0.0
) -> np.ndarray:
    """The parameters after plain gradient descent on the mean cDPO loss, from 0."""
    delta = np.zeros(train.shape[1])
    for _ in range(steps):
        margins = train @ delta
        slope = -(1 - smoothing) * beta * special.expit(-beta * margins)
        slope = slope + smoothing * beta * special.expit(beta * margins)
        delta = delta - rate * (slope[:, None] * train).mean(axis=0)
    return delta


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_margins_are_those_of_descent_on_the_parameters(smoothing: float) -> None:
    train, other = linear_world()
    settings = Settings(0.5, steps=40, learning_rate=0.8, label_smoothing=smoothing)
    found = descend(train @ train.T, settings, eval_kernel=other @ train.T)
    delta = explicit(train, steps=40, rate=0.8, beta=0.5, smoothing=smoothing)
    np.testing.assert_allclose(found.train_margins, train @ delta, rtol=1e-10)
    np.testing.assert_allclose(found.eval_margins, other @ delta, rtol=1e-10)
    assert found.norm == pytest.approx(np.linalg.norm(delta))
    assert (found.steps, found.stopped_by) == (40, "steps")


def test_first_step_by_hand() -> None:
    """Two pairs, K = [[2, -1], [-1, 1]], beta 1, rate 4: each alpha is 4 / 2 * 1/2 = 1."""
    kernel = np.array([[2.0, -1.0], [-1.0, 1.0]])
    found = descend(kernel, Settings(1.0, steps=1, learning_rate=4.0))
    np.testing.assert_allclose(found.alpha, [1.0, 1.0])
    np.testing.assert_allclose(found.train_margins, [1.0, 0.0], atol=1e-15)


def test_weights_are_counts() -> None:
    train, _ = linear_world()
    counts = np.arange(1, 13)
    repeated = np.repeat(train, counts, axis=0)
    settings = Settings(0.5, steps=30, learning_rate=0.5)
    once = descend(train @ train.T, settings, weights=counts)
    often = descend(repeated @ repeated.T, settings)
    np.testing.assert_allclose(np.repeat(once.train_margins, counts), often.train_margins)


@pytest.mark.parametrize(("norm", "mean"), [(0.9, np.inf), (np.inf, 0.6)])
def test_stop_is_met_exactly_and_on_the_path(norm: float, mean: float) -> None:
    """The stop lies between two steps of the descent without one."""
    train, _ = linear_world()
    kernel = train @ train.T
    settings = Settings(1.0, learning_rate=0.3, max_norm=norm, mean_margin=mean)
    found = descend(kernel, settings)
    if np.isfinite(norm):
        assert found.stopped_by == "norm"
        assert found.norm == pytest.approx(norm, rel=1e-12)
    else:
        assert found.stopped_by == "mean margin"
        assert found.train_margins.mean() == pytest.approx(mean, rel=1e-12)
    before, after = (
        descend(kernel, Settings(1.0, steps=n, learning_rate=0.3)).alpha
        for n in (int(found.steps), int(found.steps) + 1)
    )
    part = found.steps - int(found.steps)
    np.testing.assert_allclose(found.alpha, before + part * (after - before), rtol=1e-10)


def test_the_earlier_of_two_stops_counts() -> None:
    train, _ = linear_world()
    kernel = train @ train.T
    by_norm = descend(kernel, Settings(1.0, learning_rate=0.3, max_norm=0.9))
    mean = by_norm.train_margins.mean()
    for factor, reason in ((0.99, "mean margin"), (1.01, "norm")):
        settings = Settings(1.0, learning_rate=0.3, max_norm=0.9, mean_margin=mean * factor)
        assert descend(kernel, settings).stopped_by == reason


def test_stable_rate_is_just_below_the_inverse_curvature_and_never_raises_the_loss() -> None:
    train, _ = linear_world(3)
    kernel, beta = train @ train.T, 2.0
    rate = stable_learning_rate(kernel, beta)
    exact = 4 * len(train) / (beta**2 * np.linalg.eigvalsh(kernel)[-1])
    assert 0.85 * exact < rate <= exact
    ends = [descend(kernel, Settings(beta, steps=n, learning_rate=rate)) for n in range(1, 30)]
    losses = [np.logaddexp(0, -beta * end.train_margins).mean() for end in ends]
    assert (np.diff(losses) < 0).all()


def test_the_usual_rate_is_near_gradient_flow() -> None:
    """At one and the same length a hundredth of the rate gives nearly the same margins."""
    train, _ = linear_world(3)
    kernel = train @ train.T
    rough = descend(kernel, Settings(2.0, max_norm=1.5))
    rate = stable_learning_rate(kernel, 2.0) / 1000.0
    fine = descend(kernel, Settings(2.0, steps=50_000, learning_rate=rate, max_norm=1.5))
    assert rough.stopped_by == fine.stopped_by == "norm"
    assert (
        np.abs(rough.train_margins - fine.train_margins).max()
        < 0.02 * np.abs(fine.train_margins).max()
    )


def test_pushes_add_up_to_the_margins() -> None:
    train, other = linear_world()
    found = descend(train @ train.T, Settings(0.5), eval_kernel=other @ train.T)
    parts = pushes(other @ train.T, found.alpha)
    np.testing.assert_allclose(parts.sum(axis=1), found.eval_margins)


def test_strongest_pushes_by_hand() -> None:
    """Pushes -6, 1, -2, 0: of the negative 8 the first has 3/4, the third 1/4; 0 is left out."""
    products = np.array([[-3.0, 1.0, -2.0, 0.0]])
    found = strongest_pushes(
        products,
        np.array([2.0, 1.0, 1.0, 5.0]),
        eval_norms=np.array([2.0]),
        train_norms=np.array([3.0, 1.0, 0.0, 1.0]),
    )
    np.testing.assert_array_equal(found.train_pair, [0, 2, 1])
    np.testing.assert_allclose(found.push, [-6.0, -2.0, 1.0])
    np.testing.assert_allclose(found.share, [0.75, 0.25, np.nan])
    np.testing.assert_allclose(found.cosine, [-0.5, np.nan, 0.5])


def test_strongest_pushes_keep_so_many_each_way_with_shares_of_all() -> None:
    generator = np.random.default_rng(1)
    products, alpha = generator.normal(size=(3, 50)), generator.uniform(size=50)
    found = strongest_pushes(
        products, alpha, eval_norms=np.ones(3), train_norms=np.ones(50), n_each=4
    )
    for pair in range(3):
        push = products[pair] * alpha
        mine = found.push[found.pair == pair]
        ordered = np.sort(push)
        np.testing.assert_allclose(mine, np.concatenate([ordered[:4], ordered[-4:]]))
        shares = found.share[found.pair == pair][:4]
        np.testing.assert_allclose(shares, ordered[:4] / push[push < 0].sum())


def test_no_gradient_gives_no_margin() -> None:
    found = descend(np.zeros((3, 3)), Settings(0.1), eval_kernel=np.zeros((2, 3)))
    np.testing.assert_array_equal(found.train_margins, 0.0)
    assert found.norm == 0.0


def test_single_precision_kernels_are_not_copied_up() -> None:
    train, _ = linear_world()
    kernel = (train @ train.T).astype(np.float32)
    exact = descend(kernel.astype(float), Settings(0.5, steps=50, learning_rate=0.5))
    found = descend(kernel, Settings(0.5, steps=50, learning_rate=0.5))
    assert found.train_margins.dtype == float
    np.testing.assert_allclose(found.train_margins, exact.train_margins, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (np.zeros((2, 3)), "square"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), "not finite"),
    ],
)
def test_kernels_that_are_none_are_refused(kernel: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        descend(kernel, Settings(0.1))


@pytest.mark.parametrize(
    "values",
    [{"beta": 0.0}, {"beta": 1.0, "label_smoothing": 0.5}, {"beta": 1.0, "steps": 0}],
)
def test_settings_that_are_none_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Settings(**values)
