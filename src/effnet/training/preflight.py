"""What a run will cost, measured on this device before anything is spent."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import torch

from effnet.arch.external import AnySpec
from effnet.data.loader import Batch
from effnet.nn import forward_macs
from effnet.schedule.progressive import StageSchedule, StageSettings
from effnet.training.batches import run_batches
from effnet.training.computing_threads import computing_threads
from effnet.training.experiment import Experiment
from effnet.training.step import TrainState, initial_state, set_phase, train_step

_WARMUP_STEPS = 1
_STEPS = 3
_CPU_BATCH = 32
_MOST_MEASURED = 8

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class StageCost:
    """The measured and predicted cost of one stage."""

    measured_batch_size: int
    """Smaller than the stage's on a processor, and where a GPU had no room for the whole batch."""
    fits: bool
    """Whether the stage's own batch fits; always true on a processor, where it is not tried."""
    seconds_per_step: float
    """Of the stage's own batch: decoding, forward, backward and update."""
    images_per_second: float
    memory_bytes: int
    """Peak memory of the device; on a processor the growth of the process, scaled to the batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The stages of a run, and what they cost where that was measured."""

    schedule: StageSchedule
    costs: tuple[StageCost, ...]
    """Empty where nothing was measured."""
    relative_macs: float
    """Multiply-adds of training, relative to all images at the largest size."""

    @property
    def seconds(self) -> float:
        """Predicted time in training steps, without evaluation; 0 where nothing was measured."""
        stages = zip(self.schedule.stages, self.costs, strict=False)
        return sum(stage.steps * cost.seconds_per_step for stage, cost in stages)

    @property
    def relative_seconds(self) -> float:
        """`seconds` relative to all images at the speed of the largest size; 0 where nothing was measured."""
        if not self.costs:
            return 0.0
        stages = zip(self.schedule.stages, self.costs, strict=True)
        _, largest = max(stages, key=lambda pair: (bool(pair[0].steps), pair[0].image_size))
        images = self.schedule.samples_before(self.schedule.total_steps)
        return self.seconds * largest.images_per_second / images

    @property
    def memory_bytes(self) -> int:
        """Predicted peak memory; 0 where nothing was measured."""
        return max((cost.memory_bytes for cost in self.costs), default=0)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as ``effnet plan --json`` prints it."""
        stages: list[dict[str, Any]] = []
        for settings in self.schedule.stages:
            cost = self.costs[settings.stage] if self.costs else None
            stages.append(
                settings.to_dict()
                | {"steps": settings.steps, "start_epoch": self.schedule.epoch(settings.start_step)}
                | (asdict(cost) if cost else {})
            )
        total: dict[str, Any] = {
            "total_steps": self.schedule.total_steps,
            "train_images": self.schedule.train_images,
            "relative_macs": self.relative_macs,
        }
        if self.costs:
            total |= {
                "seconds": self.seconds,
                "relative_seconds": self.relative_seconds,
                "memory_bytes": self.memory_bytes,
            }
        return total | {"stages": stages}


def plan(schedule: StageSchedule, spec: AnySpec, costs: tuple[StageCost, ...] = ()) -> Plan:
    """Put a schedule and its costs together."""
    full = schedule.samples_before(schedule.total_steps) * forward_macs(spec, schedule.largest_size)
    return Plan(schedule=schedule, costs=costs, relative_macs=training_macs(schedule, spec) / max(full, 1))


def training_macs(schedule: StageSchedule, spec: AnySpec, steps: int | None = None) -> int:
    """Return the multiply-adds of the forward passes of a run.

    Args:
        schedule: Of the run.
        spec: Its network.
        steps: Of them, the first ones that count; None: all.
    """
    end = schedule.total_steps if steps is None else steps
    return sum(
        max(min(stage.end_step, end) - stage.start_step, 0)
        * stage.batch_size
        * forward_macs(spec, stage.image_size)
        for stage in schedule.stages
    )


def measure(experiment: Experiment, report: Callable[[StageSettings], None]) -> Plan:
    """Run a few real steps of every stage, the largest first, and predict the run from them.

    Args:
        experiment: The run; its weights and files are not touched.
        report: Called with each stage before it is measured.

    Returns:
        The plan. A stage whose batch does not fit on a GPU is measured with the largest half, quarter,
        ... that does, and says so. Of many sizes eight are measured; a size between costs in proportion to
        its pixels what the next larger one costs.
    """
    state = initial_state(experiment)
    schedule = experiment.schedule
    costs: dict[StageSettings, StageCost] = {}
    largest: StageCost | None = None
    for settings in _to_measure(schedule.stages):
        report(settings)
        with computing_threads(experiment.config.train.threads, experiment.device):
            cost = _measure_stage(experiment, state, settings)
        if experiment.device.type == "cpu":
            # A process never reports a smaller peak, so the others follow from the largest.
            largest = largest or cost
            share = _pixels(settings) / _pixels(max(schedule.stages, key=_pixels))
            cost = replace(cost, memory_bytes=int(largest.memory_bytes * share))
        costs[settings] = cost
    return plan(schedule, experiment.spec, tuple(_cost_of(stage, costs) for stage in schedule.stages))


def _to_measure(stages: Sequence[StageSettings]) -> list[StageSettings]:
    """Return stages of different images or batches, the largest first, evenly spread where they are many."""
    distinct: dict[tuple[int, int], StageSettings] = {}
    for settings in stages:
        distinct.setdefault((settings.image_size, settings.batch_size), settings)
    ordered = sorted(distinct.values(), key=_pixels, reverse=True)
    count = min(len(ordered), _MOST_MEASURED)
    return [ordered[number * (len(ordered) - 1) // max(count - 1, 1)] for number in range(count)]


def _cost_of(settings: StageSettings, costs: Mapping[StageSettings, StageCost]) -> StageCost:
    """Return what was measured for a stage, or follows from the next larger one."""
    larger = [known for known in costs if _pixels(known) >= _pixels(settings)]
    nearest = min(larger, key=lambda known: (_pixels(known), known.image_size != settings.image_size))
    cost, share = costs[nearest], _pixels(settings) / _pixels(nearest)
    seconds = cost.seconds_per_step * share
    return replace(
        cost,
        seconds_per_step=seconds,
        images_per_second=settings.batch_size / seconds,
        memory_bytes=int(cost.memory_bytes * share),
    )


def _pixels(settings: StageSettings) -> int:
    return settings.image_size**2 * settings.batch_size


def _measure_stage(experiment: Experiment, state: TrainState, settings: StageSettings) -> StageCost:
    limit = _CPU_BATCH if experiment.device.type == "cpu" else settings.batch_size
    batch_size, (seconds, memory) = fitting_batch(
        min(settings.batch_size, limit),
        lambda batch_size: _time_steps(experiment, state, replace(settings, batch_size=batch_size)),
    )
    scale = settings.batch_size / batch_size
    return StageCost(
        measured_batch_size=batch_size,
        fits=batch_size == min(settings.batch_size, limit),
        seconds_per_step=seconds * scale,
        images_per_second=batch_size / seconds,
        memory_bytes=int(memory * scale),
    )


def fitting_batch(batch_size: int, measure: Callable[[int], _T]) -> tuple[int, _T]:
    """Measure the whole batch, or the largest half, quarter, ... of it that fits on the device.

    Returns:
        The size of the batch that fits, and what was measured with it.
    """
    while True:
        try:
            return batch_size, measure(batch_size)
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
            batch_size //= 2
            torch.cuda.empty_cache()


def synchronize(device: torch.device) -> None:
    """Wait for all that is queued on a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release_memory(device: torch.device) -> None:
    """Give back to a GPU all memory that nobody holds any more."""
    if device.type == "cuda":
        gc.collect()  # A network and its hooks may hold each other.
        torch.cuda.empty_cache()


def memory_in_use(device: torch.device) -> int:
    """Return the bytes that are allocated on a GPU; 0 for a processor."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def restart_peak(device: torch.device) -> None:
    """Let `peak_memory` of a GPU count from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that were in use on a GPU since that was last reset; 0 for a processor.

    What CUDA graphs have is in use also between their replays, and does not count as allocated.
    """
    return torch.cuda.max_memory_allocated(device) + _kept_by_graphs(device) if device.type == "cuda" else 0


def _kept_by_graphs(device: torch.device) -> int:
    number = torch.cuda.current_device() if device.index is None else device.index
    return sum(
        segment["total_size"] - segment["allocated_size"]
        for segment in torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
        if segment["device"] == number and segment["segment_pool_id"] != (0, 0)
    )


def _time_steps(experiment: Experiment, state: TrainState, settings: StageSettings) -> tuple[float, int]:
    """Return seconds a step and the peak memory of a few steps with real images."""
    steps = _WARMUP_STEPS + _STEPS
    short = replace(settings, start_step=0, end_step=steps)
    schedule = StageSchedule((short,), experiment.schedule.train_images, settings.batch_size)
    set_phase(state, experiment, settings, is_head_only=False)
    config, device = experiment.config, experiment.device
    restart_peak(device)
    before = _peak_process_bytes()
    batches = run_batches(experiment, schedule, seed=config.train.seed)
    started = 0.0
    with closing(batches):
        for batch in batches:
            synchronize(device)
            if batch.step == _WARMUP_STEPS:
                started = time.monotonic()
            train_step(state, _at_first_step(batch), experiment)
            synchronize(device)
    seconds = (time.monotonic() - started) / _STEPS
    memory = peak_memory(device) if device.type == "cuda" else _peak_process_bytes() - before
    return seconds, memory


def _at_first_step(batch: Batch) -> Batch:
    return replace(batch, step=0)


def _peak_process_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
