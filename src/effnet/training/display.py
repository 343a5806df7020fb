"""What a run shows while it trains, on stderr: a live panel on a terminal, elsewhere plain lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from effnet.schedule.progressive import StageSchedule, StageSettings

DATA_WAIT_HINT = 0.10
"""Share of the time above which waiting for images is worth mending."""
_HINT_REPORTS = 3
"""Reports in a row above it after which a line says so; the first batches of a run are always waited for."""
_SMOOTHING = 0.3
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """How training goes, averaged over the steps since the last report."""

    step: int
    """Steps done."""
    epoch: float
    """Epochs done."""
    loss: float
    learning_rate: float
    images_per_second: float
    data_wait: float
    """Share of the time spent waiting for images."""
    seconds_per_step: float
    """Waiting included, evaluation and checkpoints not."""


def seconds_left(schedule: StageSchedule, step: int, step_seconds: Mapping[int, float]) -> float | None:
    """Estimate how long the steps behind ``step`` take.

    Args:
        schedule: Of the run.
        step: Steps done.
        step_seconds: Measured seconds a step, by stage. A stage without measurement costs what the
            nearest measured one costs, in proportion to the pixels of a batch.

    Returns:
        Seconds, or nothing before the first measurement.
    """
    if not step_seconds:
        return None
    seconds = 0.0
    for stage in schedule.stages:
        steps = stage.end_step - min(max(step, stage.start_step), stage.end_step)
        nearest = schedule.stages[min(step_seconds, key=lambda known: abs(known - stage.stage))]
        seconds += steps * step_seconds[nearest.stage] * _batch_pixels(stage) / _batch_pixels(nearest)
    return seconds


def _batch_pixels(stage: StageSettings) -> int:
    return stage.image_size**2 * stage.batch_size


class Display:
    """What a run tells its user; lines go to the console, the panel is for `rich.live.Live`.

    Args:
        schedule: Of the run.
        console: Where lines are printed.
        advice: What to do against waiting for images.
        has_panel: Whether the panel is shown; else the advice is printed, once.
    """

    def __init__(
        self, schedule: StageSchedule, console: Console, *, advice: str = "", has_panel: bool = True
    ) -> None:
        self._schedule = schedule
        self._console = console
        self._advice = advice
        self._long_waits, self._is_advised = 0, has_panel
        self._settings = schedule.stages[0]
        self._report: StepReport | None = None
        self._step_seconds: dict[int, float] = {}
        self._best_top1: float | None = None

    def stage(self, settings: StageSettings) -> None:
        """Announce a stage."""
        self._settings = settings
        last = self._schedule.total_steps
        self._print(
            f"{self._stage_title()}: {_stage_line(settings)}, "
            f"steps {settings.start_step} to {settings.end_step} of {last}"
        )

    def step(self, report: StepReport) -> None:
        """Show how training goes."""
        self._report = report
        stage, now = self._settings.stage, report.seconds_per_step
        before = self._step_seconds.get(stage, now)
        self._step_seconds[stage] = before + _SMOOTHING * (now - before)
        self._long_waits = self._long_waits + 1 if report.data_wait > DATA_WAIT_HINT else 0
        if self._long_waits == _HINT_REPORTS and not self._is_advised:
            self._is_advised = True
            self._print(self._wait_line(report))

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """Tell the result of an evaluation.

        Args:
            record: As in the journal: ``step``, ``epoch``, ``val_top1`` (a fraction), ``val_loss`` and more.
        """
        step, top1 = record["step"], record["val_top1"]
        self._best_top1 = max(top1, self._best_top1 or 0.0)
        parts = [
            f"step {step}/{self._schedule.total_steps}",
            f"epoch {record['epoch']:.1f}",
            f"val top-1 {top1:.2%}",
            f"val loss {record['val_loss']:.3f}",
        ]
        if "val_raw_top1" in record:
            parts.insert(3, f"without averaging {record['val_raw_top1']:.2%}")
        if self._report:
            parts += [
                f"train loss {self._report.loss:.3f}",
                f"{self._report.images_per_second:.0f} images/s",
                f"data wait {self._report.data_wait:.0%}",
            ]
        if record.get("stopped_early"):
            self._print(", ".join([*parts, "stopped early"]))
        else:
            self._print(", ".join([*parts, self._time_left(step)]))

    def message(self, text: str) -> None:
        """Print a line."""
        self._print(text)

    def panel(self) -> Panel:
        """Return the state of the run as a panel."""
        total = self._schedule.total_steps
        step = self._report.step if self._report else self._settings.start_step
        progress = Table.grid(padding=(0, 2), expand=True)
        progress.add_column(ratio=1)
        progress.add_column(no_wrap=True)
        progress.add_row(
            ProgressBar(total=total, completed=step), f"step {step}/{total}, {self._time_left(step)}"
        )
        lines: list[Text | Table] = [Text(_stage_line(self._settings)), progress]
        if self._report:
            lines.append(Text(self._training_line(self._report)))
            if self._report.data_wait > DATA_WAIT_HINT:
                lines.append(Text(self._wait_line(self._report), style="yellow"))
        return Panel(Group(*lines), title=self._stage_title(), title_align="left")

    def _training_line(self, report: StepReport) -> str:
        parts = [
            f"epoch {report.epoch:.2f}",
            f"loss {report.loss:.3f}",
            f"learning rate {report.learning_rate:.3g}",
            f"{report.images_per_second:.0f} images/s",
            f"data wait {report.data_wait:.0%}",
        ]
        if self._best_top1 is not None:
            parts.append(f"best val top-1 {self._best_top1:.2%}")
        return "  ".join(parts)

    def _wait_line(self, report: StepReport) -> str:
        return f"waits for images {report.data_wait:.0%} of the time: {self._advice}"

    def _stage_title(self) -> str:
        return f"stage {self._settings.stage + 1}/{len(self._schedule.stages)}"

    def _time_left(self, step: int) -> str:
        seconds = seconds_left(self._schedule, step, self._step_seconds)
        return "time left unknown" if seconds is None else f"{_duration(seconds)} left"

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _stage_line(settings: StageSettings) -> str:
    erasing = f"erasing {settings.erasing_probability:.3g}, " if settings.erasing_probability else ""
    return (
        f"{settings.image_size} px, batch {settings.batch_size}, "
        f"RandAugment {settings.randaugment_magnitude:.3g}, mixup {settings.mixup_alpha:.3g}, "
        f"cutmix {settings.cutmix_alpha:.3g}, {erasing}dropout {settings.dropout_rate:.3g}, "
        f"drop-path {settings.drop_path_rate:.3g}"
    )


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S:02d} s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S:02d} min"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"


@contextmanager
def open_display(schedule: StageSchedule, quiet: bool, advice: str = "") -> Iterator[Display]:
    """Show a run on stderr for the length of a ``with`` block; stdout stays free for results.

    Args:
        schedule: Of the run.
        quiet: Show nothing.
        advice: What to do against waiting for images, see `effnet.training.waiting`.

    Yields:
        On a terminal a panel that is refreshed four times a second, with a line above it for each stage
        and evaluation; elsewhere these lines alone, and one with the advice where it is needed.
    """
    console = Console(stderr=True, quiet=quiet)
    has_panel = not quiet and console.is_terminal and not console.is_dumb_terminal
    display = Display(schedule, console, advice=advice, has_panel=has_panel)
    if not has_panel:
        yield display
        return
    # What others print to stdout must not move to stderr.
    with Live(get_renderable=display.panel, console=console, redirect_stdout=False):
        yield display
