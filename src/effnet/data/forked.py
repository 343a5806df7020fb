"""Processes that fill parts of the batches of training; see `effnet.data.forks`.

The pixels lie in memory that both they and this process see.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8

from effnet.config import DataConfig
from effnet.data.device_augment import DrawnViews
from effnet.data.filling import TrainPlan, Views
from effnet.data.forks import MOST_FORKS, Forks, can_fork
from effnet.data.images import LabelledImages
from effnet.data.threads import CHUNK, thread_count
from effnet.errors import UserError
from effnet.schedule.progressive import StageSettings

_CHANNELS = 3

Fill: TypeAlias = Callable[[TrainPlan, range], dict[int, str]]
"""Fills some rows of a batch; returns what is wrong with which images that came up."""
_Memory: TypeAlias = UInt8[np.ndarray, " B"]


def check_fork(images: LabelledImages) -> None:
    """Refuse processes where they cannot read the images.

    Raises:
        UserError: They cannot.
    """
    if not can_fork(images):
        raise UserError(
            "data.worker_kind 'processes' is for Linux, for images in local files, one by one, or in a "
            "prepared store, and for a process that may start others; set data.worker_kind=threads"
        )


def shared_flags(count: int) -> Bool[np.ndarray, " N"]:
    """Return flags that this process and those that are forked from it all see, none of them set."""
    return np.frombuffer(mmap.mmap(-1, max(count, 1)), np.bool_, count)


@contextmanager
def filler(views: Views, data: DataConfig, *, seed: int, largest_size: int) -> Iterator[Fill]:
    """Return who fills parts of batches, for the length of a ``with`` block.

    Args:
        views: Of the run.
        data: Whether threads or processes do it; ``auto``: threads.
        seed: Of the run.
        largest_size: Of any batch's images, in pixels.

    Raises:
        UserError: Processes cannot read these images.
    """
    if data.worker_kind != "processes":
        yield views.fill
        return
    check_fork(views.images)
    processes = _Filling(views, seed, min(thread_count(data.workers), MOST_FORKS), largest_size)
    try:
        yield processes.fill
    finally:
        processes.close()


class _Part(NamedTuple):
    """Some rows of a batch."""

    step: int
    settings: StageSettings
    first_sample: int
    order: Int64[np.ndarray, " n"]


class _Filled(NamedTuple):
    """What is not in the shared memory."""

    used: Int64[np.ndarray, " n"]
    drawn: DrawnViews | None
    wrong: dict[int, str]


class _Filling:
    """Fills parts of batches as `Views` does, each in a process; several threads may ask.

    Args:
        views: Of the run; its flags are `shared_flags`.
        seed: Of the run.
        count: Processes.
        largest_size: Of any batch's images, in pixels.
    """

    def __init__(self, views: Views, seed: int, count: int, largest_size: int) -> None:
        size = CHUNK * largest_size**2 * _CHANNELS
        self._memories = [np.frombuffer(mmap.mmap(-1, size), np.uint8) for _ in range(count)]
        self._forks: Forks[_Part, _Filled] = Forks(
            [partial(_filled, views, seed, memory) for memory in self._memories]
        )

    def fill(self, batch: TrainPlan, rows: range) -> dict[int, str]:
        """Fill some rows of a batch; return what is wrong with which images that came up."""
        part = slice(rows.start, rows.stop)
        asked = _Part(batch.step, batch.settings, batch.first_sample + rows.start, batch.order[part])
        target = batch.pixels[part]
        with self._forks.idle() as number:
            answer = self._forks.ask(number, asked)
            target[:] = self._memories[number][: target.size].reshape(target.shape)
        batch.used[part] = answer.used
        if batch.drawn is not None and answer.drawn is not None:
            batch.drawn.put(part, answer.drawn)
        return answer.wrong

    def close(self) -> None:
        """End the processes."""
        self._forks.close()


def _filled(views: Views, seed: int, memory: _Memory, part: _Part) -> _Filled:
    count, size = len(part.order), part.settings.image_size
    pixels = memory[: count * size**2 * _CHANNELS].reshape(count, size, size, _CHANNELS)
    plan = TrainPlan(
        step=part.step,
        settings=part.settings,
        seed=seed,
        first_sample=part.first_sample,
        order=part.order,
        images=torch.from_numpy(pixels),
        pixels=pixels,
        used=np.empty(count, np.int64),
        drawn=DrawnViews.empty(count, views.augment) if views.augment.place == "device" else None,
    )
    wrong = views.fill(plan, range(count))
    return _Filled(plan.used, plan.drawn, wrong)
