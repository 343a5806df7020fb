"""Fill parts of the batches of training in processes; see `effnet.data.worker_processes`.

The pixels lie in memory that both they and this process see. What is known of images, because somebody has
looked at them, lies in this process alone: it goes with what is asked and comes with the answer.
Dimension key: n rows of a part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Int64

from effnet.config import AugmentConfig, DataConfig
from effnet.data.drawn_views import DrawnViews
from effnet.data.filling import TrainPlan, Views
from effnet.data.images import LabelledImages
from effnet.data.jpeg_scan import KnownScans, ScanMemory, can_cut
from effnet.data.sending import Packed, UnsendableError, pack
from effnet.data.threads import CHUNK, thread_count
from effnet.data.worker_processes import Memory, WorkerProcesses, can_start_processes
from effnet.errors import UserError
from effnet.schedule.progressive import StageSettings

_CHANNELS = 3

Fill: TypeAlias = Callable[[TrainPlan, range], dict[int, str]]
"""Fills some rows of a batch; returns what is wrong with which images that came up."""


def why_not_sendable(images: LabelledImages) -> str:
    """Return why other processes cannot read these images; empty: they can."""
    try:
        _pack(images, [images])
    except UnsendableError as error:
        return str(error)
    return ""


def pack_work(work: object, images: Iterable[LabelledImages], option: str = "data.worker_kind") -> Packed:
    """Make what processes do ready to be sent to them.

    Args:
        work: What they do; the images themselves, to see whether they can be sent.
        images: That they read for it.
        option: By which processes are asked for, for the message.

    Raises:
        UserError: They cannot read the images.
    """
    try:
        return _pack(work, images)
    except UnsendableError as error:
        raise UserError(f"{option} is 'processes', but {error}; set {option}=threads") from error


def _pack(work: object, images: Iterable[LabelledImages]) -> Packed:
    """Do what `pack_work` does; raises UnsendableError."""
    if not can_start_processes():
        raise UnsendableError("this system has no memory that processes can be given (Linux has)")
    if any(each.expect is not None or each.blocks for each in images):
        raise UnsendableError("these images are fetched many at a time, for all threads of a process")
    try:
        return pack(work)
    except UnsendableError as error:
        raise UnsendableError(f"these images cannot be sent to another process: {error}") from error


@contextmanager
def filler(views: Views, data: DataConfig, *, seed: int, largest_size: int) -> Iterator[Fill]:
    """Return who fills parts of batches, for the length of a ``with`` block.

    Args:
        views: Of the run.
        data: Whether threads or processes do it, and how many; ``auto``: threads.
        seed: Of the run.
        largest_size: Of any batch's images, in pixels.

    Raises:
        UserError: Processes cannot read these images.
    """
    if data.worker_kind != "processes":
        yield views.fill
        return
    work = _Work(views.images, views.config, views.augment, views.most_bad, seed)
    packed = pack_work(work, [views.images])
    can_cut()  # Or each process would compile what one keeps for all.
    size = CHUNK * largest_size**2 * _CHANNELS
    processes = WorkerProcesses[_Part, _Filled](packed, thread_count(data.workers), size)
    try:
        yield _Filling(views, processes).fill
    finally:
        processes.close()


class _Known(NamedTuple):
    """What is known of some images."""

    whole: Bool[np.ndarray, " n"]
    """Which were decoded without an error."""
    bad: dict[int, str]
    """Which cannot be used, and why; perhaps further ones."""
    scans: KnownScans
    """Of their JPEG files; of what was known already, nothing is answered."""


class _Part(NamedTuple):
    """Some rows of a batch."""

    step: int
    settings: StageSettings
    first_sample: int
    order: Int64[np.ndarray, " n"]
    known: _Known
    """Of ``order``."""
    most_scan_bytes: int
    """Of the indices of JPEG files that may be made."""


class _Filled(NamedTuple):
    """What is not in the shared memory."""

    used: Int64[np.ndarray, " n"]
    drawn: DrawnViews | None
    wrong: dict[int, str]
    known: _Known
    """Of ``used``."""


@dataclass(frozen=True, slots=True)
class _Filling:
    """Fills parts of batches as `Views` does, each in a process; several threads may ask."""

    views: Views
    processes: WorkerProcesses[_Part, _Filled]

    def fill(self, batch: TrainPlan, rows: range) -> dict[int, str]:
        """Fill some rows of a batch; return what is wrong with which images that came up."""
        part = slice(rows.start, rows.stop)
        order = batch.order[part]
        scans = self.views.scans
        known = _Known(self.views.found_whole[order], self._bad_from(order), scans.of_images(order.tolist()))
        first = batch.first_sample + rows.start
        asked = _Part(batch.step, batch.settings, first, order, known, scans.bytes_left)
        target = batch.pixels[part]
        with self.processes.idle() as worker:
            answer = worker.ask(asked)
            target[:] = worker.memory[: target.size].reshape(target.shape)
        batch.used[part] = answer.used
        if batch.drawn is not None and answer.drawn is not None:
            batch.drawn.put(part, answer.drawn)
        self.views.found_whole[answer.used[answer.known.whole]] = True
        self.views.known_bad.update(answer.known.bad)
        scans.add(answer.known.scans)
        return answer.wrong

    def _bad_from(self, order: Int64[np.ndarray, " n"]) -> dict[int, str]:
        """Return why which images cannot be used of those that come up first."""
        bad: dict[int, str] = {}
        for start in order.tolist():
            index = start
            while index not in bad and index in self.views.known_bad:
                bad[index] = self.views.known_bad[index]
                index = (index + 1) % len(self.views.images)
        return bad


@dataclass(frozen=True, slots=True)
class _Work:
    """What a process does; between two parts it keeps nothing in mind."""

    images: LabelledImages
    config: DataConfig
    augment: AugmentConfig
    most_bad: int
    seed: int

    def __call__(self, memory: Memory, part: _Part) -> _Filled:
        can_cut()  # A process has nothing else to do meanwhile.
        count, size = len(part.order), part.settings.image_size
        plan = TrainPlan(
            step=part.step,
            settings=part.settings,
            seed=self.seed,
            first_sample=part.first_sample,
            order=part.order,
            pixels=memory[: count * size**2 * _CHANNELS].reshape(count, size, size, _CHANNELS),
            used=np.empty(count, np.int64),
            drawn=DrawnViews.empty(count, self.augment) if self.augment.place == "device" else None,
        )
        views = Views(
            images=self.images,
            config=self.config,
            augment=self.augment,
            most_bad=self.most_bad,
            # Only what is written to takes room, however many images there are.
            found_whole=np.zeros(len(self.images), dtype=bool),
            scans=ScanMemory(part.most_scan_bytes, part.known.scans),
            known_bad=dict(part.known.bad),
        )
        views.found_whole[part.order] = part.known.whole
        wrong = views.fill(plan, range(count))
        bad = {index: views.known_bad[index] for index in wrong if index in views.known_bad}
        scans = views.scans.of_images(plan.used.tolist(), beyond=part.known.scans)
        return _Filled(plan.used, plan.drawn, wrong, _Known(views.found_whole[plan.used], bad, scans))
