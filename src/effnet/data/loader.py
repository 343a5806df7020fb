"""Batches of pixels, prepared by threads ahead of their use and equal however many threads there are.

Every random number is a function of the run's seed and of a sample's number in the run, so that neither the
threads nor the place where a run is resumed change a batch.
Dimension key: N images, S side, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from effnet.arch.preprocessing import Preprocessing
from effnet.config import AugmentConfig, DataConfig
from effnet.data.device_augment import DrawnViews
from effnet.data.failures import named_failures
from effnet.data.images import Encoded, LabelledImages
from effnet.data.order import sample_order, sample_random
from effnet.data.pillow import BadImageError, TruncatedImageError
from effnet.data.repair import repair_image
from effnet.data.threads import chunks, run_ahead
from effnet.data.transforms import eval_image, train_crop, train_image
from effnet.errors import UserError
from effnet.schedule.progressive import StageSchedule, StageSettings

EXPECTED_SAMPLES = 8192
"""How far ahead a source that fetches images in blocks is told what will be read."""

EXAMPLES = 5
"""How many bad images the message names that ends a run."""

_Pixels: TypeAlias = UInt8[np.ndarray, "S S 3"]


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


@dataclass(frozen=True, slots=True)
class BadImage:
    """An image that could not be used."""

    name: str
    reason: str


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
    bad: tuple[BadImage, ...]


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
        data: Crops, threads, and how many images may be bad.
        augment: What is done behind the crop, and how many views an image gives.
        seed: Of the order and of all augmentation.
        start_step: The first step to yield; its batch is the same as in a run from step 0.
        share: Of several processes, each gets consecutive samples of every batch; together they are the
            batch that one process would get.

    Yields:
        Batches. Closing the generator stops its threads.

    Raises:
        UserError: More than ``data.max_bad_fraction`` of the images cannot be read.
        WorkerError: A thread died of something that was not expected.
    """
    most_bad = min(int(data.max_bad_fraction * len(images)), len(images) - 1)
    views = _Views(
        images=images,
        config=data,
        augment=augment,
        most_bad=most_bad,
        found_whole=np.zeros(len(images), dtype=bool),
    )
    reasons: dict[int, str] = {}

    def plan() -> Iterator[tuple[_TrainPlan, list[Callable[[], dict[int, str]]]]]:
        for step in range(start_step, schedule.total_steps):
            batch = _TrainPlan.of(images, schedule, step, seed, share, augment=augment)
            calls: list[Callable[[], dict[int, str]]] = [
                partial(views.fill, batch, rows) for rows in chunks(len(batch.order), data.workers)
            ]
            yield batch, calls

    with closing(run_ahead(plan(), data.workers)) as filled:
        for batch, results in filled:
            found = {index: reason for result in results for index, reason in result.items()}
            new = {index: reason for index, reason in sorted(found.items()) if index not in reasons}
            reasons |= new
            if len(reasons) > most_bad:
                raise too_many_bad(images, reasons, data)
            yield Batch(
                images=batch.images,
                labels=torch.from_numpy(images.labels_at(batch.used)),
                settings=batch.settings,
                step=batch.step,
                drawn=batch.drawn,
                bad=_reports(images, new),
            )


def eval_batches(
    images: LabelledImages,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    workers: int = 0,
    share: Share = ALONE,
) -> Generator[EvalBatch, None, None]:
    """Yield each readable image exactly once, in order.

    Args:
        images: The images.
        preprocessing: Size, crop and interpolation.
        batch_size: Batch ``b`` has the images from ``b * batch_size`` on.
        workers: Threads; 0: one for each processor.
        share: Of several processes, each gets consecutive images, so that each image is in one of them.
    """

    def plan() -> Iterator[tuple[range, list[Callable[[], list[_Pixels | str]]]]]:
        own = share.of(len(images))
        for start in range(own.start, own.stop, batch_size):
            batch = range(start, min(start + batch_size, own.stop))
            yield (
                batch,
                [
                    partial(_read_eval, batch[rows.start : rows.stop], images, preprocessing)
                    for rows in chunks(len(batch), workers)
                ],
            )

    size = preprocessing.image_size
    with closing(run_ahead(plan(), workers)) as done:
        for batch, results in done:
            views = dict(zip(batch, (view for result in results for view in result), strict=True))
            good = {index: view for index, view in views.items() if not isinstance(view, str)}
            bad = {index: view for index, view in views.items() if isinstance(view, str)}
            pixels = np.stack(list(good.values())) if good else np.empty((0, size, size, 3), np.uint8)
            yield EvalBatch(
                images=torch.from_numpy(pixels),
                labels=torch.from_numpy(images.labels_at(np.array(list(good), np.int64))),
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
    if device.type == "cuda" and images.device.type == "cpu" and not images.is_pinned():
        images = images.pin_memory()
    pixels = images.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    mean = torch.tensor(preprocessing.mean, device=device)[:, None, None]
    std = torch.tensor(preprocessing.std, device=device)[:, None, None]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return pixels.sub_(255 * mean).div_(255 * std).to(dtype).contiguous(memory_format=layout)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _TrainPlan:
    """A training batch before and while its pixels are filled in."""

    step: int
    settings: StageSettings
    seed: int
    first_sample: int
    order: Int64[np.ndarray, " N"]
    images: UInt8[Tensor, "N S S 3"]
    pixels: UInt8[np.ndarray, "N S S 3"]
    """The same memory as ``images``."""
    used: Int64[np.ndarray, " N"]
    """Which image is in which row, once it is filled: those of ``order``, or what replaces them."""
    drawn: DrawnViews | None

    @classmethod
    def of(
        cls,
        images: LabelledImages,
        schedule: StageSchedule,
        step: int,
        seed: int,
        share: Share,
        *,
        augment: AugmentConfig,
    ) -> _TrainPlan:
        settings = schedule.at(step)
        own = share.of(settings.batch_size)
        count, size = len(own), settings.image_size
        first = schedule.samples_before(step) + own.start
        if images.expect is not None:
            soon = sample_order(
                seed,
                first,
                first + min(EXPECTED_SAMPLES, len(images)),
                images=len(images),
                blocks=images.blocks,
                repeats=augment.repeats,
            )
            images.expect(soon)
        # Pinned memory of batches that are done with is used again by torch itself.
        memory = torch.empty((count, size, size, 3), dtype=torch.uint8, pin_memory=torch.cuda.is_available())
        return cls(
            step=step,
            settings=settings,
            seed=seed,
            first_sample=first,
            order=sample_order(
                seed,
                first,
                first + count,
                images=len(images),
                blocks=images.blocks,
                repeats=augment.repeats,
            ),
            images=memory,
            pixels=memory.numpy(),
            used=np.empty(count, np.int64),
            drawn=DrawnViews.empty(count, augment) if augment.place == "device" else None,
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Views:
    """How a run looks at its images."""

    images: LabelledImages
    config: DataConfig
    augment: AugmentConfig
    most_bad: int
    found_whole: Bool[np.ndarray, " N"]
    """Which images were decoded without an error, by any thread."""
    known_bad: dict[int, str] = field(default_factory=dict)
    """Which images cannot be used, and why, found by any thread; none of them is tried again."""

    def fill(self, batch: _TrainPlan, rows: range) -> dict[int, str]:
        """Fill some rows of a batch; return what is wrong with which images that came up."""
        wrong: dict[int, str] = {}
        for row in rows:
            index = int(batch.order[row])
            while not self._fill_row(batch, row, index, wrong):
                if len(wrong) > self.most_bad:
                    raise too_many_bad(self.images, wrong, self.config)
                index = (index + 1) % len(self.images)
            batch.used[row] = index
        return wrong

    def _fill_row(self, batch: _TrainPlan, row: int, index: int, wrong: dict[int, str]) -> bool:
        """Fill a row, unless the image cannot be used; note what is wrong with it."""
        if index not in self.known_bad:
            try:
                with named_failures(self.images.names[index]):
                    damage = self._look(batch, row, index)
            except (BadImageError, OSError) as error:
                self.known_bad[index] = bad_reason(error)
            else:
                wrong |= {index: damage} if damage else {}
                return True
        wrong[index] = self.known_bad[index]
        return False

    def _look(self, batch: _TrainPlan, row: int, index: int) -> str | None:
        """Fill a row; return what was repaired, if anything."""
        encoded = self.images.read(index)
        try:
            self._draw(batch, row, encoded, is_whole=bool(self.found_whole[index]))
        except TruncatedImageError as error:
            if self.config.damaged == "skip" or not isinstance(encoded, bytes):
                raise
            repaired = repair_image(encoded, error.reason)
            self._draw(batch, row, repaired.pixels)
            return repaired.reason
        self.found_whole[index] = True
        return None

    def _draw(self, batch: _TrainPlan, row: int, encoded: Encoded, *, is_whole: bool = False) -> None:
        settings, config, augment, out = batch.settings, self.config, self.augment, batch.pixels[row]
        rng = sample_random(batch.seed, batch.first_sample + row)
        if batch.drawn is None:
            train_image(
                encoded, settings, config=config, augment=augment, rng=rng, out=out, is_whole=is_whole
            )
        else:
            train_crop(encoded, config=config, rng=rng, out=out, is_whole=is_whole)
            batch.drawn.draw(row, settings, config=config, augment=augment, rng=rng)


def _read_eval(indices: range, images: LabelledImages, preprocessing: Preprocessing) -> list[_Pixels | str]:
    """Return each image's pixels, or why there are none; nothing is repaired that is scored."""
    views: list[_Pixels | str] = []
    for index in indices:
        try:
            with named_failures(images.names[index]):
                views.append(eval_image(images.read(index), preprocessing))
        except (BadImageError, OSError) as error:
            views.append(bad_reason(error))
    return views


def bad_reason(error: BadImageError | OSError) -> str:
    """Return why an image cannot be used, in a few words."""
    if isinstance(error, BadImageError):
        return error.reason
    return error.strerror or str(error)


def _reports(images: LabelledImages, reasons: dict[int, str]) -> tuple[BadImage, ...]:
    return tuple(BadImage(images.names[index], reason) for index, reason in reasons.items())


def too_many_bad(images: LabelledImages, reasons: dict[int, str], config: DataConfig) -> UserError:
    """Return what ends a run of which too many images, by their indices, cannot be used."""
    listed = [f"{images.names[index]}: {reason}" for index, reason in list(reasons.items())[:EXAMPLES]]
    if len(reasons) > EXAMPLES:
        listed.append(f"and {len(reasons) - EXAMPLES} more")
    return UserError(
        f"{len(reasons)} of {len(images)} training images cannot be read ({len(reasons) / len(images):.1%}), "
        f"more than data.max_bad_fraction = {config.max_bad_fraction:g} allows: {'; '.join(listed)}; mend or "
        f"remove them ('effnet data check {config.source}' finds all), or allow more"
    )
