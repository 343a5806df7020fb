"""RandAugment by itself: from pixels to pixels, each method in its own kind of image."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from effnet.bench.measure import Pass
from effnet.bench.peers import import_peer
from effnet.bench.transcribed_randaugment import BICUBIC, FILL, Operations
from effnet.bench.transcribed_randaugment import randaugment as timm_randaugment
from effnet.bench.workload import MAGNITUDE, OPERATIONS, Open, Workload
from effnet.config import AugmentConfig
from effnet.data.augment import draw_operations
from effnet.data.crops import Crop
from effnet.data.decode import open_image
from effnet.data.operations import apply_operations
from effnet.data.order import sample_random
from effnet.data.transforms import resize_crop

_SEED = 0


@contextmanager
def ours(workload: Workload) -> Iterator[Pass]:
    """Apply the release's operations to arrays."""
    images, samples = _squares(workload), count()
    augment = AugmentConfig(operations=OPERATIONS, policy="release")

    def run() -> int:
        for image in images:
            rng = sample_random(_SEED, next(samples))
            apply_operations(image, draw_operations(len(image), MAGNITUDE, augment, rng))
        return len(images)

    yield run


def transcribed(operations: Operations = BICUBIC) -> Open:
    """Return timm's operations, transcribed, on Pillow's images."""

    @contextmanager
    def open_method(workload: Workload) -> Iterator[Pass]:
        draws = random.Random(_SEED)
        yield _over(workload, lambda image: timm_randaugment(image, draws, operations))

    return open_method


@contextmanager
def timm(workload: Workload) -> Iterator[Pass]:
    """Apply timm's operations themselves, on Pillow's images."""
    data = import_peer("timm.data")
    name = f"rand-m{MAGNITUDE}-n{OPERATIONS}-p1"
    yield _over(workload, data.auto_augment.rand_augment_transform(name, timm_randaugment_options()))


def timm_randaugment_options() -> dict[str, Any]:
    """Return what timm's loader tells its RandAugment where crops are bicubic."""
    return {"img_mean": FILL, "interpolation": Image.Resampling.BICUBIC}


def _over(workload: Workload, change: Callable[[Image.Image], Any]) -> Pass:
    images = [Image.fromarray(square) for square in _squares(workload)]

    def run() -> int:
        for image in images:
            change(image)
        return len(images)

    return run


def _squares(workload: Workload) -> list[UInt8[np.ndarray, "S S 3"]]:
    """Return the middle of each photo, resized."""
    squares = []
    for file in workload.photos.files:
        picture = open_image(file.read_bytes())
        whole = Crop(0, 0, picture.width, picture.height)
        pixels, crop = picture.decode(whole, workload.size)
        square = np.empty((workload.size, workload.size, 3), np.uint8)
        resize_crop(pixels, crop, interpolation="bilinear", antialias=True, out=square)
        squares.append(square)
    return squares
