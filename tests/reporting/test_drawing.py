import numpy as np
import pytest

from dpo_diag.reporting import drawing


def test_value_names_are_read_from_a_label():
    label = "order of the pair (0 raw log-prob, 1 log-prob per token)"
    assert drawing.value_names(label) == {0.0: "raw log-prob", 1.0: "log-prob per token"}
    assert drawing.value_names("order: 0 raw, 1 per token") == {0.0: "raw", 1.0: "per token"}


@pytest.mark.parametrize("label", ["training step", "cost (0 to 1)", ""])
def test_ordinary_labels_name_no_values(label):
    assert drawing.value_names(label) == {}


def test_close_labels_are_moved_just_apart():
    """0.5 and 0.52 with gap 0.1: middle 0.51, so 0.46 and 0.56; 0.9 stays."""
    assert drawing.spread([0.52, 0.9, 0.5], 0.1) == pytest.approx([0.56, 0.9, 0.46])


def test_equal_labels_keep_their_order():
    placed = drawing.spread([0.0, 0.0, 0.0], 1.0)
    assert np.diff(placed) == pytest.approx([1.0, 1.0], rel=2e-3)


def test_long_label_takes_several_lines():
    shown = drawing.wrapped("minus shifted (share of pairs)", 17)
    assert shown == "minus shifted\n(share of pairs)"


def test_missing_end_of_an_interval_has_no_arm():
    assert drawing.arms((0.5, np.nan, 0.75)).ravel().tolist() == [0.0, 0.25]


def test_style_changes_nothing_global():
    import matplotlib

    before = dict(matplotlib.rcParams)
    with drawing.style():
        assert matplotlib.rcParams["svg.hashsalt"] == "dpo-diag"
    assert dict(matplotlib.rcParams) == before


def test_models_keep_their_colour_when_one_is_left_out(planted):
    report = planted.report()
    assert drawing.model_rank(report, planted.SAFE) == 2
    assert len(set(drawing.PALETTE)) == len(drawing.PALETTE)


def test_many_points_are_numbered_from_left_to_right_with_their_names_beside() -> None:
    _, (axes,) = drawing.panels(4.0)
    points = [(float(-k), float(k), f"m{k:02d}", "#000000") for k in range(13)]
    drawing.label_points(axes, points)
    texts = [text.get_text() for text in axes.texts]
    assert texts[:2] == ["1", "1  m12"]
    assert texts[-2:] == ["13", "13  m00"]
    assert len(texts) == 26
