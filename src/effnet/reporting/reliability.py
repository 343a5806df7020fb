"""The chart of how often a network is right when it is how sure."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.ticker import MaxNLocator, PercentFormatter

from effnet.evaluation.calibration import Bin, Calibration
from effnet.reporting.chart import QUIET, Chart, series_colour, sheet

_HEIGHT = 330
_GAP = 0.004
"""Between bars, in units of the axis."""


def reliability_chart(calibration: Calibration) -> Chart:
    """Draw accuracy against confidence, and below it how many images have which confidence.

    Args:
        calibration: Of a network; bins without an image are left out.
    """
    charts: list[Chart] = []
    label = f"expected calibration error {calibration.ece:.1%}; " + _in_words(calibration.bins)
    with sheet(title="Reliability", label=label, into=charts, height=_HEIGHT) as figure:
        axes, shares = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
        images = sum(one.images for one in calibration.bins)
        for one in calibration.bins:
            left, width = one.lower + _GAP, one.upper - one.lower - 2 * _GAP
            axes.bar(left, one.accuracy, width, align="edge", color=series_colour(0))
            shares.bar(left, one.images / images, width, align="edge", color=QUIET)
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1.2, linestyle=(0, (4, 3)))
        scaled = calibration.bins_after
        axes.plot(
            [one.confidence for one in scaled],
            [one.accuracy for one in scaled],
            color=series_colour(1),
            marker="o",
            markersize=4,
            linewidth=1.2,
        )
        axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="right answers")
        shares.set(xlabel="confidence of the answer", ylabel="images")
        axes.xaxis.set_major_formatter(PercentFormatter(xmax=1.0))
        for each in (axes, shares):
            each.yaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))
        shares.yaxis.set_major_locator(MaxNLocator(nbins=3))
        figure.align_ylabels()
    return charts[0]


def _in_words(bins: Sequence[Bin]) -> str:
    return ", ".join(
        f"{one.accuracy:.0%} of {one.images} answers right at a confidence of {one.confidence:.0%}"
        for one in bins
    )
