"""From one encoded image to the square of pixels that a network trains on or is evaluated on.

Each step is a function of its own: crop drawn, image decoded, crop resized, pixels augmented.
Dimension key: H height, W width, S side of the result.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from effnet.arch.preprocessing import Interpolation, Preprocessing
from effnet.config import AugmentConfig, DataConfig
from effnet.data.decode import decode_image
from effnet.data.randaugment import randaugment
from effnet.schedule.progressive import StageSettings

CROP_ATTEMPTS = 100

_CV2_FILTERS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
_PILLOW_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Crop(NamedTuple):
    """A rectangle of an image, in pixels; from the left and from the top."""

    x: float
    y: float
    width: float
    height: float


def train_image(
    encoded: bytes | UInt8[np.ndarray, "H W 3"],
    settings: StageSettings,
    config: DataConfig,
    augment: AugmentConfig,
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "S S 3"]:
    """Return one random view of an image: crop, resize, mirror, RandAugment.

    Args:
        encoded: An image file or pixels.
        settings: Image size and RandAugment's magnitude.
        config: How crops are drawn and resized.
        augment: RandAugment's operations.
        rng: The only source of randomness.

    Returns:
        uint8, HWC, RGB, not normalised.

    Raises:
        BadImageError: The image cannot be decoded.
    """
    image = decode_image(encoded)
    crop = draw_crop(image.shape[0], image.shape[1], config, rng)
    image = resize_crop(
        image, crop, settings.image_size, interpolation=config.interpolation, antialias=config.antialias
    )
    if config.flip and rng.random() < 0.5:
        image = cv2.flip(image, 1)
    return randaugment(image, settings.randaugment_magnitude, augment, rng)


def eval_image(
    encoded: bytes | UInt8[np.ndarray, "H W 3"], preprocessing: Preprocessing
) -> UInt8[np.ndarray, "S S 3"]:
    """Return an image as a network wants to see it at evaluation: centre crop or all of it, resized.

    Returns:
        uint8, HWC, RGB, not normalised.

    Raises:
        BadImageError: The image cannot be decoded.
    """
    image = decode_image(encoded)
    height, width, _ = image.shape
    crop = Crop(0, 0, width, height)
    if preprocessing.crop_mode == "center":
        crop = center_crop(height, width, preprocessing.crop_fraction)
    return resize_crop(
        image,
        crop,
        preprocessing.image_size,
        interpolation=preprocessing.interpolation,
        antialias=preprocessing.antialias,
    )


def draw_crop(height: int, width: int, config: DataConfig, rng: np.random.Generator) -> Crop:
    """Draw a training crop; at least one pixel, never over the border.

    As released (TensorFlow's ``sample_distorted_bounding_box``): the aspect is uniform in its range, then
    the height is uniform between those that give the smallest and the largest area, as far as the image
    reaches. After 100 attempts without a crop that is large enough, the whole image is taken.
    """
    for _ in range(CROP_ATTEMPTS):
        aspect = rng.uniform(*config.crop_aspect)
        smallest, largest = (round(math.sqrt(area * height * width / aspect)) for area in config.crop_area)
        largest = min(largest, height, int((width + 0.5) / aspect))
        if smallest <= largest:
            crop_height = max(int(rng.integers(smallest, largest, endpoint=True)), 1)
            crop_width = min(max(round(crop_height * aspect), 1), width)
            x = int(rng.integers(width - crop_width, endpoint=True))
            y = int(rng.integers(height - crop_height, endpoint=True))
            return Crop(x, y, crop_width, crop_height)
    return Crop(0, 0, width, height)


def center_crop(height: int, width: int, fraction: float) -> Crop:
    """Return the square in the middle whose side is ``fraction`` of the short side; not rounded."""
    side = fraction * min(height, width)
    return Crop((width - side) / 2, (height - side) / 2, side, side)


def resize_crop(
    image: UInt8[np.ndarray, "H W 3"],
    crop: Crop,
    size: int,
    *,
    interpolation: Interpolation,
    antialias: bool,
) -> UInt8[np.ndarray, "S S 3"]:
    """Resize a rectangle of an image to ``size`` x ``size``.

    Args:
        image: uint8, HWC, RGB.
        crop: Inside the image. Fractions of a pixel count with ``antialias`` only; without it they are cut
            off, as released.
        size: Side of the result in pixels.
        interpolation: Bicubic is Pillow's (a = -0.5) with ``antialias`` and OpenCV's (a = -0.75, which is
            the V1 release's) without.
        antialias: Whether the filter widens when it shrinks. Without it, bilinear is TensorFlow's with
            half-pixel centres, up to rounding.
    """
    if antialias:
        box = (crop.x, crop.y, crop.x + crop.width, crop.y + crop.height)
        pillow = Image.fromarray(image).resize((size, size), _PILLOW_FILTERS[interpolation], box=box)
        return np.array(pillow)
    x, y, width, height = int(crop.x), int(crop.y), max(int(crop.width), 1), max(int(crop.height), 1)
    view = image[y : y + height, x : x + width]
    return cv2.resize(view, (size, size), interpolation=_CV2_FILTERS[interpolation])
