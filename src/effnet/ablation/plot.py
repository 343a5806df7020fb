"""The picture of an ablation: its own numbers beside the paper's, each with its spread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from effnet.ablation.report import Report, Row
from effnet.files import whole_file

_COLOUR, _PAPER, _GRID, _TEXT = "#1f5fa8", "#b4552d", "#dfe3e8", "#333b44"
_LINE_COLOURS = ("#1f5fa8", "#b4552d", "#3b8f5a", "#7a4fa3", "#8a7a1f")
_MARKERS = ("o", "s", "^", "D", "v")
_DPI = 150
_ASIDE = 0.015
"""Distance of two series whose points lie at the same marks, as a share of the axis."""


def plot_report(report: Report, path: Path) -> None:
    """Draw a report as a PNG; cells without a result are left out.

    Args:
        report: At least one of its cells must have a result.
        path: Replaced as a whole.

    Raises:
        OSError: The file cannot be written.
    """
    draw = _draw_lines if report.study.ablation.picture == "lines" else _draw_dots
    figure = draw(report)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")


def _draw_dots(report: Report) -> Figure:
    """Draw accuracy, the paper's accuracy and time, one line for each cell."""
    rows = [row for row in report.rows if row.top1]
    has_paper = any(row.cell.paper for row in rows)
    figure = Figure(figsize=(10.5, 1.6 + 0.45 * len(rows)), layout="constrained")
    widths = [3, 2, 2] if has_paper else [3, 2]
    panels = figure.subplots(
        1, len(widths), sharey=True, squeeze=False, gridspec_kw={"width_ratios": widths}
    )[0]
    _draw_seeds(panels[0], rows)
    _title(panels[0], "top-1, mean ± s.d., and every seed")
    if has_paper:
        for y, row in enumerate(rows):
            if paper := row.cell.paper:
                _point(panels[1], paper.top1, y, paper.top1_std, _PAPER)
        _percent_axis(panels[1].xaxis)
        _title(panels[1], "the paper's top-1, ImageNet")
    seconds = [row.step_seconds.mean if row.step_seconds else 0.0 for row in rows]
    panels[-1].barh(
        range(len(rows)), [value / 60 for value in seconds], height=0.5, color=_COLOUR, alpha=0.55
    )
    for y, value in enumerate(seconds):
        panels[-1].annotate(
            f"{value / max(seconds[0], 1e-9):.2f} x",
            (value / 60, y),
            xytext=(-4, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=8,
            color=_TEXT,
        )
    _title(panels[-1], "minutes in training steps")
    panels[0].set_yticks(range(len(rows)), [row.cell.label for row in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    for axes in panels:
        _style(axes, grid="x")
    figure.suptitle(_heading(report), x=0.01, ha="left", fontsize=11, color=_TEXT)
    return figure


def _draw_seeds(axes: Axes, rows: Sequence[Row]) -> None:
    for y, row in enumerate(rows):
        if row.top1:
            axes.plot(
                row.top1.values,
                [y + 0.22] * len(row.top1.values),
                ".",
                color=_COLOUR,
                alpha=0.5,
                markersize=5,
            )
            _point(axes, row.top1.mean, y, row.top1.std, _COLOUR)
    _percent_axis(axes.xaxis)


def _point(axes: Axes, x: float, y: float, std: float | None, colour: str) -> None:
    axes.errorbar(x, y, xerr=std, fmt="o", color=colour, markersize=6, capsize=3, linewidth=1.5)


def _draw_lines(report: Report) -> Figure:
    """Draw accuracy against what grows, one line a series, beside the paper's."""
    rows = [row for row in report.rows if row.top1]
    has_paper = any(row.cell.paper for row in rows)
    figure = Figure(figsize=(10 if has_paper else 6, 4.2), layout="constrained")
    panels = figure.subplots(1, 2 if has_paper else 1, squeeze=False)[0]
    _draw_series(panels[0], rows, _own_point)
    _title(panels[0], "top-1, mean ± s.d.")
    if has_paper:
        _draw_series(panels[1], rows, _paper_point)
        _title(panels[1], "the paper's top-1, ImageNet")
    for axes in panels:
        axes.set_xlabel(report.study.ablation.x_label, color=_TEXT)
        _x_axis(axes, rows)
        _percent_axis(axes.yaxis)
        _style(axes, grid="y")
    panels[0].legend(frameon=False, fontsize=9, labelcolor=_TEXT)
    figure.suptitle(_heading(report), x=0.01, ha="left", fontsize=11, color=_TEXT)
    return figure


_Point = tuple[float, float, float | None]
"""Where a cell lies: x, top-1 and its spread."""


def _own_point(row: Row) -> _Point | None:
    x = row.cell.x if row.cell.x is not None else row.macs_an_image
    return (x, row.top1.mean, row.top1.std) if row.top1 and x is not None else None


def _paper_point(row: Row) -> _Point | None:
    paper = row.cell.paper
    if paper is None:
        return None
    x = row.cell.x if row.cell.x is not None else paper.macs
    return None if x is None else (x, paper.top1, paper.top1_std)


def _draw_series(axes: Axes, rows: Sequence[Row], point_of: Callable[[Row], _Point | None]) -> None:
    names = dict.fromkeys(row.cell.series for row in rows if row.cell.series)
    for index, name in enumerate(names):
        points = [point_of(row) for row in rows if row.cell.series in {"", name}]
        known = sorted((point for point in points if point), key=lambda point: point[0])
        if known:
            x, top1, std = zip(*known, strict=True)
            # Side by side, so that no spread hides another one.
            aside = _ASIDE * (index - (len(names) - 1) / 2) * (max(x) - min(x)) if _has_marks(rows) else 0.0
            x = tuple(place + aside for place in x)
            axes.errorbar(
                x,
                top1,
                yerr=[value or 0.0 for value in std],
                label=name,
                color=_LINE_COLOURS[index % len(_LINE_COLOURS)],
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=5,
                capsize=3,
                linewidth=1.5,
            )


def _has_marks(rows: Sequence[Row]) -> bool:
    return any(row.cell.x is not None for row in rows)


def _x_axis(axes: Axes, rows: Sequence[Row]) -> None:
    """Mark the places where cells lie, or, where those follow from the network, some multiply-adds."""
    if _has_marks(rows):
        marks = sorted({row.cell.x for row in rows if row.cell.x is not None})
        axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
    else:
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))


def _heading(report: Report) -> str:
    study = report.study
    scale = "" if study.full else ", small"
    return f"{study.ablation.title} ({study.ablation.source}{scale}), seeds: {study.seeds}"


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=9, color=_TEXT)


def _percent_axis(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=1))


def _style(axes: Axes, *, grid: Literal["x", "y"]) -> None:
    axes.grid(axis=grid, color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9, colors=_TEXT)
