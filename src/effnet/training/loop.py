"""The one training loop: stage, batch, step, journal, evaluation, checkpoint, in this order."""

from __future__ import annotations

import shlex
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from effnet.errors import UnreachableError
from effnet.training.batches import run_batches
from effnet.training.checkpoint import CheckpointInfo, load_checkpoint, take_snapshot
from effnet.training.display import Display
from effnet.training.experiment import Experiment
from effnet.training.interrupt import Interruption, listen_for_interruption
from effnet.training.journal import Run
from effnet.training.keeper import Keeper, load_newest
from effnet.training.plots import plot_learning_curve, plot_schedule
from effnet.training.progress import Progress
from effnet.training.step import (
    TrainState,
    initial_state,
    is_head_phase,
    rate_at,
    set_phase,
    train_step,
)
from effnet.training.validation import evaluate_run, is_evaluation_step
from effnet.training.waiting import WaitClock
from effnet.training.window import DivergedRunError, Window

_CURVE_POINTS = 2000


class InterruptedRunError(Exception):
    """Somebody asked the run to stop; its state is saved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """What a finished run came to. Accuracies are fractions."""

    run: str
    steps: int
    val_top1: float
    """Of the last evaluation."""
    best_val_top1: float
    best_step: int
    train_seconds: float
    """Time in the loop, evaluation and checkpoints included, over all sessions of the run."""
    data_wait: float
    """Share of the time in training steps that was spent waiting for images, over all sessions."""
    bad_images: int

    def to_dict(self) -> dict[str, Any]:
        """Return the result under its names."""
        return asdict(self)


def train(experiment: Experiment, run: Run, display: Display, *, resume: bool = False) -> RunResult:
    """Train from the first step, or from the last checkpoint, to the end.

    Args:
        experiment: What to train.
        run: Where to write.
        display: Whom to tell.
        resume: Continue from the run's last checkpoint at its exact step.

    Returns:
        The result; all files of the run are written.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM came; the state is saved.
        DivergedRunError: The loss is not finite.
        OSError: A file cannot be written; earlier checkpoints are intact.
        UnreachableError: Images are on another machine, and the connection is lost.
    """
    state = initial_state(experiment)
    progress = _restore(run, state, display) if resume else Progress()
    stage_ends = [stage.end_step for stage in experiment.schedule.stages]
    try:
        _plot_schedule(experiment, run)
        with (
            closing(Keeper(run.checkpoints, experiment.config.checkpoint, stage_ends)) as keeper,
            listen_for_interruption() as interruption,
        ):
            _run_steps(experiment, run, display, state, progress, keeper, interruption)
    except (InterruptedRunError, DivergedRunError):
        _plot_curve(experiment, run)
        raise
    except (OSError, UnreachableError) as error:
        kind = OSError if isinstance(error, OSError) else UnreachableError
        raise kind(f"{error}; once that is mended, continue with: {_resume_command(run)}") from error
    _plot_curve(experiment, run)
    return RunResult(
        run=str(run.path),
        steps=progress.step,
        val_top1=progress.val_top1,
        best_val_top1=progress.best_val_top1,
        best_step=progress.best_step,
        train_seconds=progress.seconds,
        data_wait=min(progress.wait_seconds / max(progress.step_seconds, 1e-9), 1.0),
        bad_images=run.bad_image_count,
    )


def _run_steps(  # noqa: PLR0917 - the one place where everything meets, in its fixed order
    experiment: Experiment,
    run: Run,
    display: Display,
    state: TrainState,
    progress: Progress,
    keeper: Keeper,
    interruption: Interruption,
) -> None:
    config, schedule = experiment.config, experiment.schedule
    batches = run_batches(experiment, schedule, seed=config.train.seed, start_step=progress.step)
    clock = WaitClock(experiment.device)
    window = Window(run, display, progress, clock)
    checkpoint_time, phase = time.monotonic(), (-1, False)
    with closing(batches):
        for batch in clock.watch(batches):
            # Stage.
            new_phase = (batch.settings.stage, is_head_phase(config, schedule, batch.step))
            if new_phase != phase:
                set_phase(state.model, config, batch.settings, is_head_only=new_phase[1])
                if new_phase[0] != phase[0]:
                    display.stage(batch.settings)
                phase = new_phase

            # Step.
            loss = train_step(state, batch, experiment)
            progress.step = batch.step + 1
            is_last = progress.step == schedule.total_steps

            # Journal.
            for bad in batch.bad:
                run.report_bad_image(bad.name, bad.reason)
                display.message(f"skipped {bad.name}: {bad.reason}")
            window.add(batch, loss, schedule.epoch(progress.step), rate_at(config, schedule, batch.step))
            is_evaluated = is_evaluation_step(experiment, progress.step)
            if is_evaluated or window.is_full:
                window.flush()
            elif interruption.is_requested:
                window.keep()

            # Evaluation.
            if is_evaluated:
                evaluate_run(experiment, run, state, progress, display)
                set_phase(state.model, config, batch.settings, is_head_only=phase[1])
                window.restart_clock()

            # Checkpoint.
            is_due = time.monotonic() - checkpoint_time > 60 * config.checkpoint.every_minutes
            if is_evaluated or interruption.is_requested or (is_due and window.is_empty):
                _save(keeper, state, progress)
                checkpoint_time = time.monotonic()
                window.restart_clock()
            if interruption.is_requested and not is_last:
                keeper.wait()
                raise InterruptedRunError(
                    f"stopped after step {progress.step} of {schedule.total_steps}; "
                    f"continue with: {_resume_command(run)}"
                )
    keeper.wait()


def _resume_command(run: Run) -> str:
    return f"effnet train --resume {shlex.quote(str(run.path))}"


def _save(keeper: Keeper, state: TrainState, progress: Progress) -> None:
    keeper.save(
        lambda: take_snapshot(
            step=progress.step,
            model=state.model,
            ema=state.ema,
            optimizer=state.optimizer,
            extra=asdict(progress),
        )
    )


def _restore(run: Run, state: TrainState, display: Display) -> Progress:
    def load(path: Path) -> CheckpointInfo:
        return load_checkpoint(path, model=state.model, ema=state.ema, optimizer=state.optimizer)

    info = load_newest(run.checkpoints, load, display.message)
    run.journal.truncate_after(info.step if info else 0)
    return Progress(**info.extra) if info else Progress()


def _plot_schedule(experiment: Experiment, run: Run) -> None:
    schedule = experiment.schedule
    points = range(0, schedule.total_steps, max(schedule.total_steps // _CURVE_POINTS, 1))
    rates = [rate_at(experiment.config, schedule, step) for step in points]
    epochs = [schedule.epoch(step) for step in points]
    plot_schedule(schedule, list(zip(epochs, rates, strict=True)), run.plots / "schedule.png")


def _plot_curve(experiment: Experiment, run: Run) -> None:
    metrics = run.journal.read()
    if metrics:
        plot_learning_curve(metrics, experiment.schedule, run.plots / "learning-curve.png")
