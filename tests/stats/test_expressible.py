"""Expressible margins against hand-worked numbers and brute-force optimisers."""

import numpy as np
import pytest
from scipy import optimize, special

from dpo_diag.stats.expressible import (
    HeldOut,
    residual_path,
    ridge_path,
    sign_error_rate,
    spectrum,
    spectrum_of,
    subspace_features,
    targets_from_votes,
)


def world(seed: int, *, n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, d)), generator.normal(size=n)


def test_two_pairs_by_hand() -> None:
    """Gradients (2, 0), (0, 1), targets 2, 2: the free best change is (1, 2), length sqrt 5.

    At length 1 with multiplier r it is (4 / (4 + r), 2 / (1 + r)); r = 1.71716 gives length 1.
    """
    found = spectrum(np.diag([4.0, 1.0]))
    targets = np.array([2.0, 2.0])
    free, bounded = residual_path(found, targets, [10.0, 1.0])
    assert (free.ridge, free.residual_share) == (0.0, pytest.approx(0.0, abs=1e-15))
    assert free.norm == pytest.approx(np.sqrt(5.0))
    r = optimize.brentq(lambda x: (4 / (4 + x)) ** 2 + (2 / (1 + x)) ** 2 - 1, 0.1, 10)
    assert bounded.norm == pytest.approx(1.0, rel=1e-12)
    assert bounded.ridge == pytest.approx(r, rel=1e-10)
    np.testing.assert_allclose(bounded.margins, [8 / (4 + r), 2 / (1 + r)])


@pytest.mark.parametrize(("n", "d"), [(12, 4), (6, 20), (8, 8)])
def test_bounded_fit_is_a_constrained_optimisers(n: int, d: int) -> None:
    """More pairs than parameters, fewer, and as many; the bound binds in all."""
    features, targets = world(0, n=n, d=d)
    free = float(np.linalg.norm(np.linalg.lstsq(features, targets, rcond=None)[0]))
    for bound in (0.3 * free, 0.8 * free):
        (found,) = residual_path(spectrum(features @ features.T), targets, [bound])
        oracle = optimize.minimize(
            lambda w: np.sum((features @ w - targets) ** 2),
            np.zeros(d),
            jac=lambda w: 2 * features.T @ (features @ w - targets),
            method="SLSQP",
            constraints={
                "type": "ineq",
                "fun": lambda w, bound=bound: bound**2 - w @ w,
                "jac": lambda w: -2 * w,
            },
            options={"ftol": 1e-15, "maxiter": 1000},
        )
        assert found.norm == pytest.approx(bound, rel=1e-10)
        assert found.residual_share == pytest.approx(oracle.fun / (targets @ targets), rel=1e-6)
        np.testing.assert_allclose(found.margins, features @ oracle.x, atol=1e-4)


def test_without_full_rank_the_rest_stays_and_the_shortest_change_is_taken() -> None:
    """Rank 2 of 7 pairs, one gradient repeated: least squares has the answer."""
    features, targets = world(1, n=7, d=2)
    features[3] = features[0]
    (found,) = residual_path(spectrum(features @ features.T), targets, [np.inf])
    best, *_ = np.linalg.lstsq(features, targets, rcond=None)
    np.testing.assert_allclose(found.margins, features @ best, atol=1e-10)
    assert found.norm == pytest.approx(np.linalg.norm(best))
    left = np.sum((features @ best - targets) ** 2) / (targets @ targets)
    assert found.residual_share == pytest.approx(left)


def test_ridge_fit_is_the_normal_equations() -> None:
    features, targets = world(2, n=9, d=5)
    other, wanted = world(3, n=30, d=5)
    held_out = HeldOut(other @ features.T, wanted)
    (found,) = ridge_path(spectrum(features @ features.T), targets, [0.7], held_out=held_out)
    best = np.linalg.solve(features.T @ features + 0.7 * np.eye(5), features.T @ targets)
    np.testing.assert_allclose(found.margins, features @ best)
    assert found.norm == pytest.approx(np.linalg.norm(best))
    assert found.held_out_sign_errors == np.mean(np.sign(other @ best) != np.sign(wanted))


def test_residual_falls_with_the_length() -> None:
    features, targets = world(4, n=40, d=15)
    found = residual_path(spectrum(features @ features.T), targets, np.geomspace(1e-6, 1e3, 40))
    shares = np.array([fit.residual_share for fit in found])
    assert shares[0] == pytest.approx(1.0, abs=1e-4)
    assert (np.diff(shares) <= 1e-12).all()
    assert all(fit.norm <= fit.max_norm * (1 + 1e-10) for fit in found)


def test_spread_out_spectra_meet_the_bound() -> None:
    """Eigenvalues over twelve decades: the multiplier is found to full precision."""
    rotation, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(13, 13)))
    values = np.logspace(-6, 6, 13)
    targets = np.random.default_rng(6).normal(size=13)
    for bound in (1e-4, 1.0, 100.0):
        (found,) = residual_path(spectrum((rotation * values) @ rotation.T), targets, [bound])
        assert found.norm == pytest.approx(bound, rel=1e-9)


def test_both_spectra_are_one() -> None:
    features, targets = world(7, n=20, d=6)
    one, two = spectrum(features @ features.T), spectrum_of(features)
    assert one.rank == two.rank == 6
    np.testing.assert_allclose(one.values, two.values)
    np.testing.assert_allclose(one.coordinates @ one.coordinates.T, features @ features.T)
    assert one.effective_rank == pytest.approx(two.effective_rank)
    fits = [residual_path(s, targets, [0.3])[0] for s in (one, two)]
    np.testing.assert_allclose(fits[0].margins, fits[1].margins)


def test_effective_rank_by_hand() -> None:
    """Values 3 and 1: 16 / 10."""
    assert spectrum(np.diag([3.0, 1.0])).effective_rank == pytest.approx(1.6)


def test_a_subspace_confines_the_change() -> None:
    """The best change within the subspace's basis, by least squares in it."""
    features, targets = world(8, n=30, d=10)
    inside = subspace_features(features, 4, rng=np.random.default_rng(9))
    basis, _ = np.linalg.qr(np.random.default_rng(9).standard_normal((10, 4)))
    (found,) = residual_path(spectrum_of(inside), targets, [np.inf])
    best, *_ = np.linalg.lstsq(features @ basis, targets, rcond=None)
    np.testing.assert_allclose(found.margins, features @ (basis @ best))
    whole = subspace_features(features, 10, rng=np.random.default_rng(9))
    np.testing.assert_allclose(whole @ whole.T, features @ features.T)


def test_sign_errors_by_hand() -> None:
    """Wrong, right, tie of margin, tie of target (left out): (1 + 0 + 1/2) / 3."""
    found = sign_error_rate(np.array([-1.0, 2.0, 0.0, 5.0]), np.array([1.0, 1.0, -1.0, 0.0]))
    assert found == pytest.approx(0.5)
    assert np.isnan(sign_error_rate(np.ones(2), np.zeros(2)))


def test_votes_become_the_margins_that_give_them_back() -> None:
    shares = np.array([0.2, 0.5, 0.9, np.nan])
    np.testing.assert_allclose(special.expit(0.1 * targets_from_votes(shares, 0.1)), shares)
    assert targets_from_votes(np.array([1.0]), 0.1)[0] == pytest.approx(10 * np.log(999))


def test_nothing_to_express_is_missing_and_no_gradient_expresses_nothing() -> None:
    (found,) = residual_path(spectrum(np.eye(3)), np.zeros(3), [1.0])
    assert np.isnan(found.residual_share) and np.isnan(found.sign_errors)
    (stuck,) = residual_path(spectrum(np.zeros((3, 3))), np.ones(3), [1.0])
    assert (stuck.residual_share, stuck.norm, stuck.sign_errors) == (1.0, 0.0, 0.5)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (np.zeros((2, 3)), "square"),
        (np.diag([1.0, -0.5]), "Not a Gram matrix"),
        (np.diag([1.0, np.inf]), "not finite"),
    ],
)
def test_kernels_that_are_none_are_refused(kernel: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spectrum(kernel)


def test_targets_and_lengths_that_are_none_are_refused() -> None:
    found = spectrum(np.eye(2))
    with pytest.raises(ValueError, match="missing or infinite"):
        residual_path(found, np.array([1.0, np.nan]), [1.0])
    with pytest.raises(ValueError, match="targets for 2 pairs"):
        residual_path(found, np.ones(3), [1.0])
    with pytest.raises(ValueError, match="above 0"):
        residual_path(found, np.ones(2), [0.0])
    with pytest.raises(ValueError, match="0 or more"):
        ridge_path(found, np.ones(2), [-1.0])
    with pytest.raises(ValueError, match="dimension"):
        subspace_features(np.eye(3), 4, rng=np.random.default_rng(0))
