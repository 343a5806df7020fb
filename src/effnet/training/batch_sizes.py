"""How many images at once make the training steps of each stage the fastest on this device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from effnet.training.batches import noise_batch
from effnet.training.compute import ROUNDS, ComputeTuning, StageCompute
from effnet.training.experiment import Experiment
from effnet.training.step import initial_state, set_phase
from effnet.training.timing import time_step

SMALLEST = 8
_GAIN = 1.05


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSpeed:
    """How fast one stage is with different numbers of images at once."""

    image_size: int
    images_per_second: dict[int, float]
    """By the number of images, ascending; medians of three measurements."""

    @property
    def smallest_fast(self) -> int:
        """The fewest images at once that come within 5 % of the fastest."""
        most = max(self.images_per_second.values())
        return min(count for count, speed in self.images_per_second.items() if speed * _GAIN >= most)

    def to_dict(self) -> dict[str, Any]:
        """Return what was measured under its names."""
        return asdict(self) | {"smallest_fast": self.smallest_fast}


def measure_batch_sizes(
    experiment: Experiment, tuning: ComputeTuning, report: Callable[[str], None]
) -> tuple[BatchSpeed, ...]:
    """Measure steps of the batch that was tuned with, its half, its quarter ... down to `SMALLEST` images.

    Smaller batches, as ``train.micro_batch_size`` makes them, need less memory; what they cost is this.

    Args:
        experiment: The run; its weights and files are not touched.
        tuning: Of the run; steps are computed in its fastest way.
        report: Told what is measured next.
    """
    run = tuning.fastest.compute.applied_to(experiment)
    speeds = []
    for stage in tuning.fastest.stages:
        report(f"batches at {stage.settings.image_size} px")
        speeds.append(_measure_stage(run, stage))
    return tuple(speeds)


def _measure_stage(experiment: Experiment, stage: StageCompute) -> BatchSpeed:
    state = initial_state(experiment)
    set_phase(state, experiment, stage.settings, is_head_only=False)
    batches = [noise_batch(experiment, stage.settings, count) for count in _counts(stage.batch_size)]
    seconds: dict[int, list[float]] = {len(batch.labels): [] for batch in batches}
    for batch in batches:  # The first step of each size chooses kernels, or compiles.
        time_step(experiment, state, batch)
    for _ in range(ROUNDS):
        for batch in batches:
            seconds[len(batch.labels)].append(time_step(experiment, state, batch))
    return BatchSpeed(
        image_size=stage.settings.image_size,
        images_per_second={count: count / max(median(times), 1e-9) for count, times in seconds.items()},
    )


def _counts(largest: int) -> list[int]:
    """Return the halves of a batch, ascending, and the batch itself."""
    counts = [largest]
    while counts[-1] // 2 >= SMALLEST:
        counts.append(counts[-1] // 2)
    return counts[::-1]
