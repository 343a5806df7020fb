"""Charts as SVG in a page: drawn by matplotlib, coloured and set in type by the page's style sheet.

So they follow a light or dark scheme, and their text is text. A chart is about as wide as a phone's page;
wide pages have several beside each other, and none is shrunk until it cannot be read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH, HEIGHT = 360, 210
"""Pixels of a usual chart at its natural size."""

INK, QUIET, LINE, SHADE = "#010001", "#010002", "#010003", "#010004"
"""Stand for colours of the style sheet, as do those of `series_colour`."""
_VARIABLES = {INK: "text", QUIET: "quiet", LINE: "line", SHADE: "shade"}
SERIES = 8
"""Colours that can be told apart, also by people who see fewer; more series begin again with dashes."""
_DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1, 1.5)))
_SENTINEL = re.compile(r"#01000[1-4]|#0200[0-9a-f]{2}")
_POINTS = 600
"""Most points of a line; more would not be seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A chart on the page."""

    title: str
    svg: str
    """Markup: safe, with all text escaped."""


def series_colour(number: int) -> str:
    """Return what stands for the colour of a series, from 0."""
    return f"#0200{number % SERIES:02x}"


def series_dash(number: int) -> str | tuple[float, tuple[float, ...]]:
    """Return the dashes of a series, so that more than `SERIES` can be told apart."""
    return _DASHES[number // SERIES % len(_DASHES)]


@contextmanager
def sheet(*, title: str, label: str, into: list[Chart], height: int = HEIGHT) -> Iterator[Figure]:
    """Give a figure to draw on; the chart is in the list when the ``with`` block ends.

    Args:
        title: Above the chart, also where it is read aloud.
        label: What is to be seen, in a sentence, for those who do not see it.
        into: Gets the chart.
        height: Pixels at its natural size.
    """
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": f"{title}/{len(into)}", "font.size": 11}
    with mpl.rc_context(style):
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        yield figure
        for axes in figure.axes:
            _tidy(axes)
        into.append(Chart(title=title, svg=_markup(figure, title, label)))


@contextmanager
def panel(*, title: str, label: str, into: list[Chart], height: int = HEIGHT) -> Iterator[Axes]:
    """Give the only axes of a figure; arguments as of `sheet`."""
    with sheet(title=title, label=label, into=into, height=height) as figure:
        yield figure.subplots()


def thinned(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return a line of no more points than can be seen: means of those that follow each other."""
    together = -(-len(xs) // _POINTS)
    if together <= 1:
        return list(xs), list(ys)
    groups = [slice(start, start + together) for start in range(0, len(xs), together)]
    return [_mean(xs[group]) for group in groups], [_mean(ys[group]) for group in groups]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _tidy(axes: Axes) -> None:
    axes.set_facecolor("none")
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(labelsize=11, color=QUIET, labelcolor=QUIET, length=3)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_color(QUIET)
        text.set_fontsize(11)


def _markup(figure: Figure, title: str, label: str) -> str:
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    body = text[text.index(">") + 1 :]
    box = re.search(r'viewBox="[^"]*"', text)
    if box is None:
        raise AssertionError("matplotlib's SVG has no viewBox")
    body = _SENTINEL.sub(lambda found: f"var(--{_variable(found[0])})", body)
    body = re.sub(r"font: (?:\w+ )?([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    body = re.sub(r"font-family: [^;\"]*; ?", "", body)
    return f'<svg class="chart" {box[0]} role="img" aria-label="{escape(f"{title}: {label}")}">{body.strip()}'


def _variable(colour: str) -> str:
    return _VARIABLES.get(colour) or f"series{int(colour[-2:], 16)}"
