"""Distances to the nearest few: by hand, and against one pair of points at a time."""

import numpy as np
import pytest

from dpo_diag.stats import neighbours
from dpo_diag.stats.neighbours import nearest_distance

BASE = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # mean 0


def test_angles_are_hand_worked():
    """Along an axis 0; at 45 degrees 1 - cos 45 = .2929 from either of two."""
    points = np.array([[3.0, 0.0], [1.0, 1.0]])
    found = nearest_distance(points, BASE, n_nearest=1)
    assert found.distance == pytest.approx([0.0, 1.0 - np.sqrt(0.5)])
    assert found.index[0] == 0
    both = nearest_distance(points, BASE, n_nearest=2).distance
    assert both == pytest.approx([(0.0 + 1.0) / 2.0, 1.0 - np.sqrt(0.5)])


def test_a_common_direction_is_taken_off():
    far = 100.0 * np.ones(2)
    one = nearest_distance(np.array([[1.0, 2.0]]), BASE, n_nearest=1)
    two = nearest_distance(np.array([[1.0, 2.0]]) + far, BASE + far, n_nearest=1)
    assert two.distance == pytest.approx(one.distance)


def test_a_point_is_not_its_own_neighbour():
    found = nearest_distance(BASE, BASE, n_nearest=1, own=np.arange(4))
    assert found.distance == pytest.approx(np.ones(4))
    assert (found.index != np.arange(4)).all()
    alone = nearest_distance(BASE[:1], BASE[:1], n_nearest=3, own=np.zeros(1, int))
    assert np.isnan(alone.distance[0]) and alone.index[0] == -1


@pytest.mark.parametrize("chunk", [1, 10_000])
def test_chunks_change_nothing_and_the_slow_way_agrees(chunk, monkeypatch):
    rng = np.random.default_rng(0)
    points, base = rng.normal(size=(30, 5)), rng.normal(size=(20, 5))
    monkeypatch.setattr(neighbours, "CHUNK_BYTES", chunk)
    found = nearest_distance(points, base, n_nearest=3)
    middle = base.mean(axis=0)
    for point, distance, index in zip(points, *found, strict=True):
        a = point - middle
        gaps = [
            1.0 - a @ (b - middle) / np.linalg.norm(a) / np.linalg.norm(b - middle) for b in base
        ]
        assert distance == pytest.approx(np.mean(sorted(gaps)[:3]))
        assert index == int(np.argmin(gaps))


def test_no_base_is_refused():
    with pytest.raises(ValueError, match="no base"):
        nearest_distance(BASE, BASE[:0], n_nearest=1)
