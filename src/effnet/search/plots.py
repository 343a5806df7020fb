"""The pictures of a study: accuracy against what it costs, and what the best networks share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from effnet.files import whole_file
from effnet.search.objective import Goal
from effnet.search.points import Value
from effnet.search.report import Entry, Report
from effnet.search.shared import Share

_BLUE, _ORANGE, _GREEN = "#1f5fa8", "#b4552d", "#3b8f5a"
_GREY, _GRID, _TEXT = "#9aa5b1", "#dfe3e8", "#333b44"
_SHARES = LinearSegmentedColormap.from_list("shares", ["#ffffff", "#6ea0d6"])
_DPI = 150
_AXES: dict[Goal, str] = {
    "accuracy": "top-1 on held-out training images",
    "step_ms": "training step, ms",
    "latency_ms": "latency of one image, ms",
    "memory_mb": "memory of a training step, MiB",
    "params": "parameters",
    "macs": "multiply-adds",
}
_FIELDS = {
    "operation": "operation",
    "kernel_size": "kernel",
    "expand_ratio": "expansion",
    "repeats": "repeats",
    "channels": "channels",
    "se_ratio": "SE ratio",
    "residual": "skip",
}


def plot_pareto(report: Report, path: Path) -> None:
    """Draw the complete candidates, one panel for each cost of the objective, as a PNG.

    Args:
        report: Must have a complete candidate.
        path: Replaced as a whole.

    Raises:
        OSError: The file cannot be written.
    """
    goals = report.objective.compared
    y = "accuracy" if "accuracy" in goals else goals[0]
    costs = [goal for goal in goals if goal != y]
    figure = Figure(figsize=(1.0 + 4.7 * len(costs), 4.4), layout="constrained")
    panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for axes, x in zip(panels, costs, strict=True):
        _draw_candidates(axes, report, x, y)
        _label(axes.xaxis, x)
    _label(panels[0].yaxis, y)
    # Below, where it hides no candidate.
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower left", ncols=4, frameon=False, fontsize=9, labelcolor=_TEXT
    )
    _heading(
        figure, report, f"{len(report.entries)} candidates trained to the end, objective {report.objective}"
    )
    _save(figure, path)


def plot_shared(report: Report, path: Path) -> None:
    """Draw how common every value is among the best, by stage, as a PNG; the best one's values are framed.

    Args:
        report: Must have a complete candidate, and its space a choice.
        path: Replaced as a whole.

    Raises:
        OSError: The file cannot be written.
    """
    by_field: dict[str, list[Share]] = {}
    for share in report.shared:
        by_field.setdefault(share.field, []).append(share)
    stages = len(report.space.stages)
    heights = [max(map(len, _values_by_stage(found).values())) + 0.9 for found in by_field.values()]
    figure = Figure(figsize=(2.0 + 0.95 * stages, 1.4 + 0.33 * sum(heights)), layout="constrained")
    panels = figure.subplots(
        len(by_field), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    for axes, (field, found) in zip(panels, by_field.items(), strict=True):
        _draw_shares(axes, found, stages)
        axes.set_title(_FIELDS[field], loc="left", fontsize=9, color=_TEXT)
    panels[-1].set_xlabel("stage", color=_TEXT, fontsize=9)
    _heading(
        figure,
        report,
        f"% of the best {len(report.best)} that have a value, in brackets of all that were trained; "
        "framed: the best",
    )
    _save(figure, path)


def _draw_candidates(axes: Axes, report: Report, x: Goal, y: Goal) -> None:
    front = [entry for entry in report.entries if entry.on_front]
    others = [entry for entry in report.entries if not entry.on_front]
    _draw_staircase(axes, report, x, y)
    _scatter(axes, others, x, y, colour=_GREY, marker="o", label="other candidates")
    _scatter(axes, front, x, y, colour=_BLUE, marker="o", label="on the front")
    if report.backbone:
        _scatter(axes, [report.backbone], x, y, colour=_GREEN, marker="D", label="backbone", size=60)
    if report.winner:
        _scatter(axes, [report.winner], x, y, colour=_ORANGE, marker="*", label="best", size=190)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9, colors=_TEXT)


def _draw_staircase(axes: Axes, report: Report, x: Goal, y: Goal) -> None:
    """Draw the border of what is reached in these two measures alone."""
    sign = -1.0 if y == "accuracy" else 1.0
    points = sorted(
        (getattr(entry.measures, x), sign * getattr(entry.measures, y)) for entry in report.entries
    )
    border = [points[0]]
    border += [
        point
        for index, point in enumerate(points[1:], 1)
        if point[1] < min(before[1] for before in points[:index])
    ]
    if len(border) > 1:
        places, heights = zip(*border, strict=True)
        heights = tuple(sign * height for height in heights)
        axes.step(places, heights, where="post", color=_BLUE, linewidth=1.2, alpha=0.5)


def _scatter(
    axes: Axes,
    entries: Sequence[Entry],
    x: Goal,
    y: Goal,
    *,
    colour: str,
    marker: str,
    label: str,
    size: float = 28,
) -> None:
    if entries:
        axes.scatter(
            [getattr(entry.measures, x) for entry in entries],
            [getattr(entry.measures, y) for entry in entries],
            s=size,
            color=colour,
            marker=marker,
            label=label,
            edgecolors="white",
            linewidths=0.8,
            zorder=3,
        )


def _draw_shares(axes: Axes, found: Sequence[Share], stages: int) -> None:
    own = _values_by_stage(found)
    # Where stages choose among other values, a row is a place in the order and the cell says the value.
    is_common = len(set(own.values())) == 1
    grid = np.full((max(map(len, own.values())), stages), np.nan)
    for share in found:
        row, column = own[share.stage].index(share.value), share.stage - 1
        grid[row, column] = share.best
        text = f"{100 * share.best:.0f} ({100 * share.tried:.0f})"
        axes.annotate(
            text if is_common else f"{_name(share.value)}:  {text}",
            (column, row),
            ha="center",
            va="center",
            fontsize=8,
            color=_TEXT,
            fontweight="bold" if share.in_winner else "normal",
        )
        if share.in_winner:
            axes.add_patch(
                Rectangle((column - 0.46, row - 0.42), 0.92, 0.84, fill=False, color=_ORANGE, linewidth=1.6)
            )
    axes.imshow(np.ma.masked_invalid(grid), cmap=_SHARES, vmin=0.0, vmax=1.0, aspect="auto")
    values = next(iter(own.values()))
    axes.set_yticks(range(len(grid)), [_name(value) for value in values] if is_common else [""] * len(grid))
    axes.set_xticks(range(stages), [str(stage) for stage in range(1, stages + 1)])
    axes.tick_params(length=0, labelsize=9, colors=_TEXT)
    axes.spines[:].set_visible(False)


def _values_by_stage(found: Sequence[Share]) -> dict[int, tuple[Value, ...]]:
    own: dict[int, list[Value]] = {}
    for share in found:
        own.setdefault(share.stage, []).append(share.value)
    return {stage: tuple(values) for stage, values in own.items()}


def _name(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _label(axis: Axis, goal: Goal) -> None:
    axis.set_label_text(_AXES[goal], color=_TEXT, fontsize=9)
    axis.set_major_locator(MaxNLocator(nbins=6))
    if goal == "accuracy":
        axis.set_major_formatter(PercentFormatter(xmax=1.0))
    elif goal in {"params", "macs"}:
        axis.set_major_formatter(EngFormatter())


def _heading(figure: Figure, report: Report, text: str) -> None:
    space = report.space
    figure.suptitle(
        f"{space.name} around {space.backbone.name}\n{text}", x=0.01, ha="left", fontsize=10, color=_TEXT
    )


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")
