"""How much of wanted margins a parameter change of some length can express, to first order.

With the gradients ``g_i`` of pairs' margins at the reference and wanted margins ``m*_i``, the best
change of length R or less leaves ``min over |delta| <= R of sum_i (<g_i, delta> - m*_i)^2``. As a
share of ``sum m*_i^2`` it is the residual share: 0 where the class can express the margins at that
length, 1 where it cannot move towards them at all. Only the Gram matrix of the gradients enters.

Signatures::

    spectrum(kernel) -> Spectrum;  spectrum_of(features) -> Spectrum
    residual_path(spectrum, targets, norms, *, held_out=None) -> tuple[Fit, ...]
    ridge_path(spectrum, targets, ridges, *, held_out=None) -> tuple[Fit, ...]
    subspace_features(features, dimension, *, rng) -> (n, dimension)
    targets_from_votes(vote_share, beta, *, most=.999) -> (n,) nats

``held_out`` is ``HeldOut(kernel (n_held_out, n), targets)``.

Misleads: with all parameters free, gradients of language models are nearly independent and any
margins, wrong labels too, can be expressed at *some* length: "no residual at full rank" says
nothing. The honest knobs are the length (compare with what the run moved), the number of steps, and
the dimension of the space (random subspaces, or the gradients of LoRA parameters). A small residual
on the fitted pairs with many held-out sign errors is memory, not expression. Targets decide the
scale: gold margins over beta where known, logits of annotators' shares over beta, and labels
``+-c`` only as a last resort, when c is a choice. All of it is to first order: for small changes,
which for DPO means large beta.

Source: the projection view of arXiv 2510.20413; secular equation of a bounded least-squares
problem, Golub and Van Loan, section on quadratically constrained least squares (from memory).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import linalg, optimize, special


class Spectrum(NamedTuple):
    """The part of a Gram matrix that is not 0: ``kernel = vectors @ diag(values) @ vectors.T``.

    Attributes:
        values: (r,) eigenvalues above rounding error, ascending; r is the rank.
        vectors: (n, r) their eigenvectors.
    """

    values: np.ndarray
    vectors: np.ndarray

    @property
    def rank(self) -> int:
        """Number of directions in which some margin can move."""
        return len(self.values)

    @property
    def effective_rank(self) -> float:
        """``(sum of values)^2 / sum of squares``: directions that count; 0 for no gradient."""
        square = float(np.sum(self.values**2))
        return float(self.values.sum()) ** 2 / square if square else 0.0

    @property
    def coordinates(self) -> np.ndarray:
        """(n, r) features whose products are the Gram matrix and whose span has no slack."""
        return self.vectors * np.sqrt(self.values)


class HeldOut(NamedTuple):
    """Pairs not fitted: (n_held_out, n) products with the fitted ones, (n_held_out,) targets."""

    kernel: np.ndarray
    targets: np.ndarray


class Fit(NamedTuple):
    """The best parameter change of a length.

    Attributes:
        max_norm: length it may have; infinite for the ridge path.
        norm: length it has; smaller where more does not help.
        ridge: multiplier of the squared length at the optimum; 0 where the bound does not bind.
        residual_share: of the squared targets left over, in [0, 1]; NaN where all targets are 0.
        sign_errors: share of pairs whose margin has the wrong sign, a margin of 0 one half; pairs
            with a target of 0 are left out; NaN without any.
        held_out_sign_errors: the same over the held-out pairs; NaN without any.
        margins: (n,) expressed margins, nats.
    """

    max_norm: float
    norm: float
    ridge: float
    residual_share: float
    sign_errors: float
    held_out_sign_errors: float
    margins: np.ndarray


def spectrum(kernel: np.ndarray) -> Spectrum:
    """Eigenvalues and vectors of a Gram matrix, those within rounding error of 0 left out.

    For up to some 5,000 pairs: time grows with their cube.

    Args:
        kernel: (n, n) symmetric, positive semi-definite but for rounding in its own type.

    Raises:
        ValueError: it is not square, not finite, or has a clearly negative eigenvalue.
    """
    n = len(kernel)
    if kernel.ndim != 2 or kernel.shape != (n, n):
        raise ValueError(f"A Gram matrix is square, got shape {kernel.shape}.")
    if not n:
        return Spectrum(np.zeros(0), np.zeros((0, 0)))
    if not np.isfinite(kernel.sum(dtype=float)):
        raise ValueError("The Gram matrix holds a value that is not finite.")
    values, vectors = linalg.eigh(np.asarray(kernel, float), check_finite=False)
    slack = _rounding(kernel) * n * max(float(np.abs(values).max()), 0.0)
    if values[0] < -100.0 * slack:
        raise ValueError(
            f"Not a Gram matrix: it has the eigenvalue {values[0]:.3g} beside {values[-1]:.3g}."
        )
    kept = values > slack
    return Spectrum(values[kept], vectors[:, kept])


def spectrum_of(features: np.ndarray) -> Spectrum:
    """The spectrum of ``features @ features.T`` without making it: for few dimensions.

    Args:
        features: (n, d) gradients, sketches or coordinates in a subspace.
    """
    if not features.size:
        return Spectrum(np.zeros(0), np.zeros((len(features), 0)))
    if not np.isfinite(features.sum(dtype=float)):
        raise ValueError("The features hold a value that is not finite.")
    vectors, sizes, _ = linalg.svd(
        np.asarray(features, float), full_matrices=False, check_finite=False
    )
    kept = sizes > _rounding(features) * max(features.shape) * sizes[0]
    return Spectrum(sizes[kept][::-1] ** 2, vectors[:, kept][:, ::-1])


def subspace_features(
    features: np.ndarray, dimension: int, *, rng: np.random.Generator
) -> np.ndarray:
    """Coordinates of the features in a random subspace, (n, dimension), lengths kept in it.

    A parameter change confined to the subspace moves margins by these alone. Of sketches it is a
    subspace of the sketch: lengths of changes are then comparable with each other, not with those
    of the parameters.

    Args:
        features: (n, d) gradients or sketches.
        dimension: of the subspace, 1 to d.
        rng: source of the directions.

    Raises:
        ValueError: the dimension is out of range.
    """
    d = features.shape[1]
    if not 1 <= dimension <= d:
        raise ValueError(f"dimension must be in 1 to {d}, got {dimension}.")
    basis, _ = np.linalg.qr(rng.standard_normal((d, dimension)))
    return np.asarray(features, float) @ basis


def targets_from_votes(vote_share: np.ndarray, beta: float, *, most: float = 0.999) -> np.ndarray:
    """Margins that would give back annotators' shares, ``logit(share) / beta``, nats.

    Args:
        vote_share: (n,) share that prefers chosen, in [0, 1], NaN kept.
        beta: of DPO.
        most: a unanimous vote counts as this share: its logit would be infinite.
    """
    share = np.clip(np.asarray(vote_share, float), 1.0 - most, most)
    return special.logit(share) / beta


def residual_path(
    spectrum: Spectrum,
    targets: np.ndarray,
    norms: Sequence[float],
    *,
    held_out: HeldOut | None = None,
) -> tuple[Fit, ...]:
    """The best change of each length or less: an exact bound on the length, not a penalty.

    Args:
        spectrum: of the fitted pairs' Gram matrix.
        targets: (n,) wanted margins, nats, no NaN.
        norms: longest lengths of the change, each above 0; infinity for no bound.
        held_out: pairs to predict.

    Raises:
        ValueError: shapes do not fit, a target is not finite or a length not above 0.
    """
    along = _along(spectrum, targets)
    if not all(norm > 0.0 for norm in norms):
        raise ValueError(f"Lengths must be above 0, got {list(norms)}.")
    return tuple(
        _fit(spectrum, targets, _ridge_at(spectrum.values, along, norm), norm, held_out)
        for norm in norms
    )


def ridge_path(
    spectrum: Spectrum,
    targets: np.ndarray,
    ridges: Sequence[float],
    *,
    held_out: HeldOut | None = None,
) -> tuple[Fit, ...]:
    """The change that minimises squared error plus ``ridge * |delta|^2``, for each ridge.

    Args:
        spectrum: of the fitted pairs' Gram matrix.
        targets: (n,) wanted margins, nats, no NaN.
        ridges: 0 or more each; 0 gives the shortest change of least error.
        held_out: pairs to predict.
    """
    _along(spectrum, targets)
    if not all(ridge >= 0.0 for ridge in ridges):
        raise ValueError(f"Ridges must be 0 or more, got {list(ridges)}.")
    return tuple(_fit(spectrum, targets, ridge, np.inf, held_out) for ridge in ridges)


def sign_error_rate(margins: np.ndarray, targets: np.ndarray) -> float:
    """Share of pairs whose margin and target differ in sign; a margin of 0 counts one half.

    Args:
        margins: (n,) any unit.
        targets: (n,); those of 0 are left out.

    Returns:
        In [0, 1]; NaN without a target other than 0.
    """
    kept = np.asarray(targets) != 0.0
    agreement = np.sign(np.asarray(margins)[kept]) * np.sign(np.asarray(targets)[kept])
    return float(np.mean(0.5 - 0.5 * agreement)) if kept.any() else float("nan")


def _along(spectrum: Spectrum, targets: np.ndarray) -> np.ndarray:
    if np.shape(targets) != (len(spectrum.vectors),):
        raise ValueError(f"{np.shape(targets)} targets for {len(spectrum.vectors)} pairs.")
    if not np.isfinite(targets).all():
        raise ValueError("A target margin is missing or infinite; leave such pairs out.")
    return spectrum.vectors.T @ targets


def _ridge_at(values: np.ndarray, along: np.ndarray, norm: float) -> float:
    """Ridge at which the change has this length; 0 where the shortest best one is no longer.

    The length ``sqrt(sum values * along^2 / (values + ridge)^2)`` falls with the ridge; its inverse
    is nearly straight, which is what the root is looked for in.
    """
    weights = values * along**2

    def length(ridge: float) -> float:
        return float(np.sqrt(np.sum(weights / (values + ridge) ** 2)))

    if not len(values) or length(0.0) <= norm:
        return 0.0
    most = float(np.sqrt(weights.sum())) / norm  # there the length is at most the norm
    return float(
        optimize.brentq(
            lambda ridge: 1.0 / norm - 1.0 / length(ridge), 0.0, 2.0 * most, xtol=1e-300, rtol=1e-14
        )
    )


def _fit(
    spectrum: Spectrum,
    targets: np.ndarray,
    ridge: float,
    max_norm: float,
    held_out: HeldOut | None,
) -> Fit:
    values, along = spectrum.values, spectrum.vectors.T @ targets
    shrunk = along / (values + ridge)
    margins = spectrum.vectors @ (values * shrunk)
    total = float(targets @ targets)
    outside = np.nan
    if held_out is not None and len(held_out.targets):
        predicted = np.asarray(held_out.kernel) @ (spectrum.vectors @ shrunk)
        outside = sign_error_rate(predicted, held_out.targets)
    return Fit(
        max_norm=float(max_norm),
        norm=float(np.sqrt(np.sum(values * shrunk**2))),
        ridge=float(ridge),
        residual_share=float(np.sum((targets - margins) ** 2)) / total if total else np.nan,
        sign_errors=sign_error_rate(margins, targets),
        held_out_sign_errors=outside,
        margins=margins,
    )


def _rounding(values: np.ndarray) -> float:
    """Relative rounding error of the type that the numbers were made in."""
    is_float = np.issubdtype(values.dtype, np.floating)
    return float(np.finfo(values.dtype if is_float else float).eps)
