"""Beginning and end of a noisy log."""

import numpy as np
import pytest

from dpo_diag.run_formats._base import Series
from dpo_diag.symptoms._trends import ends, last_half, too_few


def series(values: list[float] | np.ndarray) -> Series:
    return Series(np.arange(len(values), dtype=float), np.asarray(values, dtype=float))


def test_quarters_by_hand() -> None:
    """12 rows, quarters of 3: means 1 and 5, variances 1 and 4: error sqrt(1/3 + 4/3)."""
    found = ends(series([0, 1, 2, 9, 9, 9, 9, 9, 9, 3, 5, 7]))
    assert (found.first, found.last, found.n) == (1.0, 5.0, 3)
    assert found.change == 4.0
    assert found.error == pytest.approx(np.sqrt(5 / 3))
    assert found.rises and not found.falls  # 4 > 3 * 1.29


def test_change_within_the_noise_is_none() -> None:
    """Means 0 and 3, error sqrt(16/3 + 16/3) = 3.3: less than one error."""
    found = ends(series([-4, 0, 4, 0, 0, 0, 0, 0, 0, -1, 3, 7]))
    assert not found.rises and not found.falls


def test_too_few_rows_say_so() -> None:
    assert ends(series([1.0] * 7)) is None
    assert too_few(series([1.0] * 7), "loss") == (
        "too few log rows with loss (7, at least 8 needed)"
    )
    assert too_few(series([]), "loss") == "loss not logged"
    assert too_few(series([1.0] * 8), "loss") == ""


def test_flat_logs_seldom_look_like_a_change() -> None:
    """1,500 made-up flat logs of 20 rows: fewer than one in thirty."""
    rng = np.random.default_rng(0)
    found = [ends(series(rng.normal(size=20))) for _ in range(1500)]
    assert np.mean([end.rises or end.falls for end in found]) < 1 / 30


def test_change_of_a_tenth_of_the_noise_per_row_is_found() -> None:
    rng = np.random.default_rng(0)
    found = [ends(series(0.1 * np.arange(60) + rng.normal(size=60))) for _ in range(200)]
    assert np.mean([end.rises for end in found]) > 0.95


def test_second_half_has_the_later_rows() -> None:
    assert list(last_half(series([1, 2, 3, 4, 5]))) == [3, 4, 5]
