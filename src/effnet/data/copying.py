"""Making copies of many images in threads or processes, and predicting what it takes.

Nothing is written here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from effnet.config import WorkerChoice
from effnet.data.bad_images import bad_reason
from effnet.data.copies import Copies, CopySettings, make_copies
from effnet.data.images import LabelledImages
from effnet.data.pillow import BadImageError
from effnet.data.process_filling import pack_work, why_not_sendable
from effnet.data.store import SplitName
from effnet.data.threads import chunks, run_ahead, thread_count
from effnet.data.worker_processes import (
    FEWEST_IMAGES,
    FEWEST_PROCESSES,
    Memory,
    WorkerProcesses,
)
from effnet.errors import UserError

_IMAGES_AHEAD = 64
"""That the threads are given at a time."""
_EXPECTED_IMAGES = 8192
"""How far ahead a source that fetches images in blocks is told what will be read."""
_Asked: TypeAlias = tuple[SplitName, Sequence[int]]
_SAMPLE_RUNS, _SAMPLE_RUN = 8, 16
"""Images tried for a prediction: so many runs of so many, for neighbours may have to be fetched together."""


class Copier(NamedTuple):
    """Makes copies of images; see `copier`."""

    splits: Mapping[SplitName, LabelledImages]
    make: Callable[[SplitName, Sequence[int]], list[Copies | str]]
    """Makes those of some images of a split, or says why they cannot be read; several threads may ask."""
    workers: int
    """Threads that ask; 0: one for each processor."""


@contextmanager
def copier(
    splits: Mapping[SplitName, LabelledImages],
    settings: CopySettings,
    *,
    workers: int,
    worker_kind: WorkerChoice,
) -> Iterator[Copier]:
    """Return who makes copies, for the length of a ``with`` block.

    Args:
        splits: The originals.
        settings: Copies to make.
        workers: Threads; 0: one for each processor.
        worker_kind: Whether each of them has a process; ``auto``: where that pays and the images can be sent.

    Raises:
        UserError: Processes cannot read these images.
    """
    count = thread_count(workers)
    if worker_kind == "auto":
        pays = count >= FEWEST_PROCESSES and sum(map(len, splits.values())) >= FEWEST_IMAGES
        is_sendable = pays and not any(map(why_not_sendable, splits.values()))
        worker_kind = "processes" if is_sendable else "threads"
    if worker_kind == "threads":
        yield Copier(splits, partial(_make_some, splits, settings), workers)
        return
    work = pack_work(_Work(splits, settings), splits.values(), "--worker-kind")
    processes = WorkerProcesses[_Asked, list[Copies | str]](work, count, 0)
    try:
        processes.wait_until_ready()  # Or a prediction would count that, too.
        yield Copier(splits, partial(_make_elsewhere, processes), workers)
    finally:
        processes.close()


def copy_images(
    copier: Copier, split: SplitName, indices: Sequence[int]
) -> Generator[Copies | str, None, None]:
    """Make the copies of images.

    Args:
        copier: Makes them.
        split: Which originals.
        indices: Which of them.

    Yields:
        The copies of each image, or why it cannot be read, in order. Closing the generator stops its threads.
    """
    images = copier.splits[split]

    def plan() -> Iterator[tuple[None, list[Callable[[], list[Copies | str]]]]]:
        for start in range(0, len(indices), _IMAGES_AHEAD):
            if images.expect is not None:
                images.expect(np.array(indices[start : start + _EXPECTED_IMAGES], np.int64))
            batch = indices[start : start + _IMAGES_AHEAD]
            yield (
                None,
                [
                    partial(copier.make, split, batch[rows.start : rows.stop])
                    for rows in chunks(len(batch), copier.workers)
                ],
            )

    with closing(run_ahead(plan(), copier.workers)) as results:
        for _, made in results:
            yield from chain.from_iterable(made)


def _make_some(
    splits: Mapping[SplitName, LabelledImages],
    settings: CopySettings,
    split: SplitName,
    indices: Sequence[int],
) -> list[Copies | str]:
    made: list[Copies | str] = []
    for index in indices:
        try:
            made.append(make_copies(splits[split].read(index), settings))
        except (BadImageError, OSError) as error:
            made.append(bad_reason(error))
    return made


def _make_elsewhere(
    processes: WorkerProcesses[_Asked, list[Copies | str]], split: SplitName, indices: Sequence[int]
) -> list[Copies | str]:
    with processes.idle() as worker:
        return worker.ask((split, indices))


@dataclass(frozen=True, slots=True)
class _Work:
    """What a process does; copies are small enough to be sent."""

    splits: Mapping[SplitName, LabelledImages]
    settings: CopySettings

    def __call__(self, memory: Memory, asked: _Asked) -> list[Copies | str]:
        return _make_some(self.splits, self.settings, *asked)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What preparing takes from beginning to end, judged by some of the images."""

    images: int
    level_bytes: dict[int, int]
    """By short side."""
    seconds: float

    @property
    def bytes(self) -> int:
        """Of the whole store."""
        return sum(self.level_bytes.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction under its names."""
        return asdict(self) | {"bytes": self.bytes}


def predict(copier: Copier, settings: CopySettings) -> Prediction:
    """Predict a store's size and the time that it takes to prepare, by copies of some images of every split.

    Args:
        copier: Makes the copies.
        settings: Copies to make.

    Raises:
        UserError: None of the images that were tried can be read.
    """
    total = sum(map(len, copier.splits.values()))
    seconds, sizes = 0.0, np.zeros(len(settings.short_sides))
    for split, images in copier.splits.items():
        tried = sample_of(images)
        started = time.perf_counter()
        made = list(copy_images(copier, split, tried))
        factor = len(images) / len(made)
        seconds += factor * (time.perf_counter() - started)
        for copies in made:
            if isinstance(copies, Copies):
                sizes += [factor * len(file or b"") for file in copies.files]
    if not sizes.any():
        raise UserError("none of the images that were tried can be read")
    by_side = dict(zip(settings.short_sides, sizes.astype(int).tolist(), strict=True))
    return Prediction(images=total, level_bytes=by_side, seconds=seconds)


def sample_of(images: LabelledImages) -> list[int]:
    """Return some images by which a prediction judges all."""
    starts = np.linspace(0, max(len(images) - _SAMPLE_RUN, 0), _SAMPLE_RUNS).astype(int)
    return sorted({i for start in starts for i in range(start, min(start + _SAMPLE_RUN, len(images)))})
