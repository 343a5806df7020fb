"""CPU time of several things that are done in turns, so that a disturbance of the machine meets all alike."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

_LARGEST_KEPT_BYTES = (32 << 20) - (1 << 16)  # glibc's bound is 32 MiB with the block's own header.

Pass: TypeAlias = Callable[[], int]
"""Prepare every image once; return how many there were."""


def cpu_seconds() -> float:
    """Return the CPU time, user and system, of all threads of this process and of its worker processes."""
    finished = resource.getrusage(resource.RUSAGE_CHILDREN)
    alive = sum(_process_seconds(child.pid) for child in multiprocessing.active_children() if child.pid)
    return time.process_time() + finished.ru_utime + finished.ru_stime + alive


def can_time_workers() -> bool:
    """Whether the CPU time of processes that still run can be read here."""
    return sys.platform == "linux"


def _process_seconds(pid: int) -> float:
    try:
        return time.clock_gettime((~pid << 3) | 2)  # What clock_getcpuclockid(3) returns on Linux.
    except OSError:
        return 0.0


def settle_allocator() -> None:
    """Let the C library keep the memory of images for the next ones, whatever ran before.

    Until a process frees a block as large as its images, glibc gives each image's memory back to the system
    and fetches it again, page by page: a quarter of the time of a loader on Pillow. Training processes have
    freed large tensors, and hand that state on to the workers that they fork.
    """
    np.empty(_LARGEST_KEPT_BYTES, np.uint8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """How fast one thing was in every round."""

    images: int
    """Images a round."""
    rates: tuple[float, ...]
    """Images a second of CPU time, in the order of the rounds."""

    @property
    def median(self) -> float:
        """Images a second of CPU time."""
        return statistics.median(self.rates)

    def ratios_to(self, other: Timing) -> tuple[float, ...]:
        """Return how many times as fast as ``other`` this was, round by round."""
        return tuple(own / its for own, its in zip(self.rates, other.rates, strict=True))


def take_turns(passes: Mapping[str, Pass], rounds: int) -> dict[str, Timing]:
    """Time each pass once a round, in the same order every round, after one round that does not count.

    The first round compiles what is compiled when it is first used, starts processes, and reads the files
    into memory.
    """
    for work in passes.values():
        work()
    rates: dict[str, list[float]] = {name: [] for name in passes}
    images: dict[str, int] = {}
    for _ in range(rounds):
        for name, work in passes.items():
            start = cpu_seconds()
            images[name] = work()
            rates[name].append(images[name] / (cpu_seconds() - start))
    return {name: Timing(images=images[name], rates=tuple(rates[name])) for name in passes}
