"""Batches of pixels, prepared by threads ahead of their use and equal however many threads there are.

Every random number is a function of the run's seed and of a sample's number in the run, so that neither the
threads nor the place where a run is resumed change a batch.
Dimension key: N images, S side, C channels.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from effnet.arch.preprocessing import Preprocessing
from effnet.config import AugmentConfig, DataConfig
from effnet.data.decode import BadImageError
from effnet.data.sources import LabelledImages
from effnet.data.transforms import eval_image, train_image
from effnet.errors import UserError
from effnet.schedule.progressive import StageSchedule, StageSettings

BATCHES_AHEAD = 4
CHUNK = 16
"""Most images that a thread prepares in one go; small enough for the threads to stop promptly."""

_ORDER_STREAM, _SAMPLE_STREAM = 0, 1
_T = TypeVar("_T")
_R = TypeVar("_R")
_Pixels: TypeAlias = UInt8[np.ndarray, "S S 3"]


@dataclass(frozen=True, slots=True)
class BadImage:
    """An image that could not be used."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """What one step trains on."""

    images: UInt8[Tensor, "N S S 3"]
    labels: Int64[Tensor, " N"]
    settings: StageSettings
    step: int
    bad: tuple[BadImage, ...]
    """Images that had to be replaced in this batch and in no batch before it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EvalBatch:
    """Consecutive images for evaluation, without those that could not be read; perhaps none."""

    images: UInt8[Tensor, "N S S 3"]
    labels: Int64[Tensor, " N"]
    bad: tuple[BadImage, ...]


def train_batches(
    images: LabelledImages,
    schedule: StageSchedule,
    data: DataConfig,
    augment: AugmentConfig,
    *,
    seed: int,
    start_step: int = 0,
) -> Generator[Batch, None, None]:
    """Yield the batch of every step from ``start_step`` to the end of the run.

    Sample ``p`` of the run is element ``p % n`` of a permutation that is drawn for epoch ``p // n``: each
    image is used exactly once an epoch, and batches cross the epochs' borders. An image that cannot be
    read is replaced by the next readable one in the order of the data.

    Args:
        images: The training images.
        schedule: Batch size, image size and magnitude of each step.
        data: Crops, threads, and how many images may be bad.
        augment: RandAugment.
        seed: Of the order and of all augmentation.
        start_step: The first step to yield; its batch is the same as in a run from step 0.

    Yields:
        Batches. Closing the generator stops its threads.

    Raises:
        UserError: More than ``data.max_bad_fraction`` of the images cannot be read.
    """
    most_bad = min(int(data.max_bad_fraction * len(images)), len(images) - 1)
    reasons: dict[int, str] = {}

    def plan() -> Iterator[tuple[_TrainPlan, list[Callable[[], dict[int, str]]]]]:
        for step in range(start_step, schedule.total_steps):
            batch = _TrainPlan.of(images, schedule, step, seed)
            calls: list[Callable[[], dict[int, str]]] = [
                partial(_fill_train, batch, rows, images, data, augment, most_bad=most_bad)
                for rows in _chunks(len(batch.order), data.workers)
            ]
            yield batch, calls

    with closing(_run_ahead(plan(), data.workers)) as filled:
        for batch, results in filled:
            found = {index: reason for result in results for index, reason in result.items()}
            new = {index: reason for index, reason in sorted(found.items()) if index not in reasons}
            reasons |= new
            if len(reasons) > most_bad:
                raise _too_many_bad(images, reasons)
            yield Batch(
                images=torch.from_numpy(batch.pixels),
                labels=torch.from_numpy(batch.labels),
                settings=batch.settings,
                step=batch.step,
                bad=_reports(images, new),
            )


def eval_batches(
    images: LabelledImages, preprocessing: Preprocessing, *, batch_size: int, workers: int = 0
) -> Generator[EvalBatch, None, None]:
    """Yield each readable image exactly once, in order.

    Args:
        images: The images.
        preprocessing: Size, crop and interpolation.
        batch_size: Batch ``b`` has the images from ``b * batch_size`` on.
        workers: Threads; 0: one for each processor.
    """

    def plan() -> Iterator[tuple[range, list[Callable[[], list[_Pixels | str]]]]]:
        for start in range(0, len(images), batch_size):
            batch = range(start, min(start + batch_size, len(images)))
            yield (
                batch,
                [
                    partial(_read_eval, batch[rows.start : rows.stop], images, preprocessing)
                    for rows in _chunks(len(batch), workers)
                ],
            )

    size = preprocessing.image_size
    with closing(_run_ahead(plan(), workers)) as done:
        for batch, results in done:
            views = dict(zip(batch, (view for result in results for view in result), strict=True))
            good = {index: view for index, view in views.items() if not isinstance(view, str)}
            bad = {index: view for index, view in views.items() if isinstance(view, str)}
            pixels = np.stack(list(good.values())) if good else np.empty((0, size, size, 3), np.uint8)
            yield EvalBatch(
                images=torch.from_numpy(pixels),
                labels=torch.from_numpy(images.labels[list(good)]),
                bad=_reports(images, bad),
            )


def prepare_images(
    images: UInt8[Tensor, "N S S C"],
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
) -> Float[Tensor, "N C S S"]:
    """Move pixels to a device and normalise them there: ``(x / 255 - mean) / std``.

    Args:
        images: uint8, [0, 255].
        preprocessing: Mean and deviation of each channel.
        device: Where to; the copy to a GPU does not wait for the GPU.
        dtype: Of the result; the arithmetic is float32.
        channels_last: Memory layout of the result.
    """
    if device.type == "cuda" and images.device.type == "cpu":
        images = images.pin_memory()
    pixels = images.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    mean = torch.tensor(preprocessing.mean, device=device)[:, None, None]
    std = torch.tensor(preprocessing.std, device=device)[:, None, None]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return pixels.sub_(255 * mean).div_(255 * std).to(dtype).contiguous(memory_format=layout)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _TrainPlan:
    """A training batch before and while its pixels and labels are filled in."""

    step: int
    settings: StageSettings
    seed: int
    first_sample: int
    order: Int64[np.ndarray, " N"]
    pixels: UInt8[np.ndarray, "N S S 3"]
    labels: Int64[np.ndarray, " N"]

    @classmethod
    def of(cls, images: LabelledImages, schedule: StageSchedule, step: int, seed: int) -> _TrainPlan:
        settings, first = schedule.at(step), schedule.samples_before(step)
        count, size = settings.batch_size, settings.image_size
        epochs, places = np.divmod(np.arange(first, first + count), len(images))
        order = np.empty(count, np.int64)
        for epoch in np.unique(epochs):
            order[epochs == epoch] = _epoch_order(seed, int(epoch), len(images))[places[epochs == epoch]]
        return cls(
            step=step,
            settings=settings,
            seed=seed,
            first_sample=first,
            order=order,
            pixels=np.empty((count, size, size, 3), np.uint8),
            labels=np.empty(count, np.int64),
        )


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> Int64[np.ndarray, " n"]:
    return _random(seed, epoch, _ORDER_STREAM).permutation(count)


def _random(seed: int, number: int, stream: int) -> np.random.Generator:
    """Return the random numbers of one sample or epoch, which no other one shares."""
    key = np.array([seed % 2**64, number], np.uint64)
    return np.random.Generator(np.random.Philox(counter=[0, 0, 0, stream], key=key))


def _fill_train(
    batch: _TrainPlan,
    rows: range,
    images: LabelledImages,
    data: DataConfig,
    augment: AugmentConfig,
    *,
    most_bad: int,
) -> dict[int, str]:
    """Fill some rows of a batch; return why which images had to be replaced."""
    bad: dict[int, str] = {}
    for row in rows:
        index = int(batch.order[row])
        while True:
            view = bad.get(index) or _view(images, index, partial(_random_view, batch, row, data, augment))
            if not isinstance(view, str):
                break
            bad[index] = view
            if len(bad) > most_bad:
                raise _too_many_bad(images, bad)
            index = (index + 1) % len(images)
        batch.pixels[row], batch.labels[row] = view, images.labels[index]
    return bad


def _random_view(
    batch: _TrainPlan,
    row: int,
    data: DataConfig,
    augment: AugmentConfig,
    encoded: bytes | UInt8[np.ndarray, "H W 3"],
) -> _Pixels:
    rng = _random(batch.seed, batch.first_sample + row, _SAMPLE_STREAM)
    return train_image(encoded, batch.settings, data, augment, rng)


def _read_eval(indices: range, images: LabelledImages, preprocessing: Preprocessing) -> list[_Pixels | str]:
    def view(encoded: bytes | UInt8[np.ndarray, "H W 3"]) -> _Pixels:
        return eval_image(encoded, preprocessing)

    return [_view(images, index, view) for index in indices]


def _view(
    images: LabelledImages,
    index: int,
    transform: Callable[[bytes | UInt8[np.ndarray, "H W 3"]], _Pixels],
) -> _Pixels | str:
    """Return an image's pixels, or why there are none."""
    try:
        return transform(images.read(index))
    except BadImageError as error:
        return error.reason
    except OSError as error:
        return error.strerror or str(error)


def _reports(images: LabelledImages, reasons: dict[int, str]) -> tuple[BadImage, ...]:
    return tuple(BadImage(images.names[index], reason) for index, reason in reasons.items())


def _too_many_bad(images: LabelledImages, reasons: dict[int, str]) -> UserError:
    index, reason = next(iter(reasons.items()))
    return UserError(
        f"{len(reasons)} of {len(images)} training images cannot be read, more than data.max_bad_fraction "
        f"allows; the first is {images.names[index]}: {reason}"
    )


def _chunks(count: int, workers: int) -> list[range]:
    size = min(-(-count // _thread_count(workers)), CHUNK)
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _thread_count(workers: int) -> int:
    if hasattr(os, "sched_getaffinity"):
        return workers or len(os.sched_getaffinity(0))
    return workers or os.cpu_count() or 1


def _run_ahead(
    batches: Iterator[tuple[_T, Sequence[Callable[[], _R]]]], workers: int
) -> Generator[tuple[_T, list[_R]], None, None]:
    """Run each batch's calls in threads, a few batches ahead, and yield what they return, in order.

    What a call raises is raised here.
    """
    waiting: deque[tuple[_T, list[Future[_R]]]] = deque()
    pool = ThreadPoolExecutor(_thread_count(workers), thread_name_prefix="effnet-data")
    try:
        for batch, calls in batches:
            waiting.append((batch, [pool.submit(call) for call in calls]))
            if len(waiting) > BATCHES_AHEAD:
                yield _result(waiting)
        while waiting:
            yield _result(waiting)
    finally:
        pool.shutdown(cancel_futures=True)


def _result(waiting: deque[tuple[_T, list[Future[_R]]]]) -> tuple[_T, list[_R]]:
    batch, futures = waiting.popleft()
    return batch, [future.result() for future in futures]
