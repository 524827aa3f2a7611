"""Label noise from margins: by hand, against the variants, and a planted annotator."""

import math

import numpy as np
import pytest
import torch
from scipy import optimize, special

from dpo_diag.stats.label_noise import (
    holder_weight,
    mislabelled_share,
    outliers,
    posterior,
)
from dpo_diag.variants.holder_dpo import mislabelled_share as of_variant


def test_holder_by_hand() -> None:
    """At p = 1/2: 6 * 1/4 * 1/4 = 3/8; p = 1, 1, 1, 0: a quarter of the labels looks wrong."""
    assert holder_weight(np.zeros(1)) == pytest.approx(3 / 8)
    margins = np.array([800.0, 800, 800, -800])
    assert mislabelled_share(margins) == pytest.approx(0.25)
    assert outliers(margins).tolist() == [False, False, False, True]


def test_holder_weight_vanishes_at_both_ends() -> None:
    weights = holder_weight(np.array([-40.0, 0.0, 40.0]))
    assert weights[1] > 0.3 and weights[[0, 2]].max() < 1e-15


@pytest.mark.parametrize("g", [0.5, 2.0, 4.0])
def test_the_share_is_the_variants(g: float) -> None:
    margins = np.random.default_rng(0).normal(0.5, 2.0, 300)
    assert mislabelled_share(margins, g) == pytest.approx(of_variant(torch.tensor(margins), g))


def test_equal_margins_have_no_outlier() -> None:
    assert not outliers(np.full(5, -2.0)).any()
    assert len(outliers(np.zeros(0))) == 0 and math.isnan(mislabelled_share(np.zeros(0)))


def test_one_step_of_the_posterior_by_hand() -> None:
    weight, eta = posterior(np.array([0.5]), np.array([0]), rounds=1)
    assert weight == pytest.approx([0.936863], abs=1e-6)
    assert eta == pytest.approx([0.936863], abs=1e-6)


def test_the_end_is_the_maximum_of_the_likelihood() -> None:
    """Of sum log(eta p + (1 - eta)(1 - p)), found by a plain search, whatever the start."""
    margins = np.random.default_rng(1).normal(1.0, 3.0, 400)
    p = special.expit(margins)
    best = optimize.minimize_scalar(
        lambda e: -np.log(e * p + (1 - e) * (1 - p)).sum(), bounds=(1e-4, 1 - 1e-4),
        method="bounded", options={"xatol": 1e-9},
    ).x  # fmt: skip
    for start in (0.55, 0.99):
        _, eta = posterior(margins, np.zeros(400, int), start=start, rounds=5000)
        assert eta == pytest.approx([best], abs=1e-4)


def test_a_planted_careless_annotator_is_found() -> None:
    """Truth drawn from p, labels turned with probability .05 and .4 by two annotators."""
    rng = np.random.default_rng(2)
    true = rng.normal(0.0, 3.0, 8000)
    order = np.where(rng.random(8000) < special.expit(true), 1.0, -1.0)
    annotators = np.arange(8000) % 2
    turned = rng.random(8000) < np.where(annotators == 0, 0.05, 0.4)
    margins = true * order * np.where(turned, -1.0, 1.0)
    weight, eta = posterior(margins, annotators)
    assert eta == pytest.approx([0.95, 0.6], abs=0.03)
    assert weight[turned].mean() < 0.5 < weight[~turned].mean()
