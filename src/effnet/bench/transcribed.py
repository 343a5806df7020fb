"""What timm's and torchvision's default training loaders do to an image, in Pillow, in our own words.

timm 1.0.31 with bicubic crops and without colour jitter (its default, 0.4, would be dearer still);
torchvision 0.28's reference for classification. `tests/peers` compares the pixels with theirs.
Dimension key: N images, S side.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from effnet.bench.measure import Pass
from effnet.bench.transcribed_randaugment import randaugment
from effnet.bench.workload import CROP_AREA, CROP_ASPECT, UnavailableError, Workload

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CROP_ATTEMPTS = 10


class Box(NamedTuple):
    """A rectangle in whole pixels."""

    left: int
    top: int
    width: int
    height: int


def random_resized_crop(width: int, height: int, draws: random.Random) -> Box:
    """Draw a crop as torchvision's RandomResizedCrop and timm do.

    The area is uniform, the aspect uniform in its logarithm; after ten attempts that do not fit, it is the
    middle of the image, with an aspect as near to the image's own as is allowed.
    """
    for _ in range(_CROP_ATTEMPTS):
        area = draws.uniform(*CROP_AREA) * width * height
        aspect = math.exp(draws.uniform(*(math.log(limit) for limit in CROP_ASPECT)))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if crop_width <= width and crop_height <= height:
            top = draws.randint(0, height - crop_height)
            return Box(draws.randint(0, width - crop_width), top, crop_width, crop_height)
    narrowest, widest = CROP_ASPECT
    crop_width, crop_height = width, height
    if width / height < narrowest:
        crop_height = round(width / narrowest)
    elif width / height > widest:
        crop_width = round(height * widest)
    return Box((width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height)


def cropped(file: Path, size: int, resampling: Image.Resampling, draws: random.Random) -> Image.Image:
    """Decode all of a file, cut a random crop out, resize it, and mirror it half of the times."""
    with file.open("rb") as opened:
        image = Image.open(opened).convert("RGB")
    left, top, width, height = random_resized_crop(*image.size, draws)
    image = image.crop((left, top, left + width, top + height)).resize((size, size), resampling)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draws.random() < 0.5 else image


def timm_image(
    file: Path, size: int, draws: random.Random, *, with_randaugment: bool
) -> UInt8[Tensor, "3 S S"]:
    """Return one training image of timm's loader, before it is normalised on the device."""
    image = cropped(file, size, Image.Resampling.BICUBIC, draws)
    if with_randaugment:
        image = randaugment(image, draws)
    return torch.as_tensor(np.array(image)).permute(2, 0, 1)


def torchvision_image(file: Path, size: int, draws: random.Random) -> Float[Tensor, "3 S S"]:
    """Return one training image of torchvision's reference, normalised."""
    image = cropped(file, size, Image.Resampling.BILINEAR, draws)
    pixels = torch.as_tensor(np.array(image)).permute(2, 0, 1).to(torch.float32) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return pixels.sub_(mean).div_(std)


@contextmanager
def timm_pipeline(workload: Workload) -> Iterator[Pass]:
    """Fill batches of uint8 with `timm_image`."""
    draws = random.Random(0)

    def run() -> int:
        for files in workload.photos.batches():
            batch = torch.zeros((len(files), 3, workload.size, workload.size), dtype=torch.uint8)
            for row, file in enumerate(files):
                batch[row].copy_(
                    timm_image(file, workload.size, draws, with_randaugment=workload.randaugment)
                )
        return len(workload.photos.files)

    yield run


@contextmanager
def torchvision_pipeline(workload: Workload) -> Iterator[Pass]:
    """Stack `torchvision_image` to batches of float32."""
    if workload.randaugment:
        raise UnavailableError("its RandAugment has other operations and magnitudes")
    draws = random.Random(0)

    def run() -> int:
        for files in workload.photos.batches():
            torch.stack([torchvision_image(file, workload.size, draws) for file in files])
        return len(workload.photos.files)

    yield run
