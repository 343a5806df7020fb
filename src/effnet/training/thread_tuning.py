"""How many threads compute and how many prepare images, where both share the cores of a processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import product
from statistics import median
from typing import Any

import torch

from effnet.training.computing_threads import computing_threads
from effnet.training.experiment import Experiment
from effnet.training.step import initial_state
from effnet.training.tune import StepSpeed, Tuning, measure_together

_TURNS = 3
_GAIN = 1.05
"""Other numbers than those found before are taken where they make training faster by this factor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ThreadSpeed:
    """How fast training is with one division of the threads."""

    threads: int
    """That compute."""
    workers: int
    """That prepare images."""
    images_per_second: float
    """With both at work: the median of three measurements."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ThreadTuning:
    """What was measured, with what is done without it first, and what follows from it."""

    image_size: int
    """Of the stage that takes the longest, at which it was measured."""
    speeds: tuple[ThreadSpeed, ...]

    @property
    def fastest(self) -> ThreadSpeed:
        """The one to take; the first, unless another one is 5 % faster."""
        first, best = self.speeds[0], max(self.speeds, key=lambda speed: speed.images_per_second)
        return best if best.images_per_second >= _GAIN * first.images_per_second else first

    @property
    def changes(self) -> dict[str, str | int]:
        """The settings under their keys; torch's own number of threads is 0."""
        is_own = self.fastest.threads == self.speeds[0].threads
        return {
            "train.threads": 0 if is_own else self.fastest.threads,
            "data.workers": self.fastest.workers,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return what was measured under its names."""
        return asdict(self) | {"fastest": asdict(self.fastest)}


def tune_threads(
    experiment: Experiment, tuning: Tuning, report: Callable[[str], None]
) -> ThreadTuning | None:
    """Train with the loader beside it, with fewer and fewer threads on either side.

    Args:
        experiment: The run, computed in its fastest way; its weights and files are not touched.
        tuning: Of its loader: where it augments, and with how many threads.
        report: Told what is measured next.

    Returns:
        None where there is nothing to share: on a GPU, or where one thread computes.
    """
    own = torch.get_num_threads()
    if experiment.device.type != "cpu" or own == 1 or experiment.config.train.threads:
        return None
    stage = max(tuning.fastest.stages, key=lambda speed: speed.seconds)
    augment = replace(experiment.config.augment, place=tuning.fastest.place)
    run = replace(experiment, config=replace(experiment.config, augment=augment))
    step = StepSpeed(stage.measured_batch_size, stage.measured_batch_size / stage.network)
    workers = experiment.config.data.workers or tuning.fastest.workers
    fewer = {workers} if experiment.config.data.workers else {workers, max(workers // 2, 1)}
    divisions = list(
        product(
            sorted({own, own - 1, max(own // 2, 1)}, reverse=True),
            sorted(fewer, reverse=True),
        )
    )
    report(f"threads at {stage.settings.image_size} px in {len(divisions)} divisions")
    state = initial_state(run)
    speeds: dict[tuple[int, int], list[float]] = {division: [] for division in divisions}
    for _ in range(_TURNS):
        for threads, count in divisions:
            with computing_threads(threads, run.device):
                together = measure_together(run, state, stage.settings, step, count)
            speeds[threads, count].append(together.images_per_second)
    return ThreadTuning(
        image_size=stage.settings.image_size,
        speeds=tuple(
            ThreadSpeed(threads=threads, workers=count, images_per_second=median(measured))
            for (threads, count), measured in speeds.items()
        ),
    )
