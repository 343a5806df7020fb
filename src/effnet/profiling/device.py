"""What a device does at best, copying memory and multiplying matrices; and how its time is taken."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from effnet.training.timing import fair_clock, time_calls

_COPIED = {"cpu": 1 << 28, "cuda": 1 << 31}
"""Bytes of a copied tensor: several times what a cache holds."""
_SIDE = {"cpu": 2048, "cuda": 8192}
"""Of the multiplied matrices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peaks:
    """The two roofs of a device, as measured."""

    bytes_per_second: float
    """Of a copy, read and written bytes added."""
    flops_per_second: float
    """Of a matrix product, a multiply-add being two; in the type in which the network computes."""

    def seconds(self, macs: int, moved: int) -> tuple[float, float]:
        """Return how long arithmetic and memory need for work; the longer of them is the least it takes."""
        return 2 * macs / self.flops_per_second, moved / self.bytes_per_second


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """Where and how layers are computed."""

    device: torch.device
    precision: torch.dtype
    """float32, or what autocast computes in."""
    memory_format: torch.memory_format

    @property
    def element(self) -> int:
        """Bytes of a value between layers."""
        return self.precision.itemsize

    def autocast(self) -> AbstractContextManager[object]:
        """Compute as a run with this precision does."""
        is_mixed = self.precision != torch.float32
        return torch.autocast(self.device.type, self.precision if is_mixed else None, enabled=is_mixed)


def measure_peaks(setting: Setting, rounds: int = 5) -> Peaks:
    """Measure both roofs; on a processor with the threads that torch has.

    Args:
        setting: The type of the matrices is its precision.
        rounds: Of each; the fastest counts, as nothing can be faster than a roof.
    """
    kind = setting.device.type
    source = torch.ones(_COPIED[kind] // 4, device=setting.device)
    target = torch.empty_like(source)
    copying = min(seconds_of(lambda: target.copy_(source), setting.device, rounds))
    moved = 2 * source.nbytes
    left, right = (
        torch.randn(_SIDE[kind], _SIDE[kind], device=setting.device).to(setting.precision) for _ in range(2)
    )
    multiplying = min(seconds_of(lambda: left @ right, setting.device, rounds))
    return Peaks(bytes_per_second=moved / copying, flops_per_second=2 * _SIDE[kind] ** 3 / multiplying)


def seconds_of(work: Callable[[], object], device: torch.device, rounds: int) -> tuple[float, ...]:
    """Return the seconds of each of ``rounds`` calls, behind one that does not count.

    What a call finds in the caches is what the call before left there: as in a training step, where a layer
    finds what the layer before has written.

    Args:
        work: Queues all that it does on the current stream of the device.
        device: A GPU's own clock counts, a processor's is `fair_clock`.
        rounds: From 1.
    """
    work()
    return time_calls(work, rounds, device, fair_clock(), is_queued=True)
