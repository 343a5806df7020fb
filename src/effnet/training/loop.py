"""The one training loop: stage, batch, step, journal, evaluation, checkpoint, in this order."""

from __future__ import annotations

import math
import shlex
import time
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from effnet.data.loader import Batch
from effnet.errors import UnreachableError
from effnet.evaluation.evaluator import evaluate_model
from effnet.evaluation.metrics import Scores
from effnet.training.batches import run_batches
from effnet.training.checkpoint import load_checkpoint, save_checkpoint
from effnet.training.display import Display, StepReport
from effnet.training.experiment import Experiment
from effnet.training.interrupt import Interruption, listen_for_interruption
from effnet.training.journal import Run
from effnet.training.plots import plot_learning_curve, plot_schedule
from effnet.training.step import (
    TrainState,
    initial_state,
    is_head_phase,
    rate_at,
    set_phase,
    train_step,
)
from effnet.training.waiting import WaitClock
from effnet.weights import save_weights

REPORT_EVERY_STEPS = 10
_CURVE_POINTS = 2000


class InterruptedRunError(Exception):
    """Somebody asked the run to stop; its state is saved."""


class DivergedRunError(Exception):
    """The loss is no longer a finite number; the last checkpoint is from before."""


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


@dataclass(kw_only=True, slots=True)
class _Progress:
    """Where a run is: all that a resumed one needs besides `TrainState`."""

    step: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    """Of ``seconds``, those in training steps, waiting included."""
    wait_seconds: float = 0.0
    """Of ``step_seconds``, those spent waiting for images."""
    val_top1: float = 0.0
    best_val_top1: float = -1.0
    best_step: int = 0
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last journal record, of a run that was interrupted between two."""


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
    progress = _restore(run, state) if resume else _Progress()
    try:
        _plot_schedule(experiment, run)
        with listen_for_interruption() as interruption:
            _run_steps(experiment, run, display, state, progress, interruption)
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
    progress: _Progress,
    interruption: Interruption,
) -> None:
    config, schedule = experiment.config, experiment.schedule
    batches = run_batches(experiment, schedule, seed=config.train.seed, start_step=progress.step)
    clock = WaitClock(experiment.device)
    window = _Window(run, display, progress, clock)
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
                _evaluate(experiment, run, state, progress, display)
                set_phase(state.model, config, batch.settings, is_head_only=phase[1])
                window.restart_clock()

            # Checkpoint.
            is_due = time.monotonic() - checkpoint_time > 60 * config.train.checkpoint_minutes
            if is_evaluated or interruption.is_requested or (is_due and window.is_empty):
                _save(run, state, progress)
                checkpoint_time = time.monotonic()
                window.restart_clock()
            if interruption.is_requested and not is_last:
                raise InterruptedRunError(
                    f"stopped after step {progress.step} of {schedule.total_steps}; "
                    f"continue with: {_resume_command(run)}"
                )


def _resume_command(run: Run) -> str:
    return f"effnet train --resume {shlex.quote(str(run.path))}"


def is_evaluation_step(experiment: Experiment, step: int) -> bool:
    """Whether the network is evaluated once ``step`` steps are done: every so often, and at stages' ends."""
    schedule = experiment.schedule
    if any(step == stage.end_step for stage in schedule.stages):
        return True
    every = experiment.config.evaluate.every_epochs
    return math.floor(schedule.epoch(step) / every) > math.floor(schedule.epoch(step - 1) / every)


def _evaluate(
    experiment: Experiment, run: Run, state: TrainState, progress: _Progress, display: Display
) -> None:
    started = time.monotonic()
    averaged = state.ema.swapped_into(state.model) if state.ema else nullcontext()
    with averaged:
        scores = evaluate_model(
            state.model,
            experiment.data.val,
            experiment.preprocessing,
            device=experiment.device,
            batch_size=experiment.config.evaluate.batch_size,
            workers=experiment.config.data.workers,
            uses_bf16=experiment.uses_bf16,
            report_bad=run.report_bad_image,
        )
        progress.val_top1 = scores.top1
        if scores.top1 >= progress.best_val_top1:
            progress.best_val_top1, progress.best_step = scores.top1, progress.step
            save_weights(
                run.best_weights,
                state.model.state_dict(),
                experiment.spec,
                class_names=experiment.data.class_names,
                preprocessing=experiment.preprocessing,
                provenance=f"effnet, step {progress.step} of {experiment.schedule.total_steps}",
            )
    progress.seconds += time.monotonic() - started
    record = _evaluation_record(experiment, progress, scores)
    run.journal.write(record)
    display.evaluated(record)


def _evaluation_record(experiment: Experiment, progress: _Progress, scores: Scores) -> dict[str, Any]:
    settings = experiment.schedule.at(progress.step - 1)
    return {
        "step": progress.step,
        "epoch": experiment.schedule.epoch(progress.step),
        "stage": settings.stage,
        "image_size": settings.image_size,
        "seconds": progress.seconds,
        "val_top1": scores.top1,
        "val_top5": scores.top5,
        "val_loss": scores.loss,
        "val_images": scores.images,
        "val_image_size": experiment.preprocessing.image_size,
    }


def _save(run: Run, state: TrainState, progress: _Progress) -> None:
    save_checkpoint(
        run.last_checkpoint,
        step=progress.step,
        model=state.model,
        ema=state.ema,
        optimizer=state.optimizer,
        extra=asdict(progress),
    )


def _restore(run: Run, state: TrainState) -> _Progress:
    if not run.last_checkpoint.exists():
        run.journal.truncate_after(0)
        return _Progress()
    # The slots that the head phase has not made yet must not be expected in its checkpoints.
    info = load_checkpoint(run.last_checkpoint, model=state.model, ema=state.ema, optimizer=state.optimizer)
    run.journal.truncate_after(info.step)
    return _Progress(**info.extra)


class _Window:
    """The steps since the last journal record. Losses are waited for only when it is written."""

    def __init__(self, run: Run, display: Display, progress: _Progress, waits: WaitClock) -> None:
        self._run, self._display, self._progress, self._waits = run, display, progress, waits
        self._losses: list[Tensor] = []
        self._images, self._waited = 0, 0.0
        self._clock = time.monotonic()
        self._record: dict[str, Any] = {}

    @property
    def is_empty(self) -> bool:
        return not self._losses

    @property
    def is_full(self) -> bool:
        return self._progress.step % REPORT_EVERY_STEPS == 0

    def add(self, batch: Batch, loss: Tensor, epoch: float, rate: float) -> None:
        self._losses.append(loss)
        self._images += len(batch.labels)
        self._record = {
            "step": batch.step + 1,
            "epoch": epoch,
            "stage": batch.settings.stage,
            "image_size": batch.settings.image_size,
            "batch_size": batch.settings.batch_size,
            "learning_rate": rate,
        }

    def flush(self) -> None:
        """Write one record, or stop the run where a loss is not finite."""
        steps = len(self._losses)
        elapsed = self.keep()
        losses, self._progress.losses = self._progress.losses, []
        self._record |= {
            "seconds": self._progress.seconds,
            "loss": sum(losses) / len(losses),
            "images_per_second": self._images / elapsed,
            "data_wait": min(self._waited / elapsed, 1.0),
        }
        self._run.journal.write(self._record)
        self._display.step(
            StepReport(
                step=self._record["step"],
                epoch=self._record["epoch"],
                loss=self._record["loss"],
                learning_rate=self._record["learning_rate"],
                images_per_second=self._record["images_per_second"],
                data_wait=self._record["data_wait"],
                seconds_per_step=elapsed / steps,
            )
        )
        self._images, self._waited = 0, 0.0

    def keep(self) -> float:
        """Wait for the losses and leave them, and the time they took, to a later record.

        Returns:
            Seconds since the clock was started.
        """
        losses = torch.stack(self._losses).tolist()
        first_step = self._record["step"] - len(losses)
        for offset, loss in enumerate(losses):
            if not math.isfinite(loss):
                raise DivergedRunError(
                    f"the loss is {loss} at step {first_step + offset}; a lower "
                    f"learning_rate.base or train.gradient_clip may help. What was saved before is intact in "
                    f"{self._run.path}"
                )
        elapsed = max(time.monotonic() - self._clock, 1e-9)
        self._progress.seconds += elapsed
        self._progress.step_seconds += elapsed
        waited = self._waits.take()
        self._waited += waited
        self._progress.wait_seconds += waited
        self._progress.losses += losses
        self._losses = []
        self.restart_clock()
        return elapsed

    def restart_clock(self) -> None:
        """Leave out the time since the last step, which evaluation and saving have accounted for."""
        self._clock = time.monotonic()


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
