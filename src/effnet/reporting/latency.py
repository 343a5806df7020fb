"""How long networks take for a forward pass on this machine, measured in turns.

Dimension key: N images, S side.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from effnet.arch.spec import NetworkSpec
from effnet.evaluation.streaming import Forward
from effnet.nn import Network, build_model
from effnet.nn.folding import fold_norms
from effnet.training.timing import time_calls


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """A network that is ready to be timed."""

    forward: Forward
    """On the device, in evaluation mode."""
    image_size: int
    in_channels: int = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Of one forward pass, by the wall's clock."""

    image_size: int
    images: int
    """At a time."""
    median_ms: float
    low_ms: float
    """A quarter of the passes took less."""
    high_ms: float
    """A quarter of the passes took more."""
    passes: int


def ready(model: Forward, image_size: int, device: torch.device) -> Timed:
    """Return a network in the form in which it answers: batch norm folded, channels last."""
    if isinstance(model, Network):
        model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        folded = fold_norms(model.eval())
        return Timed(forward=folded, image_size=image_size, in_channels=model.spec.in_channels)
    return Timed(forward=model, image_size=image_size)


def ready_fresh(spec: NetworkSpec, device: torch.device) -> Timed:
    """Return a network with drawn weights, at the size at which it is evaluated; weights cost no time."""
    return ready(build_model(spec), spec.image_size, device)


def measure_latencies(
    networks: Mapping[str, Timed],
    *,
    device: torch.device,
    images: int = 1,
    rounds: int = 7,
    announce: Callable[[str], None] | None = None,
) -> dict[str, Latency]:
    """Time all networks in turns, so that a disturbance meets all alike.

    Args:
        networks: By name.
        device: Where they are.
        images: At a time.
        rounds: Passes of each that count, behind one that does not.
        announce: Told what is being done.
    """
    works = {
        name: partial(_pass, network, _noise(network, images, device)) for name, network in networks.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1) if networks else ():
        if announce:
            announce(f"measuring latency: round {number} of {rounds}")
        for name, work in works.items():
            taken = time_calls(work, 1, device)
            if number:
                seconds[name] += taken
    return {name: _latency(values, networks[name].image_size, images) for name, values in seconds.items()}


@torch.inference_mode()
def _pass(network: Timed, pixels: Tensor) -> Tensor:
    return network.forward(pixels)


def _noise(network: Timed, images: int, device: torch.device) -> Tensor:
    shape = (images, network.in_channels, network.image_size, network.image_size)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(shape, generator=generator).to(device)
    return noise.contiguous(memory_format=torch.channels_last)


def _latency(seconds: Sequence[float], image_size: int, images: int) -> Latency:
    low, median, high = (
        statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 3
    )
    return Latency(
        image_size=image_size,
        images=images,
        median_ms=median * 1e3,
        low_ms=low * 1e3,
        high_ms=high * 1e3,
        passes=len(seconds),
    )
