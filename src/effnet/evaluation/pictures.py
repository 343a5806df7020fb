"""Pictures of an evaluation: confusion matrix, reliability, and accuracy against image size.

Dimension key: K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, PercentFormatter

from effnet.evaluation.calibration import Bin, Calibration
from effnet.evaluation.interval import Interval
from effnet.files import whole_file

_COLOUR, _OTHER, _WRONG = "#1f5fa8", "#b5541c", "#c0392b"
_GRID, _TEXT = "#dfe3e8", "#333b44"
_DPI = 150
_MOST_NUMBERS, _MOST_NAMES = 30, 100
"""Classes up to which the cells of a matrix have numbers, and its sides names."""


def save_picture(figure: Figure, path: Path) -> None:
    """Write a picture as PNG, whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")


def draw_confusion(matrix: Int64[np.ndarray, "K K"], class_names: Sequence[str]) -> Figure:
    """Draw how many images of each class (rows) are answered with which (columns).

    Colours are shares of the true class, so that rare classes show as well. Up to 30 classes cells have their
    numbers, up to 100 the sides have names; classes that are neither true nor answered of any image are left
    out.
    """
    used = np.flatnonzero(matrix.sum(0) + matrix.sum(1))
    matrix, names = matrix[np.ix_(used, used)], [class_names[int(index)] for index in used]
    count = len(names)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = float(np.clip(0.62 * count + 2.2, 4.5, 14.0))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02, format=PercentFormatter(xmax=1.0))
    bar.ax.tick_params(labelsize=9, colors=_TEXT)
    bar.outline.set_visible(False)
    if count <= _MOST_NUMBERS:
        for row, column in np.argwhere(matrix > 0):
            colour = "white" if shares[row, column] > 0.55 else _TEXT if row == column else _WRONG
            text = str(matrix[row, column])
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
    if count <= _MOST_NAMES:
        size = 9 if count <= _MOST_NUMBERS else 5
        axes.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
        axes.set_yticks(range(count), names, fontsize=size)
    axes.tick_params(colors=_TEXT, length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("answered", color=_TEXT)
    axes.set_ylabel("true", color=_TEXT)
    right = int(np.trace(matrix))
    axes.set_title(
        f"{right} of {matrix.sum()} right, colours are shares of the true class", fontsize=10, color=_TEXT
    )
    return figure


def draw_reliability(result: Calibration) -> Figure:
    """Draw accuracy against confidence, without and with temperature, and the numbers of images.

    Points on the diagonal are right as often as they say; below it the network is too sure of itself.
    """
    figure = Figure(figsize=(6.4, 6.8), layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    axes.plot([0, 1], [0, 1], color=_TEXT, linewidth=0.8, linestyle=":")
    series = [("as it is", result.ece, result.bins, _COLOUR)]
    if result.ece_after is not None:
        label = f"temperature {result.temperature:.3g}"
        series.append((label, result.ece_after, result.bins_after, _OTHER))
    for label, error, bins, colour in series:
        _draw_bins(axes, bins, colour, f"{label}: error {error:.2%}")
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("accuracy", color=_TEXT)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    axes.legend(loc="upper left", frameon=False, fontsize=9, labelcolor=_TEXT)
    for place, (_, _, bins, colour) in enumerate(series):
        width = (bins[0].upper - bins[0].lower) / (len(series) + 0.4)
        left = [part.lower + width * (place + 0.2) for part in bins]
        counts.bar(left, [part.images for part in bins], width, align="edge", color=colour)
    counts.set_ylabel("images", color=_TEXT)
    counts.set_xlabel("confidence: probability of the answer", color=_TEXT)
    counts.set_xlim(0, 1)
    counts.xaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    _quieten(axes, counts)
    return figure


def draw_sizes(sizes: Sequence[int], top1: Sequence[Interval]) -> Figure:
    """Draw top-1 accuracy with its interval against the image size in pixels."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    values = [found.value for found in top1]
    below = [max(found.value - found.low, 0.0) for found in top1]
    above = [max(found.high - found.value, 0.0) for found in top1]
    axes.errorbar(
        sizes, values, yerr=[below, above], color=_COLOUR, marker="o", markersize=4, linewidth=1.5, capsize=3
    )
    best = max(range(len(values)), key=values.__getitem__)
    axes.set_title(f"best {values[best]:.2%} at {sizes[best]} px", loc="right", fontsize=9, color=_TEXT)
    axes.xaxis.set_major_locator(FixedLocator(list(sizes)))
    axes.set_xlabel("image size, px", color=_TEXT)
    axes.set_ylabel(f"top-1, with its {top1[0].confidence:.0%} interval", color=_TEXT)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    _quieten(axes)
    return figure


def _draw_bins(axes: Axes, bins: Sequence[Bin], colour: str, label: str) -> None:
    """Draw a point for each bin, the larger the more images it has."""
    confidences = [part.confidence for part in bins]
    accuracies = [part.accuracy for part in bins]
    most = max(part.images for part in bins)
    areas = [12 + 90 * part.images / most for part in bins]
    axes.plot(confidences, accuracies, color=colour, linewidth=1.0, alpha=0.6)
    axes.scatter(
        confidences, accuracies, s=areas, color=colour, label=label, alpha=0.85, linewidths=0, clip_on=False
    )


def _quieten(*panels: Axes) -> None:
    for axes in panels:
        axes.grid(color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9, colors=_TEXT)
