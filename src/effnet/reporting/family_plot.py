"""The picture of a family: accuracy against parameters, multiply-adds, latency and training time."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from effnet.files import whole_file
from effnet.reporting.family import Family, Panel, Point
from effnet.reporting.published import V1, V2, V2_21K

_GRID, _TEXT = "#dfe3e8", "#333b44"
_Line = Literal["-", "--", "none"]
_STYLES: dict[str, tuple[str, str, _Line]] = {
    V1: ("#b4552d", "o", "-"),
    V2: ("#1f5fa8", "o", "-"),
    V2_21K: ("#1f5fa8", "D", "--"),
    "NFNet": ("#3b8f5a", "s", "-"),
    "ResNeSt": ("#7a4fa3", "^", "-"),
    "RegNetY": ("#8a7a1f", "v", "-"),
    "ResNet-RS": ("#6b7683", "P", "none"),
    "ViT, ImageNet-21k": ("#6b7683", "X", "none"),
    "own runs, from weights": ("#c2185b", "*", "none"),
    "own runs, from scratch": ("#c2185b", "o", "none"),
}
_NAMED = (V1, V2, V2_21K)
"""Of these and of one's own runs every point has its name; the others are in the legend."""
_WIDTH, _HEIGHT, _DPI = 4.6, 3.7, 120
_FEW_PANELS = 4
"""Up to so many of one set of images stand in a square."""


def plot_family(family: Family, path: Path) -> None:
    """Draw all panels as a PNG or SVG, by the name of the file.

    Args:
        family: Of `effnet.reporting.family.collect_family`.
        path: Replaced as a whole.

    Raises:
        OSError: The file cannot be written.
    """
    groups = family.rows()
    columns = 2 if max(map(len, groups)) <= _FEW_PANELS else 3
    rows = [panels[start : start + columns] for panels in groups for start in range(0, len(panels), columns)]
    with mpl.rc_context({"svg.hashsalt": "effnet", "svg.fonttype": "none"}):
        figure = Figure(figsize=(_WIDTH * columns, _HEIGHT * len(rows) + 0.7), layout="constrained")
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axes_row, panels in zip(grid, rows, strict=True):
            for axes, panel in zip(axes_row, panels, strict=False):
                _draw(axes, panel)
            for axes in axes_row[len(panels) :]:
                axes.set_axis_off()
        shown = {point.series for panels in rows for panel in panels for point in panel.points}
        figure.legend(
            handles=[_handle(series) for series in _STYLES if series in shown],
            loc="outside upper left",
            ncols=2 * columns,
            frameon=False,
            fontsize=8,
            labelcolor=_TEXT,
        )
        kind = path.suffix.removeprefix(".")
        with whole_file(path) as temporary:
            figure.savefig(
                temporary, dpi=_DPI, format=kind, metadata={"Date": None} if kind == "svg" else None
            )


def _draw(axes: Axes, panel: Panel) -> None:
    axes.set_xscale("log")
    for series, members in groupby(sorted(panel.points, key=_place), key=lambda point: point.series):
        points = sorted(members, key=lambda point: point.x)
        colour, marker, line = _STYLES[series]
        is_own = points[0].is_own
        axes.plot(
            [point.x for point in points],
            [point.y for point in points],
            color=colour,
            marker=marker,
            linestyle=line,
            markersize=10 if marker == "*" else 6 if is_own else 4,
            linewidth=1.3,
            zorder=4 if is_own else 3 if series in _NAMED else 2,
        )
    axes.set_title(panel.title, loc="left", fontsize=9, color=_TEXT)
    axes.set_xlabel(panel.x_label, fontsize=8, color=_TEXT)
    axes.set_ylabel("top-1, %", fontsize=8, color=_TEXT)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=_TEXT)
    axes.margins(x=0.12, y=0.12)
    for point in panel.points:
        if point.series in _NAMED or point.is_own:
            _name(axes, point, _STYLES[point.series][0])
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _place(point: Point) -> int:
    return list(_STYLES).index(point.series)


def _name(axes: Axes, point: Point, colour: str) -> None:
    """Write a name beside a point, on a side where those of different series rarely meet."""
    low, high = axes.get_xlim()
    if point.is_own:
        is_left = point.x * point.x > low * high  # The axis is logarithmic; names stay inside.
        offset, side = ((-8, -3), "right") if is_left else ((8, -3), "left")
    else:
        offset, side = ((4, -9), "left") if point.series == V1 else ((-4, 4), "right")
    axes.annotate(
        point.name.removesuffix(" (21k)").removeprefix("V2-"),
        (point.x, point.y),
        xytext=offset,
        textcoords="offset points",
        ha=side,
        fontsize=7,
        color=colour,
    )


def _handle(series: str) -> Line2D:
    colour, marker, line = _STYLES[series]
    return Line2D([], [], color=colour, marker=marker, linestyle=line, markersize=5, label=series)
