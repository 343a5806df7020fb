"""The loaders of other libraries, where they are installed; `make bench` installs them.

Each reads the same photos and makes uint8 or float32 batches of the same random crops; what is normalised on
the device is not normalised here.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from effnet.bench.measure import Pass, can_time_workers
from effnet.bench.transcribed import IMAGENET_MEAN, IMAGENET_STD
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
from effnet.weights.torchvision_operators import declare_torchvision_operators

_compiled: list[Any] = []  # numba prints errors when what FFCV has compiled is thrown away.


@contextmanager
def timm_loader(workload: Workload) -> Iterator[Pass]:
    """Read by timm's own data set and loader with one worker process; nothing is normalised."""
    timm = import_peer("timm.data")
    if not can_time_workers():
        raise UnavailableError("the CPU time of its worker process can be read on Linux only")
    loader = timm.create_loader(
        timm.create_dataset("", root=str(workload.photos.folder)),
        input_size=(3, workload.size, workload.size),
        batch_size=min(BATCH_SIZE, len(workload.photos.files)),
        is_training=True,
        scale=CROP_AREA,
        ratio=CROP_ASPECT,
        color_jitter=0.0,
        auto_augment=f"rand-m{MAGNITUDE}-n{OPERATIONS}-p1" if workload.randaugment else None,
        interpolation="bicubic",
        num_workers=1,
        device=torch.device("cpu"),
    ).loader
    yield lambda: sum(len(images) for images, _ in loader)


@contextmanager
def torchvision_transforms(workload: Workload) -> Iterator[Pass]:
    """Apply torchvision's own reference for classification, in this process."""
    if workload.randaugment:
        raise UnavailableError("its RandAugment has other operations and magnitudes")
    transforms = import_peer("torchvision.transforms")
    folder = import_peer("torchvision.datasets.folder")
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(workload.size, scale=CROP_AREA, ratio=CROP_ASPECT, antialias=True),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )

    def run() -> int:
        for files in workload.photos.batches():
            torch.stack([transform(folder.pil_loader(file)) for file in files])
        return len(workload.photos.files)

    yield run


def dali(*, antialias: bool) -> Open:
    """Return DALI on the processor with one thread: region decoding, bilinear."""

    @contextmanager
    def open_method(workload: Workload) -> Iterator[Pass]:
        if workload.randaugment:
            raise UnavailableError("its RandAugment has other operations and magnitudes")
        fn, types = import_peer("nvidia.dali.fn"), import_peer("nvidia.dali.types")
        batch_size = min(BATCH_SIZE, len(workload.photos.files))

        # Nothing runs ahead, or it would run while another method is timed.
        pipeline = import_peer("nvidia.dali").Pipeline(
            batch_size=batch_size,
            num_threads=1,
            device_id=None,
            seed=0,
            exec_async=False,
            exec_pipelined=False,
            prefetch_queue_depth=1,
        )
        with pipeline:
            files, _ = fn.readers.file(files=[str(file) for file in workload.photos.files])
            images = fn.decoders.image_random_crop(
                files,
                device="cpu",
                output_type=types.RGB,
                random_area=list(CROP_AREA),
                random_aspect_ratio=list(CROP_ASPECT),
            )
            images = fn.resize(images, size=[workload.size] * 2, antialias=antialias)
            pipeline.set_outputs(fn.flip(images, horizontal=fn.random.coin_flip()))
        pipeline.build()

        def run() -> int:
            batches = len(workload.photos.files) // batch_size
            return sum(len(pipeline.run()[0]) for _ in range(batches))

        yield run

    return open_method


def ffcv(*, is_reduced: bool) -> Open:
    """Return FFCV with one thread, from a file of its own that is written untimed: JPEG, quality 90.

    Args:
        is_reduced: Whether its file has copies whose short side is 1.25 times the size wanted, for photos
            of 4:3, as a prepared store has; else photos of full size.
    """

    @contextmanager
    def open_method(workload: Workload) -> Iterator[Pass]:
        if workload.randaugment:
            raise UnavailableError("it has no RandAugment")
        file = workload.scratch / f"photos-{workload.size if is_reduced else 'full'}.beton"
        _write_beton(workload, file, max_resolution=workload.size * 5 // 3 if is_reduced else None)
        loading, fields = import_peer("ffcv.loader"), import_peer("ffcv.fields.decoders")
        transforms = import_peer("ffcv.transforms")
        crop = fields.RandomResizedCropRGBImageDecoder(
            (workload.size, workload.size), scale=CROP_AREA, ratio=CROP_ASPECT
        )
        loader = loading.Loader(
            str(file),
            batch_size=min(BATCH_SIZE, len(workload.photos.files)),
            num_workers=1,
            os_cache=True,
            order=loading.OrderOption.RANDOM,
            pipelines={"image": [crop, transforms.RandomHorizontalFlip(), transforms.ToTensor()]},
        )
        _compiled.append(loader)
        yield lambda: sum(len(images) for images, _ in loader)

    return open_method


def _write_beton(workload: Workload, file: Path, *, max_resolution: int | None) -> None:
    image, fields = import_peer("PIL.Image"), import_peer("ffcv.fields")
    photos = workload.photos
    rows = [
        (image.open(path).convert("RGB"), int(label))
        for path, label in zip(photos.files, photos.labels, strict=True)
    ]
    writer = import_peer("ffcv.writer").DatasetWriter(
        str(file),
        {
            "image": fields.RGBImageField(write_mode="jpg", max_resolution=max_resolution, jpeg_quality=90),
            "label": fields.IntField(),
        },
        num_workers=1,
    )
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        writer.from_indexed_dataset(rows)


def import_peer(name: str) -> Any:  # noqa: ANN401 - modules without types
    """Return a module of another library.

    Raises:
        UnavailableError: It is not installed.
    """
    declare_torchvision_operators()
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UnavailableError(f"{name.partition('.')[0]} is not installed: {error}") from None
