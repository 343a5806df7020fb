"""From one image to its copies of several sizes, as a prepared store keeps them.

Dimension key: H height, W width.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import simplejpeg
import torch
from jaxtyping import UInt8
from PIL import Image
from pydantic.dataclasses import dataclass
from torch.nn.functional import interpolate

from effnet.arch.spec import SPEC_CONFIG
from effnet.data.decode import decode_image
from effnet.data.images import Encoded
from effnet.data.pillow import BadImageError
from effnet.data.store import Chroma, Encoding, Quality, ShortSides, copy_levels, level_shape

SIDE_FOR_CROPS = 1.25
"""Short side of the copies for a stage, in units of its image size: a crop is a part of the image."""
_SIDE_MULTIPLE = 8
_JPEG_START = b"\xff\xd8"
_JPEG_MOST_PIXELS = 65_500
_SLOW_TO_READ = {"progressive", "exif", "xmp", "icc_profile"}
# A level that saves less than this against the next is not worth its bytes.
_NEXT_LEVEL = 1.1


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class CopySettings:
    """Which copies of an image to make, and how to write them."""

    short_sides: ShortSides
    """In pixels, ascending; an image that is smaller keeps its size."""
    encoding: Encoding = "jpeg"
    """``raw``: RGB bytes, several times as large and as fast to read."""
    quality: Quality = 90
    """Of JPEG files."""
    chroma: Chroma = "420"
    """Of JPEG files: colour at full resolution (444), or at half of it in one (422) or both directions."""


class Copies(NamedTuple):
    """An image's copies, one for each short side; None where a smaller one is as large as the image."""

    height: int
    """Of the image, upright."""
    width: int
    """Of the image, upright."""
    files: tuple[bytes | None, ...]


def sides_for(image_sizes: Iterable[int], evaluated_side: int) -> tuple[int, ...]:
    """Return the short sides of copies that serve all stages of a run and its evaluation.

    Args:
        image_sizes: Of the stages, in pixels.
        evaluated_side: Short side, in pixels, from which evaluation need not enlarge an image.

    Returns:
        Ascending; multiples of 8, and none that is within 10 % of the next.
    """
    needed = [SIDE_FOR_CROPS * size for size in image_sizes] + [evaluated_side]
    sides = sorted({math.ceil(side / _SIDE_MULTIPLE) * _SIDE_MULTIPLE for side in needed}, reverse=True)
    kept: list[int] = []
    for side in sides:
        if not kept or side * _NEXT_LEVEL < kept[-1]:
            kept.append(side)
    return tuple(reversed(kept))


def make_copies(encoded: Encoded, settings: CopySettings) -> Copies:
    """Decode an image once and make its copies.

    Raises:
        BadImageError: It cannot be decoded.
        OSError: It cannot be read.
    """
    pixels = decode_image(encoded)
    height, width = pixels.shape[:2]
    levels = copy_levels(height, width, settings.short_sides)
    files = [_copy(encoded, pixels, level_shape(height, width, level), settings) for level in levels]
    return Copies(height, width, (*files, *[None] * (len(settings.short_sides) - len(levels))))


def _copy(
    encoded: Encoded, pixels: UInt8[np.ndarray, "H W 3"], shape: tuple[int, int], settings: CopySettings
) -> bytes:
    is_full = shape == pixels.shape[:2]
    if not is_full:
        pixels = _shrink(pixels, shape)
    if settings.encoding == "raw":
        return pixels.tobytes()
    if max(shape) > _JPEG_MOST_PIXELS:
        raise BadImageError(f"a copy of {shape[1]} x {shape[0]} pixels; JPEG has {_JPEG_MOST_PIXELS} a side")
    own: bytes = simplejpeg.encode_jpeg(
        pixels, quality=settings.quality, colorspace="RGB", colorsubsampling=settings.chroma
    )
    return encoded if is_full and isinstance(encoded, bytes) and _is_better(encoded, own, pixels) else own


def _shrink(pixels: UInt8[np.ndarray, "H W 3"], shape: tuple[int, int]) -> UInt8[np.ndarray, "H2 W2 3"]:
    """Resize with a bicubic filter that widens as it shrinks; see docs/log.md for the others."""
    # What cannot be written to must be copied before torch may have it.
    image = torch.from_numpy(np.require(pixels, requirements="W")).permute(2, 0, 1)[None]
    resized = interpolate(image, size=shape, mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).contiguous().numpy()


def _is_better(original: bytes, own: bytes, pixels: UInt8[np.ndarray, "H W 3"]) -> bool:
    """Whether the original file gives the very pixels, is no larger than ours, and as fast to read."""
    if len(original) > len(own) or not original.startswith(_JPEG_START):
        return False
    try:
        with Image.open(io.BytesIO(original), formats=("JPEG",)) as image:
            is_plain = image.info.keys().isdisjoint(_SLOW_TO_READ)
        return is_plain and np.array_equal(simplejpeg.decode_jpeg(original), pixels)
    except (ValueError, OSError):
        return False
