"""This project's own ways from photos to batches, and the least that any way with the same decoder costs.

Dimension key: N images, S side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import count
from typing import TypeAlias

import numpy as np
import simplejpeg
from jaxtyping import UInt8

from effnet.bench.measure import Pass
from effnet.bench.workload import (
    BATCH_SIZE,
    CROP_AREA,
    CROP_ASPECT,
    MAGNITUDE,
    OPERATIONS,
    Open,
    UnavailableError,
    Workload,
)
from effnet.config import AugmentConfig, DataConfig
from effnet.data.images import Encoded, LabelledImages, Pyramid
from effnet.data.loader import train_batches
from effnet.data.order import sample_random
from effnet.data.region import is_installed
from effnet.data.transforms import train_image
from effnet.schedule.progressive import StageSchedule, StageSettings

AS_RELEASED = DataConfig(workers=1, crop_area=CROP_AREA, crop_aspect=CROP_ASPECT)
"""The default configuration, but for the crops' area, which is every method's here."""
ANTIALIASED = replace(AS_RELEASED, antialias=True)
LIKE_TIMM = replace(AS_RELEASED, antialias=True, interpolation="bicubic")
Copy: TypeAlias = bytes | UInt8[np.ndarray, "H W 3"]
_SEED = 0


def images_alone(config: DataConfig, *, stored: bool = False, in_parts: bool = False) -> Open:
    """Return a method that makes batches of one image after the other, without the loader's threads.

    Args:
        config: How crops are drawn and resized.
        stored: Whether to read from the prepared store.
        in_parts: Whether to decode crops alone where that is worth it, as in every epoch but the first.
    """

    @contextmanager
    def open_method(workload: Workload) -> Iterator[Pass]:
        if in_parts:
            _check_parts()
        images, samples = _images(workload, stored), count()
        settings, augment = _settings(workload, len(images)), _augment(workload)

        def run() -> int:
            for start in range(0, len(images), BATCH_SIZE):
                rows = range(start, min(start + BATCH_SIZE, len(images)))
                batch = np.empty((len(rows), workload.size, workload.size, 3), np.uint8)
                for row, index in enumerate(rows):
                    train_image(
                        images.read(index),
                        settings,
                        config=config,
                        augment=augment,
                        rng=sample_random(_SEED, next(samples)),
                        out=batch[row],
                        is_whole=in_parts,
                    )
            return len(images)

        yield run

    return open_method


def whole_loader(config: DataConfig, *, stored: bool = False, epochs: int = 1) -> Open:
    """Return a method that takes batches from the loader, as a training run does.

    Args:
        config: How crops are drawn and resized.
        stored: Whether to read from the prepared store.
        epochs: Of several, all but the first decode crops alone where that is worth it.
    """

    @contextmanager
    def open_method(workload: Workload) -> Iterator[Pass]:
        if epochs > 1:
            _check_parts()
        images, augment, seeds = _images(workload, stored), _augment(workload), count()
        settings = _settings(workload, len(images), epochs)
        schedule = StageSchedule((settings,), len(images), settings.batch_size)

        def run() -> int:
            with closing(train_batches(images, schedule, config, augment, seed=next(seeds))) as batches:
                return sum(len(batch.images) for batch in batches)

        yield run

    return open_method


def decode_files() -> Open:
    """Return what decodes every file at full size and does nothing else."""

    @contextmanager
    def open_method(workload: Workload) -> Iterator[Pass]:
        def run() -> int:
            for file in workload.photos.files:
                simplejpeg.decode_jpeg(file.read_bytes())
            return len(workload.photos.files)

        yield run

    return open_method


def decode_copies() -> Open:
    """Return what decodes the copies of a store that the stage reads, and does nothing else."""

    @contextmanager
    def open_method(workload: Workload) -> Iterator[Pass]:
        copies = [copy for copy in read_copies(workload) if isinstance(copy, bytes)]
        if not copies:
            raise UnavailableError("the store has pixels, not JPEG")

        def run() -> int:
            for copy in copies:
                simplejpeg.decode_jpeg(copy)
            return len(copies)

        yield run

    return open_method


def read_copies(workload: Workload) -> list[Copy]:
    """Return the copies that one pass over a store reads.

    Raises:
        UnavailableError: There is no store.
    """
    copies: list[Copy] = []

    def noting(read: Callable[[int], Copy]) -> Callable[[int], Copy]:
        def read_and_note(place: int) -> Copy:
            copies.append(read(place))
            return copies[-1]

        return read_and_note

    def watched(index: int) -> Encoded:
        pyramid = images.read(index)
        return replace(pyramid, read=noting(pyramid.read)) if isinstance(pyramid, Pyramid) else pyramid

    images = _images(workload, stored=True)
    with images_alone(AS_RELEASED, stored=True)(
        replace(workload, stored=replace(images, read=watched))
    ) as run:
        run()
    return copies


def _images(workload: Workload, stored: bool) -> LabelledImages:
    photos = workload.photos
    if not stored:
        return LabelledImages(
            class_names=tuple(str(label) for label in range(int(photos.labels.max()) + 1)),
            labels=photos.labels,
            names=tuple(str(file) for file in photos.files),
            read=lambda index: photos.files[index].read_bytes(),
        )
    if workload.stored is None:
        raise UnavailableError("there is no prepared store; name one with --store or let --prepare make one")
    return workload.stored


def _check_parts() -> None:
    if not is_installed():
        raise UnavailableError("nvImageCodec is not installed; it is in the extra 'region'")


def _settings(workload: Workload, images: int, epochs: int = 1) -> StageSettings:
    batch_size = min(BATCH_SIZE, images)
    return StageSettings(
        stage=0,
        start_step=0,
        end_step=epochs * images // batch_size,
        image_size=workload.size,
        batch_size=batch_size,
        randaugment_magnitude=float(MAGNITUDE),
        mixup_alpha=0.0,
        cutmix_alpha=0.0,
        dropout_rate=0.0,
        drop_path_rate=0.0,
    )


def _augment(workload: Workload) -> AugmentConfig:
    return AugmentConfig(operations=OPERATIONS if workload.randaugment else 0, policy="release")
