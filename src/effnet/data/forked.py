"""Processes that fill parts of batches, where the threads of one process would stand in each other's way.

Threads share the interpreter's lock. Each gives it away many times an image, and with more than a few of them
waiting for it costs more than they bring; the loop that trains waits as well. Processes are forked from the
one that trains, so that they have its images without opening them again; they use no GPU. A thread waits for
each, and copies what it has filled from memory that both see.
"""

from __future__ import annotations

import gc
import mmap
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Int64

from effnet.config import DataConfig
from effnet.data.device_augment import DrawnViews
from effnet.data.failures import WorkerError
from effnet.data.filling import TrainPlan, Views
from effnet.data.images import LabelledImages
from effnet.data.threads import CHUNK, thread_count
from effnet.errors import UnreachableError, UserError
from effnet.schedule.progressive import StageSettings

_CHANNELS = 3
_PATIENCE = 10.0
"""Seconds that a process gets to end by itself."""

Fill: TypeAlias = Callable[[TrainPlan, range], dict[int, str]]
"""Fills some rows of a batch; returns what is wrong with which images that came up."""


def can_fork(images: LabelledImages) -> bool:
    """Whether processes can read these images: not over connections, nor whole blocks at a time."""
    return sys.platform == "linux" and images.expect is None and not images.blocks


def check_fork(images: LabelledImages) -> None:
    """Refuse processes where they cannot read the images.

    Raises:
        UserError: They cannot.
    """
    if not can_fork(images):
        raise UserError(
            "data.worker_kind 'processes' is for Linux and for images in local files, one by one, or in a "
            "prepared store; set data.worker_kind=threads"
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
    processes = FillingProcesses(views, seed, thread_count(data.workers), largest_size)
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


class FillingProcesses:
    """Fill parts of batches as `Views` does, each in a process of its own; several threads may ask.

    Args:
        views: Of the run; its flags are `shared_flags`.
        seed: Of the run.
        count: Processes.
        image_size: Of the largest images, in pixels.
    """

    def __init__(self, views: Views, seed: int, count: int, image_size: int) -> None:
        self._all: list[_Process] = []
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        for number in range(count):
            self._all.append(_Process(views, seed, number, image_size, self._all))
            self._idle.put(self._all[-1])

    def fill(self, batch: TrainPlan, rows: range) -> dict[int, str]:
        """Fill some rows of a batch; return what is wrong with which images that came up.

        Raises:
            WorkerError: A process died.
            UserError: Too many images are bad.
        """
        process = self._idle.get()
        try:
            return process.fill(batch, rows)
        finally:
            self._idle.put(process)

    def close(self) -> None:
        """End the processes."""
        for process in self._all:
            process.close()


class _Process:
    """One process, as the thread that asks it sees it."""

    def __init__(self, views: Views, seed: int, number: int, image_size: int, others: list[_Process]) -> None:
        self._memory = np.frombuffer(mmap.mmap(-1, CHUNK * image_size**2 * _CHANNELS), np.uint8)
        context = get_context("fork")
        self._connection, theirs = context.Pipe()
        # Or the others would hold connections open that this process has closed by ending.
        not_theirs = [self._connection, *(other._connection for other in others)]
        self._process: BaseProcess = context.Process(
            target=_serve,
            args=(theirs, not_theirs, views, seed, self._memory, number),
            name=f"effnet-data-{number}",
            daemon=True,
        )
        with warnings.catch_warnings():
            # Python warns where there are threads, whose locks a fork may find held: they are torch's, and
            # are not taken by what reads and cuts images.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        theirs.close()

    def fill(self, batch: TrainPlan, rows: range) -> dict[int, str]:
        part = slice(rows.start, rows.stop)
        asked = _Part(batch.step, batch.settings, batch.first_sample + rows.start, batch.order[part])
        try:
            self._connection.send(asked)
            answer: _Filled | Exception = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise WorkerError(
                f"the loader process {self._process.name} has ended with {self._process.exitcode}; where "
                "nobody has killed it, memory ran out"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        target = batch.pixels[part]
        target[:] = self._memory[: target.size].reshape(target.shape)
        batch.used[part] = answer.used
        if batch.drawn is not None and answer.drawn is not None:
            batch.drawn.put(part, answer.drawn)
        return answer.wrong

    def close(self) -> None:
        self._connection.close()  # By which it ends.
        self._process.join(_PATIENCE)
        self._process.kill()
        self._process.join()


def _serve(  # noqa: PLR0917 - as processes are started
    connection: Connection,
    not_ours: list[Connection],
    views: Views,
    seed: int,
    memory: np.ndarray,
    number: int,
) -> None:
    """Fill parts as long as somebody asks for them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that trains.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.current_thread().name = f"effnet-data-{number} (a process)"
    gc.freeze()  # What was inherited is not this process's to tidy up.
    for other in not_ours:
        other.close()
    while True:
        try:
            part: _Part = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer: _Filled | Exception = _filled(part, views, seed, memory)
        except Exception as error:
            answer = _to_send(error)
        try:
            connection.send(answer)
        except OSError:
            return


def _filled(part: _Part, views: Views, seed: int, memory: np.ndarray) -> _Filled:
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


def _to_send(error: Exception) -> Exception:
    """Return an error that another process can raise."""
    for kind in (UserError, UnreachableError, WorkerError):
        if isinstance(error, kind):
            return kind(str(error))
    name = threading.current_thread().name
    return WorkerError(f"the loader thread {name} died: {type(error).__name__}: {error}")
