"""The training of a supernet: the batches, optimizer, average and checkpoints of an ordinary run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from random import Random

from effnet.arch.spec import NetworkSpec
from effnet.data.processes import ONE_PROCESS
from effnet.errors import UserError
from effnet.schedule.points import milestones
from effnet.search.supernet.envelope import Envelope, NetworkDomain, with_constants
from effnet.search.supernet.sandwich import sandwich
from effnet.search.supernet.step import SupernetState, initial_state, sandwich_step
from effnet.search.supernet.yardstick import Yardstick
from effnet.training.batches import Feed, run_batches
from effnet.training.checkpoint import CheckpointInfo, load_checkpoint, take_snapshot
from effnet.training.display import Display
from effnet.training.experiment import Experiment
from effnet.training.guard import DivergedRunError, SetbackError
from effnet.training.interrupt import Interruption, listen_for_interruption
from effnet.training.journal import Run
from effnet.training.keeper import Keeper, load_newest
from effnet.training.loop import InterruptedRunError
from effnet.training.progress import Progress
from effnet.training.step import rate_at, step_seed
from effnet.training.stopwatch import Stopwatch
from effnet.training.validation import is_evaluation_step
from effnet.training.waiting import WaitClock
from effnet.training.window import Window


class SupernetTraining:
    """A supernet, what it is trained with, and where that is written.

    Args:
        experiment: Its network is the largest one of the space; its ``val`` is a minival.
        domain: The space.
        envelope: Of the space.
        between: How many random networks a step trains besides the largest and the smallest.
        distillation: See `sandwich_step`.
        run: Where to write.
        display: Whom to tell.

    Raises:
        UserError: The configuration asks for what a supernet does not have, or a checkpoint does not fit.
    """

    def __init__(
        self,
        experiment: Experiment,
        domain: NetworkDomain,
        envelope: Envelope,
        *,
        between: int,
        distillation: float,
        run: Run,
        display: Display,
    ) -> None:
        _check(experiment)
        self.experiment, self.domain, self.between = experiment, domain, between
        self._distillation = distillation
        self._run, self._display = run, display
        self._largest = envelope.largest
        self.state: SupernetState = initial_state(experiment, envelope)
        self.progress = self._restore()

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done."""
        return self.progress.step == self.experiment.schedule.total_steps

    def adapted(self, spec: NetworkSpec) -> NetworkSpec:
        """Return a network of the space with the classes and constants of this supernet."""
        return with_constants(spec, self._largest)

    def networks(self, step: int) -> list[NetworkSpec]:
        """Return what one step trains, the largest first: a function of the seed and the step."""
        draws = Random(step_seed(self.experiment.config.train.seed, step))
        points = sandwich(self.domain, draws, between=self.between)
        return [self.adapted(self.domain.spec(point)) for point in points]

    def train(self, yardstick: Yardstick) -> None:
        """Train to the end from where the supernet is.

        Args:
            yardstick: By which the largest and the smallest network are measured at the stages' ends.

        Raises:
            InterruptedRunError: SIGINT or SIGTERM came; the state is saved.
            DivergedRunError: Numbers are not finite.
            OSError: A file cannot be written; earlier checkpoints are intact.
            UnreachableError: Images are on another machine, and the connection is lost; the state is saved.
            WorkerError: A thread that prepares images died; the state is saved.
        """
        if self.is_finished:
            return
        experiment = self.experiment
        stage_ends = milestones(experiment.config.progressive, experiment.schedule)
        keeper = Keeper(self._run.checkpoints, experiment.config.checkpoint, stage_ends)
        with closing(keeper), listen_for_interruption() as interruption:
            try:
                self._run_steps(yardstick, keeper, interruption)
            except SetbackError as error:
                raise DivergedRunError(
                    f"{error}; a lower learning_rate.base or train.gradient_clip may help. The last "
                    "checkpoint is finite"
                ) from error

    def _run_steps(self, yardstick: Yardstick, keeper: Keeper, interruption: Interruption) -> None:
        experiment, progress, state = self.experiment, self.progress, self.state
        config, schedule = experiment.config, experiment.schedule
        batches = run_batches(experiment, schedule, seed=config.train.seed, start_step=progress.step)
        feed, clock, since_checkpoint = Feed(batches), WaitClock(experiment.device), Stopwatch()
        window = Window(self._run, self._display, progress, clock, ONE_PROCESS)
        stage = -1
        with closing(batches):
            for batch in clock.watch(iter(feed)):
                if batch.settings.stage != stage:
                    self._display.stage(batch.settings)
                    stage = batch.settings.stage
                networks = self.networks(batch.step)
                loss = sandwich_step(state, batch, experiment, networks, distillation=self._distillation)
                progress.step = batch.step + 1
                window.add(batch, loss, schedule.epoch(progress.step), rate_at(config, schedule, batch.step))

                is_evaluated = is_evaluation_step(experiment, progress.step)
                is_stopped = interruption.is_requested
                if is_evaluated or window.is_full:
                    window.flush()
                elif is_stopped:
                    window.keep()
                if is_evaluated:
                    self._evaluate(yardstick, networks)
                is_late = since_checkpoint.seconds > 60 * config.checkpoint.every_minutes
                if is_evaluated or is_stopped or (is_late and window.is_empty):
                    self._save(keeper)
                    since_checkpoint.restart()
                    window.restart_clock()
                if is_stopped:
                    break
        self._end(feed, window, keeper)

    def _end(self, feed: Feed, window: Window, keeper: Keeper) -> None:
        if feed.failure is not None:
            window.keep()
            self._save(keeper)
        keeper.wait()
        if feed.failure is not None:
            raise feed.failure
        progress, schedule = self.progress, self.experiment.schedule
        if not self.is_finished:
            raise InterruptedRunError(
                f"stopped after step {progress.step} of {schedule.total_steps}; the same command continues"
            )

    def _evaluate(self, yardstick: Yardstick, networks: Sequence[NetworkSpec]) -> None:
        clock, state, step = Stopwatch(), self.state, self.progress.step
        with state.ema.swapped_into(state.model) if state.ema else nullcontext():
            largest, smallest = (
                yardstick.accuracy(yardstick.calibrated(state.model, spec))
                for spec in (networks[0], networks[-1])
            )
        self.progress.seconds += clock.seconds
        record = {"step": step, "val_largest_top1": largest, "val_smallest_top1": smallest}
        self._run.journal.write(record | {"epoch": self.experiment.schedule.epoch(step)})
        self._display.message(
            f"step {step}/{self.experiment.schedule.total_steps}, minival top-1 of a largest network "
            f"{largest:.2%}, of a smallest {smallest:.2%}"
        )

    def _save(self, keeper: Keeper) -> None:
        state, progress = self.state, self.progress
        for name, weight in state.model.named_parameters():
            if not bool(weight.isfinite().all()):
                raise SetbackError(f"{name} is not finite after step {progress.step - 1}", step=progress.step)
        progress.scaler = state.scaler.state_dict()
        keeper.save(
            lambda: take_snapshot(
                step=progress.step,
                model=state.model,
                ema=state.ema,
                optimizer=state.optimizer,
                extra=asdict(progress),
            )
        )

    def _restore(self) -> Progress:
        state = self.state

        def load(path: Path) -> CheckpointInfo:
            return load_checkpoint(path, model=state.model, ema=state.ema, optimizer=state.optimizer)

        info = load_newest(self._run.checkpoints, load, self._display.message)
        progress = Progress(**info.extra) if info else Progress()
        if progress.scaler:
            state.scaler.load_state_dict(progress.scaler)
        self._run.journal.truncate_after(progress.step)
        return progress


def _check(experiment: Experiment) -> None:
    """Refuse what would have no effect.

    Raises:
        UserError: Something is set that a supernet does not have.
    """
    config = experiment.config
    asked = {
        "model.weights": bool(config.model.weights),
        "model.gradient_checkpointing": bool(config.model.gradient_checkpointing),
        "train.head_epochs": config.train.head_epochs > 0,
        "train.layer_decay": config.train.layer_decay != 1.0,
    }
    for key, is_set in asked.items():
        if is_set:
            raise UserError(f"a supernet is trained from nothing and as a whole, so that {key} cannot be set")
