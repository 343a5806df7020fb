"""Figures of a run: how it learned, and how image size and regularization grow together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from effnet.files import whole_file
from effnet.schedule.progressive import LABELS, StageSchedule

_LOSS_COLOUR, _COLOUR = "#7a8794", "#1f5fa8"
_SHADE, _GRID, _TEXT = "#f0f2f5", "#dfe3e8", "#333b44"
_DPI = 150
_MIN_LABEL_WIDTH = 0.07
_MOST_SHADED_STAGES = 24
_SHOWN_IF_USED = {"cutmix_alpha", "erasing_probability"}


def plot_learning_curve(metrics: Sequence[Mapping[str, Any]], schedule: StageSchedule, path: Path) -> None:
    """Draw training loss and validation accuracy against the epoch, stage by stage, as a PNG.

    Args:
        metrics: Records with ``epoch`` and ``loss``, or ``epoch`` and ``val_top1`` (a fraction), or all of
            them; a value that is missing or null is left out.
        schedule: Of the run; the axis spans it whole, also while the run goes on.
        path: 1350 x 900 pixels; replaced as a whole.

    Raises:
        OSError: The file cannot be written.
    """
    figure = Figure(figsize=(9, 6), layout="constrained")
    loss_axes, top1_axes = figure.subplots(2, 1, sharex=True)

    epochs, losses = _series(metrics, "loss")
    dot = "." if len(losses) == 1 else ""
    loss_axes.plot(epochs, losses, marker=dot, color=_LOSS_COLOUR, linewidth=1.2)
    loss_axes.set_ylabel("training loss")

    epochs, top1 = _series(metrics, "val_top1")
    top1_axes.plot(epochs, top1, color=_COLOUR, linewidth=1.5, marker=".", markersize=5)
    top1_axes.set_ylabel("validation top-1")
    top1_axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    if top1:
        best = max(range(len(top1)), key=lambda index: top1[index])
        title = f"best {top1[best]:.2%} at epoch {epochs[best]:.4g}"
        top1_axes.set_title(title, loc="right", fontsize=9, color=_TEXT)

    _style([loss_axes, top1_axes], schedule)
    _save(figure, path)


def plot_schedule(schedule: StageSchedule, learning_rates: Sequence[tuple[float, float]], path: Path) -> None:
    """Draw what changes along a run, one small panel each, against the epoch, as a PNG.

    Args:
        schedule: Of the run; what is in `_SHOWN_IF_USED` has a panel only where it is used.
        learning_rates: Epoch and rate, in order; a few hundred pairs are enough.
        path: 1350 x 1350 pixels; replaced as a whole.

    Raises:
        OSError: The file cannot be written.
    """
    staircases: dict[str, list[float]] = {"image size, px": [stage.image_size for stage in schedule.stages]}
    for name, label in LABELS.items():
        values = [stage.coupled[name] for stage in schedule.stages]
        if name not in _SHOWN_IF_USED or any(values):
            staircases[label] = values
    figure = Figure(figsize=(9, 9), layout="constrained")
    *panels, rate_axes = figure.subplots(len(staircases) + 1, 1, sharex=True)

    bounds = list(_bounds(schedule))
    edges = [0.0, *(end for _, end in bounds)]
    for axes, (label, values) in zip(panels, staircases.items(), strict=True):
        axes.stairs(values, edges, baseline=None, color=_COLOUR, linewidth=1.6, clip_on=False)
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.4 * max(values) or 1.0)
        for stage, value in zip(bounds, values, strict=True):
            _label(axes, stage, value, f"{value:.3g}", edges[-1])

    epochs, rates = zip(*learning_rates, strict=True)
    rate_axes.plot(epochs, rates, color=_COLOUR, linewidth=1.6)
    rate_axes.set_ylabel("learning rate")
    rate_axes.set_ylim(0, 1.2 * max(rates) or 1.0)

    _style([*panels, rate_axes], schedule)
    figure.align_ylabels()
    _save(figure, path)


def _series(metrics: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    points = [(record["epoch"], record[key]) for record in metrics if record.get(key) is not None]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _bounds(schedule: StageSchedule) -> Iterator[tuple[float, float]]:
    for stage in schedule.stages:
        yield schedule.epoch(stage.start_step), schedule.epoch(stage.end_step)


def _label(axes: Axes, stage: tuple[float, float], y: float, text: str, total: float) -> None:
    """Write above the middle of a stage, unless it is too narrow for that."""
    start, end = stage
    if end - start >= _MIN_LABEL_WIDTH * total:
        axes.annotate(
            text,
            ((start + end) / 2, y),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9,
            color=_TEXT,
        )


def _style(panels: Sequence[Axes], schedule: StageSchedule) -> None:
    """Shade every other stage unless they are many, name them on top, and keep the frames quiet."""
    bounds = list(_bounds(schedule))
    span = bounds[-1][1]
    shaded = bounds[1::2] if len(bounds) <= _MOST_SHADED_STAGES else []
    for axes in panels:
        axes.set_xlim(0, span)
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9, colors=_TEXT)
        axes.yaxis.label.set_color(_TEXT)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
        for start, end in shaded:
            axes.axvspan(start, end, color=_SHADE, zorder=0, linewidth=0)
    top = panels[0].get_ylim()[1]
    for stage, bound in zip(schedule.stages, bounds, strict=True):
        _label(panels[0], bound, top, f"{stage.image_size} px", span)
    panels[-1].set_xlabel("epoch", color=_TEXT)


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")
