"""What a network costs on this device, measured beside a reference network so that drift cancels.

The training step is the whole one of the run: forward and backward pass, optimizer and moving average, in its
precision and memory format. The images are noise; how long a step takes does not depend on what they show.
Where one thread computes, its own time counts, from which other programs take nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from effnet.arch.spec import NetworkSpec
from effnet.nn import forward_macs
from effnet.schedule.progressive import StageSettings
from effnet.search.turns import Budget, compare
from effnet.training.experiment import Experiment
from effnet.training.step_memory import step_memory
from effnet.training.timing import StepTimer, fair_clock, time_calls

DEFAULT_BUDGET = Budget()
_CPU_MACS = 1.5e9
"""Of the reference's step on a processor: some 0.1 to 0.3 s on one core."""
_TRAINING = 3
"""A backward pass has twice the multiply-adds of a forward pass."""
_FEWEST_IMAGES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """The training step of a network beside that of a reference network."""

    ratio: float
    """Time of a step divided by the reference's."""
    spread: float
    """Relative standard error of the ratio."""
    rounds: int
    """That counted."""
    dropped: int
    """Rounds in which the machine was not steady."""
    step_ms: float
    """Milliseconds of a step of ``images``."""
    reference_ms: float
    """The same of the reference, measured in turns with it."""
    memory_mb: float
    """Peak of a step of the run's own batch in 2^20 bytes; see `effnet.training.step_memory`."""
    images: int
    """In the steps that were timed."""
    image_size: int
    """Their side in pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """The forward pass of a network beside that of a reference network; see `StepTime`."""

    ratio: float
    spread: float
    rounds: int
    dropped: int
    latency_ms: float
    """Milliseconds of a forward pass of ``images``."""
    reference_ms: float
    images: int
    image_size: int


def measure_step(
    experiment: Experiment,
    spec: NetworkSpec,
    reference: NetworkSpec,
    budget: Budget = DEFAULT_BUDGET,
    *,
    images: int | None = None,
) -> StepTime:
    """Measure the training step of a network at the run's largest image size.

    Args:
        experiment: The run that the network would have; its files and weights are not touched, and its own
            network does not matter.
        spec: The network; it is given the run's classes.
        reference: What to measure it by; the same throughout a study.
        budget: Time for both networks together, without building and compiling them.
        images: In a step. None: on a GPU the run's own batch, on a processor what takes the reference some
            tenths of a second, a function of the run and the reference alone.

    Raises:
        torch.OutOfMemoryError: The GPU has no room for it.
    """
    settings = max(experiment.schedule.stages, key=lambda stage: (stage.image_size, stage.stage))
    count = images or step_images(experiment, settings, reference)
    run = with_network(experiment, spec)
    at_once = experiment.config.train.micro_batch_size or settings.batch_size
    memory = step_memory(run, settings, min(at_once, settings.batch_size))
    timer = StepTimer(run, settings, count)
    result = compare(timer, StepTimer(with_network(experiment, reference), settings, count), budget)
    return StepTime(
        ratio=result.ratio,
        spread=result.spread,
        rounds=result.rounds,
        dropped=result.dropped,
        step_ms=result.seconds * 1e3,
        reference_ms=result.reference_seconds * 1e3,
        memory_mb=memory / 2**20,
        images=count,
        image_size=settings.image_size,
    )


def measure_latency(
    experiment: Experiment,
    spec: NetworkSpec,
    reference: NetworkSpec,
    budget: Budget = DEFAULT_BUDGET,
    *,
    images: int = 1,
) -> Latency:
    """Measure the forward pass of a network at the run's evaluation size; arguments as for `measure_step`.

    Raises:
        torch.OutOfMemoryError: The GPU has no room for it.
    """
    size = experiment.preprocessing.image_size
    forward = forward_turns(with_network(experiment, spec), images, size)
    result = compare(forward, forward_turns(with_network(experiment, reference), images, size), budget)
    return Latency(
        ratio=result.ratio,
        spread=result.spread,
        rounds=result.rounds,
        dropped=result.dropped,
        latency_ms=result.seconds * 1e3,
        reference_ms=result.reference_seconds * 1e3,
        images=images,
        image_size=size,
    )


def step_images(experiment: Experiment, settings: StageSettings, reference: NetworkSpec) -> int:
    """Return how many images a timed step has, where that is not given: on a GPU those of the run's step."""
    if experiment.device.type != "cpu":
        return settings.batch_size
    macs = _TRAINING * forward_macs(with_network(experiment, reference).spec, settings.image_size)
    return min(settings.batch_size, max(int(_CPU_MACS / macs), _FEWEST_IMAGES))


def with_network(experiment: Experiment, spec: NetworkSpec) -> Experiment:
    """Return the run with another network, freshly drawn."""
    known = experiment.spec
    return replace(
        experiment,
        spec=replace(spec, num_classes=known.num_classes, in_channels=known.in_channels),
        weights=None,
    )


def forward_turns(experiment: Experiment, images: int, image_size: int) -> Callable[[int], Sequence[float]]:
    """Return what times forward passes of noise, for `effnet.search.turns.compare`."""
    device, dtype = experiment.device, experiment.autocast
    model = experiment.build_model().eval()
    is_last = experiment.config.train.memory_format != "contiguous"
    layout = torch.channels_last if is_last else torch.contiguous_format
    noise = torch.randn(images, experiment.spec.in_channels, image_size, image_size)
    pixels = noise.to(device).contiguous(memory_format=layout)

    @torch.inference_mode()
    def run() -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            return model(pixels)

    return lambda count: time_calls(run, count, device, fair_clock())
