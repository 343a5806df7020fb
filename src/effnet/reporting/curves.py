"""The charts of what a run was planned to do and what it did, several runs on the same axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from effnet.config import COUPLED
from effnet.reporting.chart import INK, QUIET, SHADE, Chart, panel, series_colour, series_dash, thinned
from effnet.reporting.facts import RunFacts
from effnet.schedule.points import rate_of_step
from effnet.schedule.progressive import LABELS, StageSchedule

_RATE_POINTS = 400
_MOST_MARKED = 24
"""Stages that are worth telling apart behind a curve."""
_FEW, _WIDER = 4, 1.3
"""Of so many runs at most, each has a wider line than the next: runs often have the same stages."""
_NARROW = 0.11
"""Share of the axis from which a stage's value is written on it."""


@dataclass(frozen=True, slots=True)
class _Planned:
    """A run with a known schedule, and its place among all runs."""

    number: int
    facts: RunFacts
    schedule: StageSchedule


def schedule_charts(runs: Sequence[RunFacts]) -> tuple[Chart, ...]:
    """Draw image size, everything else that changes along or between runs, and the learning rate.

    Args:
        runs: Those without a known schedule are left out.

    Returns:
        One chart a value, against the epoch; none where no schedule is known. The others: `constants`.
    """
    planned = _planned(runs)
    charts: list[Chart] = []
    if not planned:
        return ()
    _staircase(planned, "Image size, px", "image_size", charts)
    for name in COUPLED:
        if len(_values(planned, name)) > 1:
            _staircase(planned, _capital(LABELS[name]), name, charts)
    _rates(planned, charts)
    return tuple(charts)


def constants(runs: Sequence[RunFacts]) -> tuple[str, ...]:
    """Name what all stages of all runs have in common, as ``dropout 0.2``; not what none of them uses."""
    planned = _planned(runs)
    values = {name: _values(planned, name) for name in COUPLED}
    return tuple(
        f"{LABELS[name]} {max(found):.3g}" for name, found in values.items() if len(found) == 1 and max(found)
    )


def training_charts(runs: Sequence[RunFacts]) -> tuple[Chart, ...]:
    """Draw loss, validation top-1 and learning rate as they were; behind a single run, its stages.

    Returns:
        One chart for each that has a number, against the epoch; none where no run has written any.
    """
    charts: list[Chart] = []
    _measured(runs, "Loss in training (line), in validation (dots)", ("loss", "val_loss"), charts)
    _measured(runs, "Validation top-1", ("val_top1",), charts)
    _measured(runs, "Learning rate, as it was", ("learning_rate",), charts)
    return tuple(charts)


def speed_charts(runs: Sequence[RunFacts]) -> tuple[Chart, ...]:
    """Draw how many images were trained on a second, and what share of the time was waited for them."""
    charts: list[Chart] = []
    _measured(runs, "Images a second", ("images_per_second",), charts)
    _measured(runs, "Time spent waiting for images", ("data_wait",), charts)
    return tuple(charts)


def _planned(runs: Sequence[RunFacts]) -> list[_Planned]:
    return [
        _Planned(number, facts, facts.schedule)
        for number, facts in enumerate(runs)
        if isinstance(facts.schedule, StageSchedule)
    ]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _edges(schedule: StageSchedule) -> list[float]:
    return [schedule.epoch(stage.start_step) for stage in schedule.stages] + [
        schedule.epoch(schedule.total_steps)
    ]


def _values(runs: Sequence[_Planned], name: str) -> set[float]:
    return {getattr(stage, name) for run in runs for stage in run.schedule.stages}


def _staircase(runs: Sequence[_Planned], title: str, name: str, charts: list[Chart]) -> None:
    each = [[getattr(stage, name) for stage in run.schedule.stages] for run in runs]
    label = "; ".join(
        f"{run.facts.name} from {values[0]:.3g} to {values[-1]:.3g}"
        for run, values in zip(runs, each, strict=True)
    )
    with panel(title=title, label=label, into=charts) as axes:
        for run, values in zip(runs, each, strict=True):
            wider = {"linewidth": 1.8 + _WIDER * (len(runs) - 1 - run.number) if len(runs) <= _FEW else 1.8}
            axes.stairs(values, _edges(run.schedule), baseline=None, **(_line(run.number) | wider))
            if len(runs) == 1:
                _write_values(axes, run.schedule, values)
        axes.set_ylim(0, 1.25 * max(map(max, each)) or 1.0)
        _epochs(axes, runs)


def _line(number: int) -> dict[str, Any]:
    return {"color": series_colour(number), "linestyle": series_dash(number), "linewidth": 1.8}


def _write_values(axes: Axes, schedule: StageSchedule, values: Sequence[float]) -> None:
    """Write each stage's value above it, where there is room."""
    edges = _edges(schedule)
    for start, end, value in zip(edges, edges[1:], values, strict=False):
        if end - start >= _NARROW * edges[-1]:
            axes.annotate(
                f"{value:.3g}",
                ((start + end) / 2, value),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                color=INK,
            )


def _rates(runs: Sequence[_Planned], charts: list[Chart]) -> None:
    lines = []
    for run in runs:
        total = run.schedule.total_steps
        steps = range(0, total, max(total // _RATE_POINTS, 1))
        rates = [rate_of_step(run.facts.config.learning_rate, run.schedule, step) for step in steps]
        lines.append(([run.schedule.epoch(step) for step in steps], rates))
    label = "; ".join(
        f"{run.facts.name} at most {max(rates):.3g}" for run, (_, rates) in zip(runs, lines, strict=True)
    )
    with panel(title="Learning rate, as planned", label=label, into=charts) as axes:
        for run, (epochs, rates) in zip(runs, lines, strict=True):
            axes.plot(epochs, rates, **_line(run.number))
        axes.set_ylim(0, 1.1 * max(max(rates) for _, rates in lines) or 1.0)
        _scientific(axes)
        _epochs(axes, runs)


def _measured(runs: Sequence[RunFacts], title: str, keys: Sequence[str], charts: list[Chart]) -> None:
    series = [_Series(number, run, key) for key in keys for number, run in enumerate(runs)]
    series = [one for one in series if one.points]
    if not series:
        return
    with panel(title=title, label="; ".join(map(str, series)), into=charts) as axes:
        if len(runs) == 1:
            _mark_stages(axes, runs[0])
        for one in series:
            axes.plot(*thinned(*zip(*one.points, strict=True)), **(_line(one.number) | one.dots))
        if series[0].is_share:
            axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
        if not keys[0].endswith(("loss", "top1")):
            axes.set_ylim(bottom=0)
        if keys[0] == "learning_rate":
            _scientific(axes)
        _epochs(axes, _planned(runs))


def _scientific(axes: Axes) -> None:
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.yaxis.get_offset_text().set_color(QUIET)


@dataclass(frozen=True, slots=True)
class _Series:
    """One kind of number in the journal of a run."""

    number: int
    run: RunFacts
    key: str

    @property
    def points(self) -> list[tuple[float, float]]:
        """Epochs and values."""
        records = (record for record in self.run.metrics if record.get(self.key) is not None)
        return [(record["epoch"], record[self.key]) for record in records]

    @property
    def is_share(self) -> bool:
        return self.key in {"val_top1", "data_wait"}

    @property
    def dots(self) -> dict[str, Any]:
        """Validations are few, and each is a result; a single point would not be seen."""
        if self.key == "val_loss":
            return {"marker": "o", "markersize": 4.5, "linewidth": 0}
        return {"marker": "o", "markersize": 3.5} if self.key == "val_top1" or len(self.points) == 1 else {}

    def __str__(self) -> str:
        first, last = self.points[0][1], self.points[-1][1]
        kind = {"loss": "training ", "val_loss": "validation "}.get(self.key, "")
        values = (f"{value:.1%}" if self.is_share else f"{value:.3g}" for value in (first, last))
        return f"{kind}{self.run.name} from {' to '.join(values)}"


def _mark_stages(axes: Axes, run: RunFacts) -> None:
    """Shade every other stage, and write the image sizes on top where there is room."""
    if not isinstance(run.schedule, StageSchedule) or not 1 < len(run.schedule.stages) <= _MOST_MARKED:
        return
    edges = _edges(run.schedule)
    for number, (stage, start, end) in enumerate(zip(run.schedule.stages, edges, edges[1:], strict=False)):
        if number % 2:
            axes.axvspan(start, end, color=SHADE, linewidth=0)
        if end - start >= _NARROW * edges[-1]:
            axes.text(
                (start + end) / 2,
                1.0,
                f"{stage.image_size} px",
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="bottom",
                color=QUIET,
                fontsize=10,
            )


def _epochs(axes: Axes, runs: Sequence[_Planned]) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    if runs:
        axes.set_xlim(0, max(run.schedule.epoch(run.schedule.total_steps) for run in runs))
