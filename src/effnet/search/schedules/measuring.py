"""Measure what training steps of any size and batch take on this device, from a few of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from statistics import median

import numpy as np
from scipy.optimize import nnls

from effnet.data.threads import thread_count
from effnet.schedule.progressive import StageSchedule, StageSettings
from effnet.search.schedules.cost import MEGA, StepCost
from effnet.training.batches import run_batches
from effnet.training.experiment import Experiment
from effnet.training.timing import StepTimer

_TURNS = 3
_INPUT_BATCHES = 8


def measure_cost(experiment: Experiment, first_sizes: Sequence[int], seconds: float) -> StepCost:
    """Measure steps at the smallest first size, at the last one and between, and with larger batches.

    Each is timed in turns with the others, on the clock that other programs disturb least.

    Args:
        experiment: The run.
        first_sizes: In pixels.
        seconds: About how long to measure each.
    """
    last = experiment.schedule.stages[-1]
    small = replace(last, image_size=min(first_sizes))
    shapes = [
        small,
        replace(small, batch_size=2 * last.batch_size),
        replace(last, image_size=(min(first_sizes) + last.image_size) // 2),
        last,
    ]
    timers = [StepTimer(experiment, settings, settings.batch_size) for settings in shapes]
    once = [timer(2)[-1] for timer in timers]  # The first step chooses kernels, or compiles.
    counts = [max(round(seconds / _TURNS / spent), 1) for spent in once]
    turns = [
        [median(timer(count)) for timer, count in zip(timers, counts, strict=True)] for _ in range(_TURNS)
    ]
    measured = [min(column) for column in zip(*turns, strict=True)]
    cost = fitted(shapes, measured)
    return replace(cost, an_image=cost.an_image + _input_seconds(experiment, shapes[2]))


def fitted(shapes: Sequence[StageSettings], seconds: Sequence[float]) -> StepCost:
    """Return the cost that explains measured steps best, errors counted in shares of each.

    Args:
        shapes: Of the steps.
        seconds: Of each.
    """
    rows = [(1.0, shape.batch_size, shape.batch_size * shape.image_size**2 / MEGA) for shape in shapes]
    scaled = np.asarray(rows) / np.asarray(seconds)[:, None]
    # Columns of one size, for the solver's tolerance.
    norms = np.linalg.norm(scaled, axis=0)
    found = nnls(scaled / norms, np.ones(len(shapes)))[0] / norms
    return StepCost(a_step=float(found[0]), an_image=float(found[1]), a_megapixel=float(found[2]))


def _input_seconds(experiment: Experiment, settings: StageSettings) -> float:
    """Return what preparing an image takes from the network on a processor; beside a GPU it takes nothing."""
    if experiment.device.type != "cpu":
        return 0.0
    short = replace(settings, stage=0, start_step=0, end_step=_INPUT_BATCHES)
    schedule = StageSchedule((short,), experiment.schedule.train_images, settings.batch_size)
    # The time of other processes would not be counted, though it is the same.
    config = experiment.config
    threaded = replace(config, data=replace(config.data, worker_kind="threads"))
    experiment = replace(experiment, config=threaded)
    started = time.process_time()
    with closing(run_batches(experiment, schedule, seed=experiment.config.train.seed)) as batches:
        images = sum(len(batch.labels) for batch in batches)
    return (time.process_time() - started) / images / thread_count(experiment.config.data.workers)
