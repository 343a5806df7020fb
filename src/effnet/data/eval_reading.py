"""Read images as they are evaluated, in this process or in others.

Dimension key: S side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8

from effnet.arch.preprocessing import Preprocessing
from effnet.data.bad_images import bad_reason
from effnet.data.failures import named_failures
from effnet.data.images import LabelledImages
from effnet.data.pillow import BadImageError
from effnet.data.process_filling import pack_work
from effnet.data.threads import CHUNK, thread_count
from effnet.data.transforms import eval_image
from effnet.data.worker_processes import Memory, WorkerKind, WorkerProcesses

EvalView: TypeAlias = UInt8[np.ndarray, "S S 3"] | str
"""An image's pixels, or why there are none."""
Read: TypeAlias = Callable[[range], list[EvalView]]


@contextmanager
def eval_reader(
    images: LabelledImages,
    preprocessing: Preprocessing,
    *,
    workers: int,
    worker_kind: WorkerKind,
) -> Iterator[Read]:
    """Return who reads some images, for the length of a ``with`` block; several threads may ask.

    Args:
        images: The images.
        preprocessing: Size, crop and interpolation.
        workers: Threads that ask; 0: one for each processor.
        worker_kind: Whether each of them has a process.

    Raises:
        UserError: Processes cannot read these images.
    """
    read = partial(_read, images, preprocessing)
    if worker_kind == "threads":
        yield read
        return
    size = preprocessing.image_size
    work = pack_work(_Work(images, preprocessing), [images])
    processes = WorkerProcesses[range, list[str]](work, thread_count(workers), CHUNK * size**2 * 3)
    try:
        yield partial(_read_elsewhere, processes, size)
    finally:
        processes.close()


def _read(images: LabelledImages, preprocessing: Preprocessing, indices: range) -> list[EvalView]:
    """Return what each image looks like; nothing is repaired that is scored."""
    views: list[EvalView] = []
    for index in indices:
        try:
            with named_failures(images.names[index]):
                views.append(eval_image(images.read(index), preprocessing))
        except (BadImageError, OSError) as error:
            views.append(bad_reason(error))
    return views


def _read_elsewhere(
    processes: WorkerProcesses[range, list[str]], size: int, indices: range
) -> list[EvalView]:
    with processes.idle() as worker:
        reasons = worker.ask(indices)
        pixels = _views(worker.memory, len(indices), size).copy()
    return [reason or view for reason, view in zip(reasons, pixels, strict=True)]


def _views(memory: Memory, count: int, size: int) -> UInt8[np.ndarray, "N S S 3"]:
    return memory[: count * size**2 * 3].reshape(count, size, size, 3)


@dataclass(frozen=True, slots=True)
class _Work:
    """What a process does: it leaves pixels in the memory, and says why there are none; empty: there are."""

    images: LabelledImages
    preprocessing: Preprocessing

    def __call__(self, memory: Memory, indices: range) -> list[str]:
        reasons: list[str] = []
        pixels = _views(memory, len(indices), self.preprocessing.image_size)
        for row, view in zip(pixels, _read(self.images, self.preprocessing, indices), strict=True):
            reasons.append(view if isinstance(view, str) else "")
            if not isinstance(view, str):
                row[:] = view
        return reasons
