"""Which settings of the loader are fastest for a run on this machine, measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import product
from statistics import fmean, median_low
from typing import Any, Literal, NamedTuple, TypeAlias

from effnet.config import Config
from effnet.data.augment import is_augmented
from effnet.data.copies import sides_for
from effnet.data.loader import Batch
from effnet.data.threads import CHUNK, thread_count
from effnet.schedule.condense import condensed
from effnet.schedule.progressive import StageSchedule, StageSettings
from effnet.training.batches import noise_batch, run_batches
from effnet.training.experiment import Experiment, sizes_needed
from effnet.training.preflight import fitting_batch, synchronize
from effnet.training.step import TrainState, initial_state, rehearse_step, set_phase, train_step
from effnet.training.timing import time_step, time_steps
from effnet.training.waiting import WaitClock, can_be_prepared

Place: TypeAlias = Literal["worker", "device"]

SECONDS = 0.5
"""To spend on each measurement, where two steps or batches do not take longer."""
_CPU_STEP_SECONDS = 0.5
_PROBE_IMAGES = 4
_MOST_STEPS, _ENDLESS = 50, 2**40
_TURNS = 3
"""How often both together are measured; the median counts."""
_GAIN = 1.05
"""More threads are tried, and taken, as long as they make the loader faster by this factor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSpeed:
    """How fast one stage is. Speeds are images a second."""

    settings: StageSettings
    measured_batch_size: int
    """Smaller than the stage's where a step takes long on a processor, or does not fit on a GPU."""
    network: float
    """Training steps alone."""
    loader: dict[int, float]
    """The loader alone, by its number of threads."""
    together: float
    """Training, with the threads that are chosen: the median of three measurements."""
    data_wait: float
    """Share of that time in which steps wait for images."""

    @property
    def seconds(self) -> float:
        """Predicted time of the stage's steps."""
        return self.settings.steps * self.settings.batch_size / self.together


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceSpeed:
    """How fast a run is with augmentation in one place."""

    place: Place
    """As ``augment.place``."""
    workers: int
    """The fewest threads with which the loader is within 5 % of its fastest, over all stages."""
    stages: tuple[StageSpeed, ...]

    @property
    def seconds(self) -> float:
        """Predicted time of all steps."""
        return sum(stage.seconds for stage in self.stages)

    def is_loader_bound(self, stage: StageSpeed) -> bool:
        """Whether the loader is slower than the network, each alone."""
        return stage.loader[self.workers] < stage.network

    def to_dict(self) -> dict[str, Any]:
        """Return what was measured under its names."""
        stages = [
            stage.settings.to_dict()
            | {key: value for key, value in asdict(stage).items() if key != "settings"}
            | {"bottleneck": "loader" if self.is_loader_bound(stage) else "network"}
            | {"seconds": stage.seconds}
            for stage in self.stages
        ]
        return {"place": self.place, "workers": self.workers, "seconds": self.seconds, "stages": stages}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """What was measured, and what follows from it."""

    places: tuple[PlaceSpeed, ...]
    fastest: PlaceSpeed
    """The one with which the run takes the least time."""
    short_sides: tuple[int, ...]
    """Of the copies to prepare, in pixels: for all stages and evaluation. Empty where the loader is nowhere
    the bottleneck, or the images are prepared already."""

    @property
    def changes(self) -> dict[str, str | int]:
        """The fastest settings under their keys."""
        return {"data.workers": self.fastest.workers, "augment.place": self.fastest.place}

    def to_dict(self) -> dict[str, Any]:
        """Return the tuning as ``effnet tune --json`` prints it."""
        return {
            "changes": [f"{key}={value}" for key, value in self.changes.items()],
            "seconds": self.fastest.seconds,
            "prepare_short_sides": list(self.short_sides),
            "places": [speed.to_dict() for speed in self.places],
        }


class StepSpeed(NamedTuple):
    """How long a training step of a batch takes alone."""

    batch_size: int
    seconds: float


class _LoaderSpeed(NamedTuple):
    workers: int
    """The number of threads to take for all stages."""
    stages: list[dict[int, float]]
    """Images a second by the number of threads."""


class JointSpeed(NamedTuple):
    """How fast training is with the loader beside it, and the share of the time in which it waits."""

    images_per_second: float
    data_wait: float


def tune(experiment: Experiment, report: Callable[[str], None]) -> Tuning:
    """Measure training steps, the loader and both together, for every stage and place of augmentation.

    A stage takes about three seconds for each place, and half a second more for each number of threads;
    longer where single steps or batches do. Of many sizes, eight are measured.

    Args:
        experiment: The run; its weights and files are not touched.
        report: Told what is measured next.
    """
    state, stages = initial_state(experiment), condensed(experiment.schedule).stages
    runs = {place: _augmenting(experiment, place) for place in _places(experiment.config)}
    # Places take turns, so that what else the machine does meets all of them.
    steps: dict[Place, list[StepSpeed]] = {place: [] for place in runs}
    for settings in stages:
        report(f"steps at {settings.image_size} px")
        sized = replace(settings, batch_size=_batch_size(experiment, state, settings))
        for place, run in runs.items():
            steps[place].append(_measure_steps(run, state, sized))
    loaders: dict[Place, _LoaderSpeed] = {}
    for place, run in runs.items():
        report(f"loader with augment.place={place}")
        loaders[place] = _measure_loader(run)
    joint: dict[tuple[Place, int], list[JointSpeed]] = {}
    for turn, settings in product(range(_TURNS), stages):
        report(f"both together at {settings.image_size} px, {turn + 1} of {_TURNS}")
        for place, run in runs.items():
            step, workers = steps[place][settings.stage], loaders[place].workers
            measured = measure_together(run, state, settings, step, workers)
            joint.setdefault((place, settings.stage), []).append(measured)
    places = []
    for place in runs:
        speeds = [
            _stage_speed(
                settings,
                steps[place][settings.stage],
                loaders[place].stages[settings.stage],
                joint[place, settings.stage],
            )
            for settings in stages
        ]
        places.append(PlaceSpeed(place=place, workers=loaders[place].workers, stages=tuple(speeds)))
    return _conclude(experiment.config, tuple(places))


def _stage_speed(
    settings: StageSettings, step: StepSpeed, loader: dict[int, float], joint: list[JointSpeed]
) -> StageSpeed:
    together = median_low(joint)
    return StageSpeed(
        settings=settings,
        measured_batch_size=step.batch_size,
        network=step.batch_size / step.seconds,
        loader=loader,
        together=together.images_per_second,
        data_wait=together.data_wait,
    )


def _places(config: Config) -> tuple[Place, ...]:
    """Return where augmentation can be; where there is only mirroring, nothing is to be moved."""
    if config.data.resident:
        return ("device",)
    return ("worker", "device") if is_augmented(config.augment, config.progressive) else ("worker",)


def _augmenting(experiment: Experiment, place: Place) -> Experiment:
    config = experiment.config
    return replace(experiment, config=replace(config, augment=replace(config.augment, place=place)))


def _conclude(config: Config, places: tuple[PlaceSpeed, ...]) -> Tuning:
    fastest = min(places, key=lambda speed: speed.seconds)
    is_read = not config.data.resident and can_be_prepared(config.data.source)
    can_help = is_read and any(map(fastest.is_loader_bound, fastest.stages))
    return Tuning(
        places=places, fastest=fastest, short_sides=sides_for(*sizes_needed(config)) if can_help else ()
    )


def _batch_size(experiment: Experiment, state: TrainState, settings: StageSettings) -> int:
    """Return the stage's own, or on a processor what does not take long."""
    if experiment.device.type != "cpu":
        return settings.batch_size
    probe = replace(settings, batch_size=min(_PROBE_IMAGES, settings.batch_size))
    speed = _measure_steps(experiment, state, probe)
    bearable = int(_CPU_STEP_SECONDS / speed.seconds * speed.batch_size)
    return min(settings.batch_size, max(bearable, speed.batch_size))


def _measure_steps(experiment: Experiment, state: TrainState, settings: StageSettings) -> StepSpeed:
    """Time steps of a batch, or of the largest half, quarter, ... of it for which a GPU has room."""
    set_phase(state, experiment, settings, is_head_only=False)

    def step_seconds(batch_size: int) -> float:
        sized = replace(settings, batch_size=batch_size)
        with closing(_batches(experiment, sized, workers=experiment.config.data.workers, steps=1)) as batches:
            batch = next(batches)
        time_step(experiment, state, batch)  # The first one chooses kernels and asks for memory.
        seconds = time_step(experiment, state, batch)
        return fmean(time_steps(experiment, state, batch, steps=_steps_in(seconds)))

    return StepSpeed(*fitting_batch(settings.batch_size, step_seconds))


def _steps_in(step_seconds: float) -> int:
    """Return how many steps to measure."""
    return min(max(math.ceil(SECONDS / step_seconds), 2), _MOST_STEPS)


def _measure_loader(experiment: Experiment) -> _LoaderSpeed:
    """Time the loader with more and more threads, until more of them do not help."""
    stages = condensed(experiment.schedule).stages
    speeds: list[dict[int, float]] = [{} for _ in stages]
    seconds: dict[int, float] = {}
    for workers in _thread_counts():
        fewer = min(seconds.values(), default=math.inf)
        seconds[workers] = 0.0
        for settings, speed in zip(stages, speeds, strict=True):
            speed[workers] = _time_loader(experiment, settings, workers)
            seconds[workers] += settings.steps * settings.batch_size / speed[workers]
        if seconds[workers] * _GAIN > fewer:
            break
    good_enough = min(seconds.values()) * _GAIN
    return _LoaderSpeed(min(workers for workers in seconds if seconds[workers] <= good_enough), speeds)


def _thread_counts() -> list[int]:
    """Return 1, 2, 4, ... up to one for each processor."""
    processors = thread_count(0)
    return [2**power for power in range((processors - 1).bit_length())] + [processors]


def _time_loader(experiment: Experiment, settings: StageSettings, workers: int) -> float:
    """Return images a second behind the first batch, when the threads are at work on the next ones."""
    # A chunk for each thread, so that little of the second batch is done when the first one comes.
    settings = replace(settings, batch_size=min(settings.batch_size, CHUNK * workers))
    images, elapsed, count = 0, 0.0, 0
    with closing(_batches(experiment, settings, workers=workers, steps=_ENDLESS)) as batches:
        next(batches)
        started = time.monotonic()
        while elapsed < SECONDS or count < 2:
            images += len(next(batches).labels)
            elapsed, count = time.monotonic() - started, count + 1
    return images / elapsed


def measure_together(
    experiment: Experiment, state: TrainState, settings: StageSettings, step: StepSpeed, workers: int
) -> JointSpeed:
    """Train from the first batch's arrival to the last one's."""
    settings, steps = replace(settings, batch_size=step.batch_size), _steps_in(step.seconds)
    set_phase(state, experiment, settings, is_head_only=False)
    if state.passes is not None:  # Recorded before the clock starts.
        rehearse_step(state, noise_batch(experiment, settings, settings.batch_size), experiment)
    clock, started = WaitClock(experiment.device), 0.0
    with closing(_batches(experiment, settings, workers=workers, steps=steps + 1)) as batches:
        for number, batch in enumerate(clock.watch(batches)):
            if number == 0:
                clock.take()
                started = time.monotonic()
            if number < steps:
                train_step(state, batch, experiment)
    synchronize(experiment.device)
    elapsed = time.monotonic() - started
    return JointSpeed(steps * settings.batch_size / elapsed, min(clock.take() / elapsed, 1.0))


def _batches(
    experiment: Experiment, settings: StageSettings, *, workers: int, steps: int
) -> Generator[Batch, None, None]:
    """Yield batches of a stage, each of them as if it were for the first step of the run."""
    config = experiment.config
    alone = replace(settings, start_step=0, end_step=steps)
    schedule = StageSchedule((alone,), experiment.schedule.train_images, settings.batch_size)
    # Another order for each number of threads, or only the first would meet files that nobody has read yet.
    seed = config.train.seed + workers
    run = replace(experiment, config=replace(config, data=replace(config.data, workers=workers)))
    batches = run_batches(run, schedule, seed=seed)
    with closing(batches):
        for batch in batches:
            yield replace(batch, step=0)
