"""How figures look: style, colours, labels that keep apart; ``plots`` has the figure kinds.

The same input gives the same bytes: matplotlib's defaults and the style file beside this one
only, a fixed hash salt, no date. Nothing global changes. Colours are Okabe and Ito's palette,
told apart with every kind of colour vision; markers and labels repeat what the colour says.
"""

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dpo_diag.reporting import escape
from dpo_diag.reporting.document import FigureEntry, ReportInput
from dpo_diag.reporting.numbers import is_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE = Path(__file__).with_name("style.mplstyle")
# Okabe and Ito 2008 without its yellow, which is too light for a line on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH = 7.2  # inches
_DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
_NAME_LIMIT = 28  # characters of a model or series name


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's defaults with our style on top, for the time being."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # a name in a script the font lacks is drawn as boxes, not reported
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*missing.*")
        matplotlib.rcdefaults()
        matplotlib.rc_file(_STYLE, use_default_template=False)
        yield


def file_bytes(figure: "Figure", file_format: str) -> bytes:
    """The figure's file, without date or version; call within ``style``."""
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if file_format == "svg" else None
    figure.savefig(buffer, format=file_format, metadata=metadata)
    return buffer.getvalue()


def panels(height: float, columns: int = 1, rows: int = 1) -> tuple["Figure", list["Axes"]]:
    """A figure of the report's width with a grid of axes that share theirs.

    Args:
        height: inches.
        columns: panels side by side.
        rows: panels one above the other.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, max(height, 1.7)))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    return figure, list(grid.ravel())


def colour(k: int) -> str:
    """The k-th colour; the palette starts again after eight."""
    return PALETTE[k % len(PALETTE)]


def marker(k: int) -> str:
    """The k-th marker."""
    return MARKERS[k % len(MARKERS)]


def handle(k: int) -> Any:
    """What the k-th model looks like in a legend of points."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour(k), marker=marker(k), linestyle="none")


def dash(k: int) -> Any:
    """The k-th line style."""
    return _DASHES[k % len(_DASHES)]


def name(text: str, limit: int = _NAME_LIMIT) -> str:
    """Untrusted text as one plain line of a figure."""
    return escape.line(text, limit)


def model_name(report: ReportInput, model_id: str) -> str:
    """The name of a model in a figure."""
    return name(report.labels.get(model_id, model_id))


def model_rank(report: ReportInput, model_id: str) -> int:
    """A model's place in the report, so that it has the same colour in every figure."""
    ids = report.model_ids
    return ids.index(model_id) if model_id in ids else len(ids)


def value_names(label: str) -> dict[float, str]:
    """Names that an axis label gives to values: ``order (0 raw, 1 per token)``.

    Returns:
        Value to name in order; empty for a label without at least two of them.
    """
    found = re.findall(r"(?:[(:,]\s*)(-?\d+(?:\.\d+)?) ([^,()\d][^,()]*)", label)
    return {float(value): text.strip() for value, text in found} if len(found) > 1 else {}


def axis_labels(axes: "Axes", entry: FigureEntry) -> None:
    """Title and labels; per cent on an axis that shows a share."""
    axes.set_xlabel(name(entry.x_label, 90))
    axes.set_ylabel(name(entry.y_label, 60))
    axes.set_title(name(entry.title, 100))
    percent(axes.xaxis, entry.x_label)
    percent(axes.yaxis, entry.y_label)


def percent(axis: Any, label: str) -> None:
    """Per cent on the ticks of an axis whose label says that it is a share."""
    if is_share(label) or "(share" in label.lower():
        axis.set_major_formatter(lambda value, _: f"{round(100 * value, 6):g} %")


def arms(point: Sequence[float]) -> np.ndarray:
    """Lengths of an error bar's arms, shape (2, 1); a missing end has none."""
    value, low, high = point
    lengths = [value - low, high - value]
    return np.array([[x if np.isfinite(x) and x > 0 else 0.0] for x in lengths])


def wrapped(text: str, width: int) -> str:
    """Untrusted text on as many lines of a figure as it needs."""
    return textwrap.fill(name(text, 3 * width), width)


def band(axes: "Axes", line: pd.DataFrame, shade: str) -> None:
    """The interval of a curve as a pale band."""
    if line["y_low"].notna().any():
        axes.fill_between(line["x"], line["y_low"], line["y_high"], color=shade, alpha=0.11,
                          linewidth=0)  # fmt: skip


def legend_right(axes: "Axes") -> None:
    """The legend beside the axes, where it covers nothing."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)


def label_ends(axes: "Axes", ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Names beside the right edge at the height of each line's end, moved apart.

    Args:
        axes: where; its limits must stand.
        ends: x, y, name and colour of each line's last point.
    """
    low, high = axes.get_ylim()
    places = spread([y for _, y, _, _ in ends], gap=0.07 * (high - low))
    for (_, _, text, shade), place in zip(ends, places, strict=True):
        axes.annotate(text, (1.0, place), (6, 0), xycoords=("axes fraction", "data"),
                      textcoords="offset points", color=shade, va="center", fontsize=8.5,
                      annotation_clip=False)  # fmt: skip


def label_points(axes: "Axes", points: Sequence[tuple[float, float, str, str]]) -> None:
    """Names above the right or left of points, moved apart where points lie close.

    Args:
        axes: where; its limits must stand.
        points: x, y, name and colour of each point.
    """
    from matplotlib import patheffects

    if len(points) > MANY_POINTS:
        _number_points(axes, points)
        return
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    gap = 0.06 * (high - low)
    places = spread([y + 0.6 * gap for _, y, _, _ in points], gap)
    for (x, _, text, shade), place in zip(points, places, strict=True):
        is_right = x > left + 0.75 * (right - left)
        axes.annotate(text, (x, place), (-8 if is_right else 8, 0), textcoords="offset points",
                      color=shade, ha="right" if is_right else "left", va="center",
                      path_effects=[patheffects.withStroke(linewidth=2.5, foreground="white")],
                      )  # fmt: skip


MANY_POINTS = 12
"""More names than this cannot stand beside their points."""


def _number_points(axes: "Axes", points: Sequence[tuple[float, float, str, str]]) -> None:
    """Numbers at the points, counted from left to right, and a list of the names beside."""
    ordered = sorted(points)
    for k, (x, y, text, shade) in enumerate(ordered):
        axes.annotate(str(k + 1), (x, y), (3, 3), textcoords="offset points", fontsize=7)
        place = (1.02, 1.0 - k / len(ordered))
        axes.annotate(f"{k + 1}  {text}", place, xycoords="axes fraction", va="top", fontsize=7,
                      color=shade, annotation_clip=False)  # fmt: skip


def spread(values: Sequence[float], gap: float) -> list[float]:
    """The values moved as little as needed so that neighbours are at least ``gap`` apart."""
    order = np.argsort(values, kind="stable")
    placed = np.array(values, dtype=float)[order]
    for _ in range(200):
        close = np.diff(placed) < gap * 0.999
        if not close.any():
            break
        for k in np.flatnonzero(close):
            middle = (placed[k] + placed[k + 1]) / 2
            placed[k], placed[k + 1] = middle - gap / 2, middle + gap / 2
    result = np.empty(len(placed))
    result[order] = placed
    return result.tolist()
