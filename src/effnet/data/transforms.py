"""From one encoded image to the square of pixels that a network trains on or is evaluated on.

Each step is a function of its own: view drawn, as much decoded as it needs, resized, augmented.
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
from effnet.data.augment import DrawnView, change, draw_view
from effnet.data.crops import Crop, center_crop, draw_crop
from effnet.data.decode import Picture, open_image
from effnet.data.images import Encoded
from effnet.data.jpeg_scan import ImageScans
from effnet.schedule.progressive import StageSettings

_CV2_FILTERS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
_PILLOW_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class TrainView(NamedTuple):
    """One random view of an image, of which no pixel is decoded yet."""

    picture: Picture
    crop: Crop
    drawn: DrawnView
    """What is done behind the crop."""


def open_view(
    encoded: Encoded,
    settings: StageSettings,
    *,
    config: DataConfig,
    augment: AugmentConfig,
    rng: np.random.Generator,
    is_whole: bool = False,
    scans: ImageScans | None = None,
) -> TrainView:
    """Draw one random view of an image: its crop, and what is done behind it.

    Args:
        encoded: An image file, pixels, or copies of an image.
        settings: Image size, RandAugment's magnitude, probability of random erasing.
        config: How crops are drawn.
        augment: What is done behind the crop.
        rng: The only source of randomness. What is drawn depends on the image's own size only, not on the
            copy of it or the scale at which it is decoded.
        is_whole: Whether this image was decoded before without an error; the view is the same, sooner.
        scans: What is remembered of its files; likewise.

    Raises:
        BadImageError: The image cannot be decoded.
        OSError: A copy of it cannot be read.
    """
    picture = open_image(encoded, max_enlargement=config.max_enlargement, is_whole=is_whole, scans=scans)
    crop = draw_crop(picture.height, picture.width, config, rng)
    drawn = draw_view(settings, flip=config.flip, augment=augment, rng=rng)
    picture, crop = picture.fetch(crop, settings.image_size)
    return TrainView(picture, crop, drawn)


def cut_view(view: TrainView, config: DataConfig, *, out: UInt8[np.ndarray, "S S 3"]) -> None:
    """Decode a view's crop and resize it; nothing else is done to it.

    Args:
        view: Of any image.
        config: How crops are resized.
        out: The result: RGB, not normalised; contiguous.

    Raises:
        BadImageError: The image cannot be decoded.
        OSError: A copy of it cannot be read.
    """
    pixels, crop = view.picture.decode(view.crop, len(out), antialias=config.antialias)
    resize_crop(pixels, crop, interpolation=config.interpolation, antialias=config.antialias, out=out)


def train_image(
    encoded: Encoded,
    settings: StageSettings,
    *,
    config: DataConfig,
    augment: AugmentConfig,
    rng: np.random.Generator,
    out: UInt8[np.ndarray, "S S 3"],
) -> None:
    """Write one random view of an image; arguments and errors as of `open_view` and `cut_view`."""
    view = open_view(encoded, settings, config=config, augment=augment, rng=rng)
    cut_view(view, config, out=out)
    change(out, view.drawn)


def eval_image(encoded: Encoded, preprocessing: Preprocessing) -> UInt8[np.ndarray, "S S 3"]:
    """Return an image as a network wants to see it at evaluation: centre crop or all of it, resized.

    Returns:
        uint8, HWC, RGB, not normalised.

    Raises:
        BadImageError: The image cannot be decoded.
        OSError: A copy of it cannot be read.
    """
    size = preprocessing.image_size
    picture = open_image(encoded)
    crop = Crop(0, 0, picture.width, picture.height)
    if preprocessing.crop_mode == "center":
        crop = center_crop(picture.height, picture.width, preprocessing.crop_fraction)
        if not preprocessing.antialias:  # As released: fractions of a pixel are cut off.
            crop = Crop(int(crop.x), int(crop.y), max(int(crop.width), 1), max(int(crop.height), 1))
    pixels, crop = picture.decode(crop, size, antialias=preprocessing.antialias)
    out = np.empty((size, size, 3), np.uint8)
    resize_crop(
        pixels,
        crop,
        interpolation=preprocessing.interpolation,
        antialias=preprocessing.antialias,
        out=out,
    )
    return out


def resize_crop(
    pixels: UInt8[np.ndarray, "H W 3"],
    crop: Crop,
    *,
    interpolation: Interpolation,
    antialias: bool,
    out: UInt8[np.ndarray, "S S 3"],
) -> None:
    """Resize a rectangle of an image to a square.

    Args:
        pixels: uint8, HWC, RGB.
        crop: Inside the image. Fractions of a pixel count with ``antialias`` only; without it they are
            rounded.
        interpolation: Bicubic is Pillow's (a = -0.5) with ``antialias`` and OpenCV's (a = -0.75, which is
            the V1 release's) without.
        antialias: Whether the filter widens when it shrinks. Without it, bilinear is TensorFlow's with
            half-pixel centres, up to rounding.
        out: The result; contiguous.
    """
    rows, columns = crop.rounded(*pixels.shape[:2])
    view = np.ascontiguousarray(pixels[rows, columns]) if pixels.strides[2] != 1 else pixels[rows, columns]
    if not antialias:
        cv2.resize(view, out.shape[1::-1], dst=out, interpolation=_CV2_FILTERS[interpolation])
    elif all(float(edge).is_integer() for edge in crop):
        import torch  # noqa: PLC0415 - seconds to import, and for this filter only
        from torch.nn.functional import interpolate  # noqa: PLC0415

        # A copy, because a mirrored view of one pixel counts as contiguous, and torch refuses it.
        tensor = torch.from_numpy(view.copy()).permute(2, 0, 1)[None]
        resized = interpolate(tensor, size=out.shape[:2], mode=interpolation, antialias=True)
        out[...] = resized[0].permute(1, 2, 0).numpy()
    else:
        out[...] = _resize_with_pillow(pixels, crop, interpolation, len(out))


def _resize_with_pillow(
    pixels: UInt8[np.ndarray, "H W 3"], crop: Crop, interpolation: Interpolation, size: int
) -> UInt8[np.ndarray, "S S 3"]:
    # Cut alike from the whole and from a part of it, or places of pixels would be rounded differently.
    margin = crop.margin(size)
    top, left = (max(math.floor(start) - margin, 0) for start in (crop.y, crop.x))
    bottom, right = (math.ceil(end) + margin for end in (crop.y + crop.height, crop.x + crop.width))
    x, y = crop.x - left, crop.y - top
    image = Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right]))
    box = (x, y, x + crop.width, y + crop.height)
    return np.asarray(image.resize((size, size), _PILLOW_FILTERS[interpolation], box=box))
