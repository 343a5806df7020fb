"""The one training loop: stage, batch, step, journal, evaluation, checkpoint, in this order."""

from __future__ import annotations

import shlex
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.amp import GradScaler

from effnet.data.failures import WorkerError
from effnet.data.processes import Processes
from effnet.errors import UnreachableError
from effnet.schedule.points import milestones
from effnet.training.batches import Feed, run_batches
from effnet.training.checkpoint import CheckpointInfo, load_checkpoint, take_snapshot
from effnet.training.computing_threads import computing_threads
from effnet.training.display import Display
from effnet.training.experiment import Experiment
from effnet.training.guard import DivergedRunError, Guard, SetbackError, adjusted
from effnet.training.interrupt import Interruption, listen_for_interruption
from effnet.training.journal import Run
from effnet.training.keeper import Keeper, checkpoint_path, load_newest
from effnet.training.norm_advice import norm_advice
from effnet.training.plots import plot_learning_curve, plot_schedule
from effnet.training.preflight import training_macs
from effnet.training.progress import Progress
from effnet.training.rehearsal import compile_stages
from effnet.training.step import (
    TrainState,
    initial_state,
    is_head_phase,
    rate_at,
    set_phase,
    train_step,
)
from effnet.training.stopwatch import Stopwatch
from effnet.training.tracking import open_tracking
from effnet.training.validation import evaluate_run, is_evaluation_step
from effnet.training.waiting import WaitClock
from effnet.training.window import Window

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
    step_seconds: float
    """Of ``train_seconds``, those in training steps, waiting for images included."""
    images: int
    """Images trained on, counted each time."""
    macs: int
    """Multiply-adds of the network's forward passes over them."""
    data_wait: float
    """Share of the time in training steps that was spent waiting for images, over all sessions."""
    bad_images: int
    non_finite: int
    """Steps at which something was not finite, and that were left out or had the learning rate lowered."""
    stopped_early: bool
    """Whether it ended before its last step because it no longer improved."""

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
        DivergedRunError: Numbers are not finite, and it has been tried often enough.
        torch.OutOfMemoryError: The device has no room.
        OSError: A file cannot be written; earlier checkpoints are intact.
        UnreachableError: Images are on another machine, and the connection is lost.
        WorkerError: A thread or process that prepares images died.
    """
    state = initial_state(experiment)
    processes = experiment.processes
    progress = Progress(processes=processes.count)
    if resume:
        progress = _restore(experiment, run, state, display)
    stage_ends = milestones(experiment.config.progressive, experiment.schedule)
    keeper = Keeper(run.checkpoints, experiment.config.checkpoint, stage_ends, is_writer=processes.is_first)
    try:
        _plot_schedule(experiment, run)
        if not (progress.stopped_early or progress.step == experiment.schedule.total_steps):
            advice = norm_advice(experiment.config, experiment.schedule, processes)
            if advice:
                display.message(advice)
            tracking = open_tracking(
                experiment.config, run, progress.step, display.message, is_writer=processes.is_first
            )
            threads = computing_threads(experiment.config.train.threads, experiment.device)
            with closing(keeper), tracking, threads, listen_for_interruption() as interruption:
                _compile(experiment, run, display, state, progress)
                progress = _run_all(experiment, run, display, state, progress, keeper, interruption)
    except (InterruptedRunError, DivergedRunError):
        _plot_curve(experiment, run)
        raise
    except (OSError, UnreachableError, WorkerError) as error:
        kind = OSError if isinstance(error, OSError) else type(error)
        raise kind(f"{error}; once that is mended, continue with: {_resume_command(run)}") from error
    _plot_curve(experiment, run)
    return RunResult(
        run=str(run.path),
        steps=progress.step,
        val_top1=progress.val_top1,
        best_val_top1=progress.best_val_top1,
        best_step=progress.best_step,
        train_seconds=progress.seconds,
        step_seconds=progress.step_seconds,
        images=experiment.schedule.samples_before(progress.step),
        macs=training_macs(experiment.schedule, experiment.spec, progress.step),
        data_wait=min(progress.wait_seconds / max(progress.step_seconds, 1e-9), 1.0),
        bad_images=run.bad_image_count,
        non_finite=progress.non_finite,
        stopped_early=progress.stopped_early,
    )


def _run_all(  # noqa: PLR0917 - as `_run_steps`
    experiment: Experiment,
    run: Run,
    display: Display,
    state: TrainState,
    progress: Progress,
    keeper: Keeper,
    interruption: Interruption,
) -> Progress:
    """Do all steps, from the last checkpoint again where one fails; return where that led to."""
    guard = Guard(experiment.config.train, experiment.processes)
    if progress.step == 0:
        _save(keeper, guard, state, progress, experiment.processes)
    while True:
        now = adjusted(experiment, progress)
        try:
            _run_steps(now, run, display, state, progress, keeper, guard, interruption)
        except SetbackError as error:
            # Its traceback refers to tensors that there may be no room for.
            setback = error.with_traceback(None)
        else:
            return progress
        keeper.wait()
        progress = _go_back(setback, now, run, display, state, guard)


def _run_steps(  # noqa: PLR0917 - the one place where everything meets, in its fixed order
    experiment: Experiment,
    run: Run,
    display: Display,
    state: TrainState,
    progress: Progress,
    keeper: Keeper,
    guard: Guard,
    interruption: Interruption,
) -> None:
    config, schedule, processes = experiment.config, experiment.schedule, experiment.processes
    batches = run_batches(experiment, schedule, seed=config.train.seed, start_step=progress.step)
    feed, clock, since_checkpoint = Feed(batches), WaitClock(experiment.device), Stopwatch()
    window = Window(run, display, progress, clock, processes)
    phase = (-1, False)
    with closing(batches):
        for batch in clock.watch(iter(feed)):
            # Stage.
            new_phase = (batch.settings.stage, is_head_phase(config, schedule, batch.step))
            if new_phase != phase:
                set_phase(state, experiment, batch.settings, is_head_only=new_phase[1])
                if new_phase[0] != phase[0]:
                    display.stage(batch.settings)
                phase = new_phase

            # Step.
            loss = guard.run(partial(train_step, state, batch, experiment), state, batch.step)
            progress.step = batch.step + 1
            progress.non_finite += loss is None

            # Journal.
            window.add(batch, loss, schedule.epoch(progress.step), rate_at(config, schedule, batch.step))
            is_evaluated = is_evaluation_step(experiment, progress.step)
            is_interrupted = processes.any(interruption.is_requested)
            if is_evaluated or window.is_full:
                window.flush()
            elif is_interrupted:
                window.keep()

            # Evaluation.
            if is_evaluated:
                guard.check(state, progress)
                evaluate_run(experiment, run, state, progress, display)
                set_phase(state, experiment, batch.settings, is_head_only=phase[1])
                window.restart_clock()

            # Checkpoint.
            is_late = since_checkpoint.seconds > 60 * config.checkpoint.every_minutes
            is_due = window.is_empty and processes.any(processes.is_first and is_late)
            if is_evaluated or is_interrupted or is_due:
                _save(keeper, guard, state, progress, processes)
                since_checkpoint.restart()
                window.restart_clock()
            if is_interrupted or progress.stopped_early:
                break

    # End.
    if feed.failure is not None and processes.count == 1:
        window.keep()
        _save(keeper, guard, state, progress, processes)
    keeper.wait()
    _tell_why_it_ends(run, progress, feed, total_steps=schedule.total_steps)


def _tell_why_it_ends(run: Run, progress: Progress, feed: Feed, *, total_steps: int) -> None:
    if feed.failure is not None:
        raise feed.failure
    if progress.step < total_steps and not progress.stopped_early:
        raise InterruptedRunError(
            f"stopped after step {progress.step} of {total_steps}; continue with: {_resume_command(run)}"
        )


def _go_back(  # noqa: PLR0917 - all that a run consists of
    setback: SetbackError, experiment: Experiment, run: Run, display: Display, state: TrainState, guard: Guard
) -> Progress:
    """Put the last checkpoint back, and note what is to be different from there on."""
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler = GradScaler(experiment.device.type, enabled=state.scaler.is_enabled())
    torch.cuda.empty_cache()
    progress = _restore(experiment, run, state, display)
    if experiment.processes.is_first:
        run.journal.write({"step": progress.step, "failed_step": setback.step, "setback": str(setback)})
    display.message(guard.answer(setback, progress, experiment))
    return progress


def _compile(
    experiment: Experiment, run: Run, display: Display, state: TrainState, progress: Progress
) -> None:
    """Compile for the sizes ahead, and keep the time apart from that of the steps."""
    for compilation in compile_stages(state, experiment, progress.step):
        display.message(f"compiled for {compilation.image_size} px in {compilation.seconds:.1f} s")
        if experiment.processes.is_first:
            run.journal.write({"step": progress.step, "compiled": asdict(compilation)})


def _resume_command(run: Run) -> str:
    return f"effnet train --resume {shlex.quote(str(run.path))}"


def _save(keeper: Keeper, guard: Guard, state: TrainState, progress: Progress, processes: Processes) -> None:
    guard.check(state, progress)
    progress.scaler = state.scaler.state_dict()
    keeper.save(
        lambda: take_snapshot(
            step=progress.step,
            model=state.model,
            ema=state.ema,
            optimizer=state.optimizer,
            extra=asdict(progress),
            is_kept=processes.is_first,
        )
    )
    guard.saved(progress)


def _restore(experiment: Experiment, run: Run, state: TrainState, display: Display) -> Progress:
    processes = experiment.processes

    def load(path: Path) -> CheckpointInfo:
        return load_checkpoint(path, model=state.model, ema=state.ema, optimizer=state.optimizer)

    # The first process chooses, and puts away what is damaged, before the others look.
    info = load_newest(run.checkpoints, load, display.message) if processes.is_first else None
    found = int(processes.sum([info.step + 1 if info else 0])[0])
    if not processes.is_first and found:
        info = load(checkpoint_path(run.checkpoints, found - 1))
    progress = Progress(**info.extra) if info else Progress(processes=processes.count)
    if progress.scaler:
        state.scaler.load_state_dict(progress.scaler)
    if processes.is_first:
        run.journal.truncate_after(progress.step)
    if progress.processes != processes.count and progress.step < experiment.schedule.total_steps:
        _report_processes(experiment, run, progress, display)
        progress.processes = processes.count
    return progress


def _report_processes(experiment: Experiment, run: Run, progress: Progress, display: Display) -> None:
    """Say what it changes that a run goes on with another number of processes."""
    before, now = progress.processes, experiment.processes.count
    batch_size = experiment.schedule.at(progress.step).batch_size
    display.message(
        f"continues at step {progress.step} with {now} processes instead of {before}: each has "
        f"{batch_size / now:g} images of a batch of {batch_size} instead of {batch_size / before:g}. The "
        "images of every step stay the same; dropout and mixing are drawn anew, and batch norm's statistics "
        "are over other images unless distributed.norm is 'all'"
    )
    if experiment.processes.is_first:
        run.journal.write({"step": progress.step, "processes": now, "processes_before": before})


def _plot_schedule(experiment: Experiment, run: Run) -> None:
    if not experiment.processes.is_first:
        return
    schedule = experiment.schedule
    points = range(0, schedule.total_steps, max(schedule.total_steps // _CURVE_POINTS, 1))
    rates = [rate_at(experiment.config, schedule, step) for step in points]
    epochs = [schedule.epoch(step) for step in points]
    plot_schedule(schedule, list(zip(epochs, rates, strict=True)), run.plots / "schedule.png")


def _plot_curve(experiment: Experiment, run: Run) -> None:
    metrics = run.journal.read() if experiment.processes.is_first else []
    if metrics:
        plot_learning_curve(metrics, experiment.schedule, run.plots / "learning-curve.png")
