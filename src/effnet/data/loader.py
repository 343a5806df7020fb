"""Batches of pixels, prepared by threads or processes ahead of their use and equal however many there are.

Every random number is a function of the run's seed and of a sample's number in the run, so that neither these
nor the place where a run is resumed change a batch.
Dimension key: N images, S side, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from effnet.arch.preprocessing import Preprocessing
from effnet.config import AugmentConfig, DataConfig
from effnet.data.bad_images import BadImage, bad_images, too_many_bad
from effnet.data.drawn_views import DrawnViews
from effnet.data.eval_reading import EvalView, Read, eval_reader
from effnet.data.filling import TrainPlan, Views
from effnet.data.images import LabelledImages
from effnet.data.jpeg_scan import ScanMemory
from effnet.data.process_filling import Fill, filler
from effnet.data.threads import chunks, run_ahead
from effnet.data.worker_processes import WorkerKind
from effnet.schedule.progressive import StageSchedule, StageSettings


class Share(NamedTuple):
    """Which part of every batch is this process's."""

    rank: int = 0
    """This process, from 0."""
    processes: int = 1
    """How many share each batch."""

    def of(self, images: int) -> range:
        """Return its part of some images; the parts of all processes differ by at most one image."""
        return range(self.rank * images // self.processes, (self.rank + 1) * images // self.processes)


ALONE = Share()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """What one step trains on."""

    images: UInt8[Tensor, "N S S 3"]
    labels: Int64[Tensor, "N ..."]
    """One an image, or several in a row that is filled up with -1."""
    settings: StageSettings
    step: int
    drawn: DrawnViews | None
    """What is still to be done to the images, on the device; None where it has been done."""
    bad: tuple[BadImage, ...]
    """Images that had to be replaced in this batch and in no batch before it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EvalBatch:
    """Consecutive images for evaluation, without those that could not be read; perhaps none."""

    images: UInt8[Tensor, "N S S 3"]
    labels: Int64[Tensor, "N ..."]
    """As of `Batch`."""
    indices: Int64[Tensor, " N"]
    """Places of the images among all that are evaluated."""
    bad: tuple[BadImage, ...]


class _Planned(NamedTuple):
    """A batch while its pixels are filled in."""

    plan: TrainPlan
    images: UInt8[Tensor, "N S S 3"]
    """The memory of the plan's pixels."""


def train_batches(
    images: LabelledImages,
    schedule: StageSchedule,
    data: DataConfig,
    augment: AugmentConfig,
    *,
    seed: int,
    start_step: int = 0,
    share: Share = ALONE,
) -> Generator[Batch, None, None]:
    """Yield the batch of every step from ``start_step`` to the end of the run.

    Sample ``p`` of the run is element ``p % n`` of a permutation that is drawn for epoch ``p // n``: each
    image is used exactly once an epoch, and batches cross the epochs' borders; see `sample_order` for
    repeated augmentation. An image that cannot be read is replaced by the next readable one in the order of
    the data.

    Args:
        images: The training images.
        schedule: Batch size, image size and strengths of each step.
        data: Crops, threads or processes, and how many images may be bad.
        augment: What is done behind the crop, and how many views an image gives.
        seed: Of the order and of all augmentation.
        start_step: The first step to yield; its batch is the same as in a run from step 0.
        share: Of several processes, each gets consecutive samples of every batch; together they are the
            batch that one process would get.

    Yields:
        Batches. Closing the generator stops its threads and processes.

    Raises:
        UserError: More than ``data.max_bad_fraction`` of the images cannot be read; or ``data.worker_kind``
            is ``processes``, which cannot read these images.
        WorkerError: A thread or a process died of something that was not expected.
    """
    most_bad = min(int(data.max_bad_fraction * len(images)), len(images) - 1)
    views = Views(
        images=images,
        config=data,
        augment=augment,
        most_bad=most_bad,
        found_whole=np.zeros(len(images), dtype=bool),
        scans=ScanMemory(int(data.jpeg_index_gigabytes * 1e9)),
    )
    reasons: dict[int, str] = {}

    def plan(fill: Fill) -> Iterator[tuple[_Planned, list[Callable[[], dict[int, str]]]]]:
        for step in range(start_step, schedule.total_steps):
            settings = schedule.at(step)
            own = share.of(settings.batch_size)
            first = schedule.samples_before(step) + own.start
            samples = range(first, first + len(own))
            memory = _batch_memory(len(own), settings.image_size)
            batch = TrainPlan.of(
                images, settings, augment, step=step, seed=seed, samples=samples, pixels=memory.numpy()
            )
            calls: list[Callable[[], dict[int, str]]] = [
                partial(fill, batch, rows) for rows in chunks(len(batch.order), data.workers)
            ]
            yield _Planned(batch, memory), calls

    with (
        filler(views, data, seed=seed, largest_size=schedule.largest_size) as fill,
        closing(run_ahead(plan(fill), data.workers)) as filled,
    ):
        for (batch, memory), results in filled:
            found = {index: reason for result in results for index, reason in result.items()}
            new = {index: reason for index, reason in sorted(found.items()) if index not in reasons}
            reasons |= new
            if len(reasons) > most_bad:
                raise too_many_bad(images, reasons, data)
            yield Batch(
                images=memory,
                labels=torch.from_numpy(images.labels_at(batch.used)),
                settings=batch.settings,
                step=batch.step,
                drawn=batch.drawn,
                bad=bad_images(images, new),
            )


def eval_batches(
    images: LabelledImages,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    workers: int = 0,
    worker_kind: WorkerKind = "threads",
    share: Share = ALONE,
) -> Generator[EvalBatch, None, None]:
    """Yield each readable image exactly once, in order.

    Args:
        images: The images.
        preprocessing: Size, crop and interpolation.
        batch_size: Batch ``b`` has the images from ``b * batch_size`` on.
        workers: Threads; 0: one for each processor.
        worker_kind: Whether each thread has a process to do its work. To start these takes some tenths of a
            second, and more where images are resized with a filter that widens, as that is torch's.
        share: Of several processes, each gets consecutive batches, the same ones that one process would get:
            what is computed for an image does not depend on their number.

    Raises:
        UserError: Processes cannot read these images.
        WorkerError: A thread or a process died of something that was not expected.
    """

    def plan(read: Read) -> Iterator[tuple[range, list[Callable[[], list[EvalView]]]]]:
        for number in share.of(-(-len(images) // batch_size)):
            batch = range(number * batch_size, min((number + 1) * batch_size, len(images)))
            yield (
                batch,
                [partial(read, batch[rows.start : rows.stop]) for rows in chunks(len(batch), workers)],
            )

    size = preprocessing.image_size
    with (
        eval_reader(images, preprocessing, workers=workers, worker_kind=worker_kind) as read,
        closing(run_ahead(plan(read), workers)) as done,
    ):
        for batch, results in done:
            views = dict(zip(batch, (view for result in results for view in result), strict=True))
            good = {index: view for index, view in views.items() if not isinstance(view, str)}
            bad = {index: view for index, view in views.items() if isinstance(view, str)}
            pixels = np.stack(list(good.values())) if good else np.empty((0, size, size, 3), np.uint8)
            indices = np.array(list(good), np.int64)
            yield EvalBatch(
                images=torch.from_numpy(pixels),
                labels=torch.from_numpy(images.labels_at(indices)),
                indices=torch.from_numpy(indices),
                bad=bad_images(images, bad),
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
    if device.type == "cuda" and images.device.type == "cpu" and not images.is_pinned():
        images = images.pin_memory()
    pixels = images.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    mean = torch.tensor(preprocessing.mean, device=device)[:, None, None]
    std = torch.tensor(preprocessing.std, device=device)[:, None, None]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return pixels.sub_(255 * mean).div_(255 * std).to(dtype).contiguous(memory_format=layout)


def _batch_memory(count: int, size: int) -> UInt8[Tensor, "N S S 3"]:
    # Pinned memory of batches that are done with is used again by torch itself.
    return torch.empty((count, size, size, 3), dtype=torch.uint8, pin_memory=torch.cuda.is_available())
