"""This project's own ways from photos to batches, and the least that any way with the same decoder costs.

Dimension key: N images, S side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import count

import simplejpeg

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
from effnet.data.jpeg_scan import can_cut
from effnet.data.loader import train_batches
from effnet.data.pixels import Pixels
from effnet.data.reading import read_file
from effnet.data.store import Encoding
from effnet.schedule.progressive import StageSchedule, StageSettings

AS_RELEASED = DataConfig(workers=1, crop_area=CROP_AREA, crop_aspect=CROP_ASPECT)
"""The default configuration, but for the crops' area, which is every method's here."""
WHOLE_FILES = replace(AS_RELEASED, jpeg_index_gigabytes=0.0)
ANTIALIASED = replace(AS_RELEASED, antialias=True)
LIKE_TIMM = replace(AS_RELEASED, antialias=True, interpolation="bicubic")


def loader(config: DataConfig, *, encoding: Encoding | None = None, epochs: int = 1) -> Open:
    """Return a method that takes batches from the loader, as a training run does.

    Args:
        config: How crops are drawn and resized.
        encoding: Of the prepared store to read from; None: the photos' files are read.
        epochs: In the first, files are seen for the first time.
    """

    @contextmanager
    def open_method(workload: Workload) -> Iterator[Pass]:
        can_cut()  # Or others would be measured while it is compiled.
        images, augment, seeds = _images(workload, encoding), _augment(workload), count()
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
        copies = read_copies(workload)

        def run() -> int:
            for copy in copies:
                simplejpeg.decode_jpeg(copy)
            return len(copies)

        yield run

    return open_method


def read_copies(workload: Workload) -> list[bytes]:
    """Return the JPEG files that one pass over a store reads.

    Raises:
        UnavailableError: There is no store of JPEG files.
    """
    copies: list[bytes] = []

    def noting(read: Callable[[int], bytes | Pixels]) -> Callable[[int], bytes | Pixels]:
        def read_and_note(place: int) -> bytes | Pixels:
            copy = read(place)
            copies.extend([copy] if isinstance(copy, bytes) else [])
            return copy

        return read_and_note

    def watched(index: int) -> Encoded:
        pyramid = images.read(index)
        return replace(pyramid, read=noting(pyramid.read)) if isinstance(pyramid, Pyramid) else pyramid

    images = _images(workload, "jpeg")
    watched_images = replace(images, read=watched)
    with loader(AS_RELEASED, encoding="jpeg")(replace(workload, stored={"jpeg": watched_images})) as run:
        run()
    return copies


def _images(workload: Workload, encoding: Encoding | None) -> LabelledImages:
    photos = workload.photos
    if encoding is None:
        return LabelledImages(
            class_names=tuple(str(label) for label in range(int(photos.labels.max()) + 1)),
            labels=photos.labels,
            names=tuple(str(file) for file in photos.files),
            read=lambda index: read_file(photos.files[index]),
        )
    if not workload.stored:
        raise UnavailableError("there is no prepared store; name one with --store or let --prepare make one")
    if encoding not in workload.stored:
        raise UnavailableError(
            "the store has JPEG, not pixels" if encoding == "raw" else "the store has pixels, not JPEG"
        )
    return workload.stored[encoding]


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
