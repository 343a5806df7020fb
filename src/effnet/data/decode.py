"""From the bytes of an image file to RGB pixels: no more of them than a crop needs, and strictly.

A damaged file is an error, never grey pixels. JPEG takes a fast path that does not hold the interpreter's
lock; everything else, and every JPEG that is unusual, is read by `effnet.data.pillow`.
Dimension key: H height, W width; both upright, as the EXIF orientation says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8

from effnet.data.crops import Crop
from effnet.data.images import Encoded, Pyramid
from effnet.data.pillow import BadImageError, check_pixels, decode_with_pillow, is_srgb, jpeg_orientation

_JPEG_START = b"\xff\xd8"
_FAST_COLORSPACES = {"YCbCr", "Gray", "RGB"}
_HEADER_SEARCH_BYTES = 1 << 16
_EXIF_START = b"Exif\0\0"
_ICC_START = b"ICC_PROFILE\0"
# libjpeg-turbo scales to these shares while it decodes at less cost than the whole; 3/4 costs more.
_JPEG_SHRINKS = (8, 4, 2)

cv2.setNumThreads(0)  # Each of our threads prepares images of its own.


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of which only the size is known so far."""

    height: int
    width: int
    decode: Callable[[Crop, int], tuple[UInt8[np.ndarray, "H W 3"], Crop]]
    """``decode(crop, size)`` returns pixels that cover a crop which is to be resized to ``size`` x
    ``size``, and where the crop lies in them: uint8, HWC, RGB, perhaps of a smaller copy of the image, not
    always contiguous. Raises `BadImageError`."""


def open_image(encoded: Encoded, *, max_enlargement: float = 1.0) -> Picture:
    """Read the size of an image, and decode later what a crop needs.

    Args:
        encoded: A file of one of `effnet.data.pillow.FORMATS`, of which only the first frame counts; or
            pixels, which are used as they are; or a `Pyramid`.
        max_enlargement: Of a `Pyramid`, the smallest copy is taken in which a crop needs to be enlarged
            by no more than this factor.

    Raises:
        BadImageError: The file is empty, damaged, no image, or has more than
            `effnet.data.pillow.MAX_PIXELS`; a truncated file may be noticed by ``decode`` only.
        OSError: A copy cannot be read.
    """
    if isinstance(encoded, Pyramid):
        return _pyramid_picture(encoded, max_enlargement)
    if isinstance(encoded, np.ndarray):
        return _decoded_picture(encoded)
    if not encoded:
        raise BadImageError("the file is empty")
    picture = _jpeg_picture(encoded) if encoded.startswith(_JPEG_START) else None
    return picture or _decoded_picture(decode_with_pillow(encoded))


def decode_image(encoded: Encoded) -> UInt8[np.ndarray, "H W 3"]:
    """Decode all of an image, upright as its EXIF orientation says.

    Returns:
        uint8, HWC, RGB, [0, 255]. Grey is repeated, 16 bits become 8, other colours become sRGB, and what
        is transparent lies on white.

    Raises:
        BadImageError: The file is empty, damaged, truncated, no image, or too large.
        OSError: A copy cannot be read.
    """
    picture = open_image(encoded)
    whole = Crop(0, 0, picture.width, picture.height)
    return np.ascontiguousarray(picture.decode(whole, max(picture.width, picture.height))[0])


def _decoded_picture(pixels: UInt8[np.ndarray, "H W 3"]) -> Picture:
    return Picture(pixels.shape[0], pixels.shape[1], lambda crop, _size: (pixels, crop))


def _pyramid_picture(pyramid: Pyramid, max_enlargement: float) -> Picture:
    """Choose the copy by the crop."""
    short_side = min(pyramid.height, pyramid.width)

    def decode(crop: Crop, size: int) -> tuple[UInt8[np.ndarray, "H W 3"], Crop]:
        needed = size / max_enlargement * short_side / min(crop.width, crop.height)
        fitting = (place for place, side in enumerate(pyramid.short_sides) if side >= needed)
        copy = open_image(pyramid.read(next(fitting, len(pyramid.short_sides) - 1)))
        scaled = crop.scaled(copy.width / pyramid.width, copy.height / pyramid.height)
        return copy.decode(scaled, size)

    return Picture(pyramid.height, pyramid.width, decode)


def _jpeg_picture(encoded: bytes) -> Picture | None:
    """Read the header of a JPEG file; None where Pillow has to look at it."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(encoded)
    except ValueError:
        return None
    if colorspace not in _FAST_COLORSPACES or not _has_srgb(encoded):
        return None
    check_pixels(height, width)
    has_exif = encoded.find(_EXIF_START, 0, _HEADER_SEARCH_BYTES) >= 0
    orientation = jpeg_orientation(encoded) if has_exif else 1
    is_turned = orientation >= 5

    def decode(crop: Crop, size: int) -> tuple[UInt8[np.ndarray, "H W 3"], Crop]:
        shrink = next((s for s in _JPEG_SHRINKS if min(crop.width, crop.height) >= s * size), 1)
        pixels = _decode_jpeg(encoded, math.ceil(height / shrink), math.ceil(width / shrink))
        if pixels is None:
            return decode_with_pillow(encoded), crop
        return _upright(pixels, orientation), crop.scaled(1 / shrink, 1 / shrink)

    return Picture(width, height, decode) if is_turned else Picture(height, width, decode)


def _decode_jpeg(encoded: bytes, height: int, width: int) -> UInt8[np.ndarray, "H W 3"] | None:
    """Decode at a scale; None where Pillow has to look at the file."""
    try:
        return simplejpeg.decode_jpeg(encoded, min_height=height, min_width=width)
    except ValueError as error:
        # Pillow would fill up with grey what is missing before an end-of-image marker.
        if "premature end" in str(error).lower():
            raise BadImageError("the JPEG data is truncated") from error
        return None


def _has_srgb(encoded: bytes) -> bool:
    """Whether a JPEG file's colours are sRGB, by its ICC profile or for the lack of one."""
    start = encoded.find(_ICC_START, 0, _HEADER_SEARCH_BYTES)
    if start < 0:
        return True
    # A marker's length, which counts itself, stands before the name; behind it, this part of how many.
    end = start - 2 + int.from_bytes(encoded[start - 2 : start], "big")
    part, parts = encoded[start + len(_ICC_START) :][:2]
    return (part, parts) == (1, 1) and is_srgb(encoded[start + len(_ICC_START) + 2 : end])


def _upright(pixels: UInt8[np.ndarray, "H W 3"], orientation: int) -> UInt8[np.ndarray, "H2 W2 3"]:
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
