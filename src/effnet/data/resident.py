"""Training images that are kept on the device as pixels: crops are cut out and resized there, in batches.

For sets that are small, and whose images have one size, such as CIFAR. What is drawn for a sample is what
`effnet.data.loader` draws for it, unless ``data.resident_draws`` is ``batch``, and the views are the same up
to the rounding of `device_resize`.
Dimension key: N images, M in a batch, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from effnet.config import AugmentConfig, DataConfig
from effnet.data.augment import draw_view
from effnet.data.bad_images import BadImage, bad_images, bad_reason, too_many_bad
from effnet.data.batch_draws import draw_batch
from effnet.data.crops import draw_crop
from effnet.data.decode import decode_image
from effnet.data.device_augment import moved
from effnet.data.device_resize import resize_crops
from effnet.data.drawn_views import DrawnViews
from effnet.data.failures import named_failures
from effnet.data.images import LabelledImages, Pyramid
from effnet.data.loader import ALONE, Batch, Share
from effnet.data.order import sample_order, sample_random, step_random
from effnet.data.pillow import BadImageError
from effnet.data.threads import chunks, run_ahead
from effnet.errors import UserError
from effnet.schedule.progressive import StageSchedule, StageSettings

_IMAGES_AHEAD = 256


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ResidentImages:
    """All training images on a device."""

    pixels: UInt8[Tensor, "N H W 3"]
    """RGB. Where an image cannot be read, the next one that can."""
    labels: Int64[np.ndarray, "N ..."]
    """Of the pixels; as of `Batch`."""
    blocks: tuple[int, ...]
    """As of the images, for their order."""
    height: int
    """In which crops are drawn, in pixels: the original's, of which a prepared store may have less."""
    width: int
    bad: tuple[BadImage, ...]
    """Images that cannot be read."""


class _Decoded(NamedTuple):
    pixels: UInt8[np.ndarray, "H W 3"]
    height: int
    """Of the original."""
    width: int


def load_resident(images: LabelledImages, config: DataConfig, device: torch.device) -> ResidentImages:
    """Decode all training images and put them on a device. What is damaged is replaced, never repaired.

    Args:
        images: Of one size.
        config: Threads, and how many images may be bad.
        device: Where to.

    Raises:
        UserError: The images differ in size, the device has no room for them, or too many cannot be read.
    """
    reasons: dict[int, str] = {}
    first: _Decoded | None = None
    pixels = np.empty((0, 0, 0, 3), np.uint8)
    with closing(_decode_all(images, config.workers)) as decoded:
        for index, image in enumerate(decoded):
            if isinstance(image, str):
                reasons[index] = image
                continue
            if first is None:
                first = image
                pixels = np.empty((len(images), *image.pixels.shape), np.uint8)
            _check_size(images.names[index], image, first)
            pixels[index] = image.pixels
    if first is None or len(reasons) > int(config.max_bad_fraction * len(images)):
        raise too_many_bad(images, reasons, config)
    bad = np.array(list(reasons), np.int64)
    good = np.setdiff1d(np.arange(len(images)), bad)
    source = np.arange(len(images))
    source[bad] = good[np.searchsorted(good, bad) % len(good)]
    pixels[bad] = pixels[source[bad]]
    return ResidentImages(
        pixels=_placed(pixels, device),
        labels=images.labels_at(source),
        blocks=images.blocks,
        height=first.height,
        width=first.width,
        bad=bad_images(images, reasons),
    )


def resident_batches(
    resident: ResidentImages,
    schedule: StageSchedule,
    data: DataConfig,
    augment: AugmentConfig,
    *,
    seed: int,
    start_step: int = 0,
    share: Share = ALONE,
) -> Generator[Batch, None, None]:
    """Yield the batch of every step, as `effnet.data.loader.train_batches` does from files.

    Args:
        resident: The training images.
        schedule: As there, and so are the others.
        data: Crops, and threads that draw them.
        augment: Always left to the device.
        seed: Of the order and of all that is drawn.
        start_step: The first step to yield.
        share: Which part of every batch is this process's.

    Yields:
        Batches with their crops on the device, and what is still to be done to them there. All images that
        cannot be read are reported in the first one.
    """
    draws = _Draws(resident=resident, config=data, augment=augment, seed=seed)

    def plan() -> Iterator[tuple[_ResidentPlan, list[Callable[[], None]]]]:
        for step in range(start_step, schedule.total_steps):
            batch = _ResidentPlan.of(resident, schedule, step, seed, share, augment=augment)
            if data.resident_draws == "batch":
                yield batch, [partial(draws.fill_at_once, batch, share)]
            else:
                rows = chunks(len(batch.order), data.workers)
                yield batch, [partial(draws.fill, batch, some) for some in rows]

    bad = resident.bad
    with closing(run_ahead(plan(), data.workers)) as drawn:
        for batch, _ in drawn:
            device = resident.pixels.device
            images = resize_crops(
                resident.pixels.index_select(0, moved(batch.order, device)),
                moved(batch.boxes, device),
                batch.settings.image_size,
                interpolation=data.interpolation,
                antialias=data.antialias,
            )
            yield Batch(
                images=images,
                labels=torch.from_numpy(resident.labels[batch.order]),
                settings=batch.settings,
                step=batch.step,
                drawn=batch.drawn,
                bad=bad,
            )
            bad = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _ResidentPlan:
    """A batch before and while it is drawn."""

    step: int
    settings: StageSettings
    first_sample: int
    order: Int64[np.ndarray, " M"]
    boxes: Int64[np.ndarray, "M 4"]
    """Top, left, height and width of the crops, in pixels."""
    drawn: DrawnViews

    @classmethod
    def of(
        cls,
        resident: ResidentImages,
        schedule: StageSchedule,
        step: int,
        seed: int,
        share: Share,
        *,
        augment: AugmentConfig,
    ) -> _ResidentPlan:
        settings = schedule.at(step)
        own = share.of(settings.batch_size)
        first = schedule.samples_before(step) + own.start
        images = len(resident.labels)
        return cls(
            step=step,
            settings=settings,
            first_sample=first,
            order=sample_order(
                seed,
                first,
                first + len(own),
                images=images,
                blocks=resident.blocks,
                repeats=augment.repeats,
            ),
            boxes=np.empty((len(own), 4), np.int64),
            drawn=DrawnViews.empty(len(own), augment),
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Draws:
    """How a run looks at its images."""

    resident: ResidentImages
    config: DataConfig
    augment: AugmentConfig
    seed: int

    def fill_at_once(self, batch: _ResidentPlan, share: Share) -> None:
        """Draw all rows of a batch together: of the whole step's, those of this process."""
        whole = draw_batch(
            batch.settings,
            self.resident.height,
            self.resident.width,
            data=self.config,
            augment=self.augment,
            rng=step_random(self.seed, batch.step),
        )
        own = share.of(batch.settings.batch_size)
        rows = slice(own.start, own.stop)
        batch.boxes[:] = whole.boxes(*self.resident.pixels.shape[1:3])[rows]
        batch.drawn.take(whole.views, rows)

    def fill(self, batch: _ResidentPlan, rows: range) -> None:
        """Draw some rows of a batch."""
        height, width = self.resident.pixels.shape[1:3]
        for row in rows:
            rng = sample_random(self.seed, batch.first_sample + row)
            crop = draw_crop(self.resident.height, self.resident.width, self.config, rng)
            scaled = crop.scaled(width / self.resident.width, height / self.resident.height)
            tall, wide = scaled.rounded(height, width)
            batch.boxes[row] = tall.start, wide.start, tall.stop - tall.start, wide.stop - wide.start
            view = draw_view(batch.settings, flip=self.config.flip, augment=self.augment, rng=rng)
            batch.drawn.note(row, view)


def _decode_all(images: LabelledImages, workers: int) -> Generator[_Decoded | str, None, None]:
    """Yield each image, or why it cannot be read."""

    def plan() -> Iterator[tuple[None, list[Callable[[], list[_Decoded | str]]]]]:
        for start in range(0, len(images), _IMAGES_AHEAD):
            some = range(start, min(start + _IMAGES_AHEAD, len(images)))
            rows = chunks(len(some), workers)
            yield None, [partial(_decode_some, images, some[part.start : part.stop]) for part in rows]

    with closing(run_ahead(plan(), workers)) as done:
        for _, results in done:
            for decoded in results:
                yield from decoded


def _decode_some(images: LabelledImages, indices: range) -> list[_Decoded | str]:
    decoded: list[_Decoded | str] = []
    for index in indices:
        try:
            with named_failures(images.names[index]):
                encoded = images.read(index)
                pixels = decode_image(encoded)
        except (BadImageError, OSError) as error:
            decoded.append(bad_reason(error))
        else:
            original = encoded if isinstance(encoded, Pyramid) else None
            height, width = (original.height, original.width) if original else pixels.shape[:2]
            decoded.append(_Decoded(pixels, height, width))
    return decoded


def _check_size(name: str, image: _Decoded, first: _Decoded) -> None:
    if (image.height, image.width, image.pixels.shape) != (first.height, first.width, first.pixels.shape):
        raise UserError(
            f"data.resident needs images of one size, but {name} has {image.width} x {image.height} pixels "
            f"and others {first.width} x {first.height}; set data.resident=false"
        )


def _placed(pixels: UInt8[np.ndarray, "N H W 3"], device: torch.device) -> UInt8[Tensor, "N H W 3"]:
    try:
        return torch.from_numpy(pixels).to(device)
    except torch.OutOfMemoryError:
        raise UserError(
            f"the training images take {pixels.nbytes / 1e9:.1f} GB, for which {device} has no room; set "
            "data.resident=false"
        ) from None
