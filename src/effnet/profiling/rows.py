"""What was measured of each layer, and its sums over the layers of a kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from typing import Any, Literal, TypeAlias

from effnet.profiling.device import Peaks
from effnet.profiling.work import Pass, Work

Bound: TypeAlias = Literal["memory", "arithmetic"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PassTime:
    """One pass of one layer, or of a part of the step that is no layer."""

    name: Pass
    work: Work
    seconds: tuple[float, ...]
    """Of each call."""

    @property
    def median(self) -> float:
        """Of the calls."""
        return median(self.seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One distinct layer, or a part of the step that is no layer."""

    kind: str
    name: str
    """Of the first one in the network."""
    shape: tuple[int, ...]
    """Of its first input; empty for what is no layer."""
    count: int
    """How many are alike; all other numbers are of one."""
    passes: tuple[PassTime, ...]
    params: int = 0
    macs: int = 0
    """Of the forward pass of a batch."""
    activation_bytes: int = 0
    """Of its output for a batch."""
    kept_bytes: int = 0
    """For the backward pass."""

    def to_dict(self, peaks: Peaks) -> dict[str, Any]:
        """Return all numbers, those of each pass beside what the device allows."""
        return {
            "kind": self.kind,
            "name": self.name,
            "shape": list(self.shape),
            "count": self.count,
            "params": self.params,
            "macs": self.macs,
            "activation_bytes": self.activation_bytes,
            "kept_bytes": self.kept_bytes,
            "passes": [
                {"seconds_of_calls": list(done.seconds)} | _pass_sum(done.name, [(1, done)], peaks).to_dict()
                for done in self.passes
            ],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class PassSum:
    """One pass of all layers of a kind."""

    name: Pass
    macs: int
    bytes: int
    """That must move at least."""
    seconds: float
    """Of the layers' medians."""
    least_seconds: float
    """What the device's roofs allow, layer by layer."""
    bound: Bound
    """The roof that most of that time is under."""

    @property
    def flops_per_second(self) -> float:
        """A multiply-add being two."""
        return 2 * self.macs / self.seconds

    @property
    def bytes_per_second(self) -> float:
        """Of those that must move."""
        return self.bytes / self.seconds

    @property
    def reached(self) -> float:
        """The share of what the device allows; above 1 where the caches help."""
        return self.least_seconds / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers."""
        return {
            "pass": self.name,
            "macs": self.macs,
            "least_bytes": self.bytes,
            "seconds": self.seconds,
            "least_seconds": self.least_seconds,
            "bound": self.bound,
            "flops_per_second": self.flops_per_second,
            "bytes_per_second": self.bytes_per_second,
            "reached": self.reached,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class KindSum:
    """All layers of a kind."""

    kind: str
    count: int
    params: int
    macs: int
    activation_bytes: int
    kept_bytes: int
    passes: tuple[PassSum, ...]

    @property
    def seconds(self) -> float:
        """Of all passes."""
        return sum(row.seconds for row in self.passes)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers of the kind and of its passes."""
        return {
            "kind": self.kind,
            "count": self.count,
            "params": self.params,
            "macs": self.macs,
            "activation_bytes": self.activation_bytes,
            "kept_bytes": self.kept_bytes,
            "seconds": self.seconds,
            "passes": [row.to_dict() for row in self.passes],
        }


def sums_of(measured: Iterable[Measured], peaks: Peaks) -> tuple[KindSum, ...]:
    """Add up what belongs to a kind; what takes longest is first.

    Args:
        measured: All layers and parts.
        peaks: Of the device.
    """
    ordered = sorted(measured, key=lambda item: item.kind)
    sums = [
        _kind_sum(kind, list(items), peaks) for kind, items in groupby(ordered, key=lambda item: item.kind)
    ]
    return tuple(sorted(sums, key=lambda row: -row.seconds))


def _kind_sum(kind: str, items: Sequence[Measured], peaks: Peaks) -> KindSum:
    passes: dict[Pass, list[tuple[int, PassTime]]] = {}
    for item in items:
        for done in item.passes:
            passes.setdefault(done.name, []).append((item.count, done))
    return KindSum(
        kind=kind,
        count=sum(item.count for item in items),
        params=sum(item.count * item.params for item in items),
        macs=sum(item.count * item.macs for item in items),
        activation_bytes=sum(item.count * item.activation_bytes for item in items),
        kept_bytes=sum(item.count * item.kept_bytes for item in items),
        passes=tuple(_pass_sum(name, done, peaks) for name, done in passes.items()),
    )


def _pass_sum(name: Pass, done: Sequence[tuple[int, PassTime]], peaks: Peaks) -> PassSum:
    least = {"memory": 0.0, "arithmetic": 0.0}
    for count, time in done:
        arithmetic, memory = peaks.seconds(time.work.macs, time.work.bytes)
        least["arithmetic" if arithmetic > memory else "memory"] += count * max(arithmetic, memory)
    return PassSum(
        name=name,
        macs=sum(count * time.work.macs for count, time in done),
        bytes=sum(count * time.work.bytes for count, time in done),
        seconds=sum(count * time.median for count, time in done),
        least_seconds=sum(least.values()),
        bound="arithmetic" if least["arithmetic"] > least["memory"] else "memory",
    )
