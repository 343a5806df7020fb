"""How long training steps take: whole steps, optimizer and moving average included."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import torch

from effnet.data.loader import Batch
from effnet.schedule.progressive import StageSettings
from effnet.training.batches import noise_batch
from effnet.training.experiment import Experiment
from effnet.training.preflight import synchronize
from effnet.training.step import TrainState, initial_state, set_phase, train_step

_SLEEP_CYCLES = 40_000_000
"""For which a GPU waits, so that calls are queued before the first one runs."""


def fair_clock(threads: int | None = None) -> Callable[[], float]:
    """Return the clock that other programs disturb least: of the processor's time where one thread computes.

    With several threads that time would hide how badly they share the work; there it is the wall's.

    Args:
        threads: That compute; None: those of torch.
    """
    return time.process_time if (threads or torch.get_num_threads()) == 1 else time.monotonic


def time_calls(
    work: Callable[[], object],
    count: int,
    device: torch.device,
    clock: Callable[[], float] | None = None,
    *,
    is_queued: bool = False,
) -> tuple[float, ...]:
    """Return the seconds of each of ``count`` calls.

    A GPU is waited for before the first call and after the last one only, so that it never idles in between,
    as in a run; its own clock says where calls begin and end.

    Args:
        work: Queues all that it does on the current stream of the device.
        count: From 1.
        device: On which the work is done.
        clock: Of a processor, in seconds; None: the wall's.
        is_queued: Let a GPU wait until calls are queued, so that queueing short ones is not what is timed.
    """
    clock = clock or time.monotonic
    synchronize(device)
    if device.type == "cuda":
        return _time_on_stream(work, count, device, is_queued=is_queued)
    seconds = []
    for _ in range(count):
        started = clock()
        work()
        seconds.append(clock() - started)
    return tuple(seconds)


def _time_on_stream(
    work: Callable[[], object], count: int, device: torch.device, *, is_queued: bool
) -> tuple[float, ...]:
    stream = torch.cuda.current_stream(device)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]  # type: ignore[no-untyped-call]
    if is_queued:
        torch.cuda._sleep(_SLEEP_CYCLES)  # type: ignore[no-untyped-call]
    marks[0].record(stream)
    for mark in marks[1:]:
        work()
        mark.record(stream)
    synchronize(device)
    return tuple(before.elapsed_time(after) / 1e3 for before, after in pairwise(marks))


def time_steps(
    experiment: Experiment,
    state: TrainState,
    batch: Batch,
    *,
    steps: int,
    clock: Callable[[], float] | None = None,
) -> tuple[float, ...]:
    """Return the seconds of each of ``steps`` training steps on one and the same batch; see `time_calls`."""
    return time_calls(lambda: train_step(state, batch, experiment), steps, experiment.device, clock)


def time_step(experiment: Experiment, state: TrainState, batch: Batch) -> float:
    """Return the seconds of a training step, from an idle device to an idle device."""
    return time_steps(experiment, state, batch, steps=1)[0]


class StepTimer:
    """The training steps of one network on noise, ready to be timed whenever it is their turn.

    Args:
        experiment: The run; its files are not touched.
        settings: Of the stage whose image size and rates count.
        images: In a step.
    """

    def __init__(self, experiment: Experiment, settings: StageSettings, images: int) -> None:
        self.experiment = experiment
        self.state = initial_state(experiment)
        set_phase(self.state, experiment, settings, is_head_only=False)
        self.batch = noise_batch(experiment, replace(settings, batch_size=images), images)

    def __call__(self, steps: int) -> tuple[float, ...]:
        """Do so many steps and return the seconds of each, by `fair_clock`."""
        return time_steps(self.experiment, self.state, self.batch, steps=steps, clock=fair_clock())
