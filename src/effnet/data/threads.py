"""Threads that prepare batches ahead of their use; their libraries do not hold the interpreter's lock."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

BATCHES_AHEAD = 4
CHUNK = 16
"""Most images that a thread prepares in one go; small enough for the threads to stop promptly."""

_T = TypeVar("_T")
_R = TypeVar("_R")


def chunks(count: int, workers: int) -> list[range]:
    """Split the images of a batch into what each call prepares."""
    size = min(max(-(-count // thread_count(workers)), 1), CHUNK)
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def thread_count(workers: int) -> int:
    """Return the number of threads that is asked for; 0: one for each processor of this process."""
    if hasattr(os, "sched_getaffinity"):
        return workers or len(os.sched_getaffinity(0))
    return workers or os.cpu_count() or 1


def run_ahead(
    batches: Iterator[tuple[_T, Sequence[Callable[[], _R]]]], workers: int, ahead: int = BATCHES_AHEAD
) -> Generator[tuple[_T, list[_R]], None, None]:
    """Run each batch's calls in threads, ``ahead`` batches ahead, and yield what they return, in order.

    What a call raises is raised here.
    """
    waiting: deque[tuple[_T, list[Future[_R]]]] = deque()
    pool = ThreadPoolExecutor(thread_count(workers), thread_name_prefix="effnet-data")
    try:
        for batch, calls in batches:
            waiting.append((batch, [pool.submit(call) for call in calls]))
            if len(waiting) > ahead:
                yield _result(waiting)
        while waiting:
            yield _result(waiting)
    finally:
        pool.shutdown(cancel_futures=True)


def _result(waiting: deque[tuple[_T, list[Future[_R]]]]) -> tuple[_T, list[_R]]:
    batch, futures = waiting.popleft()
    return batch, [future.result() for future in futures]
