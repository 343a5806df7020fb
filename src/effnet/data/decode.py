"""From the bytes of an image file to RGB pixels: no more of them than a crop needs, and strictly.

A damaged file is an error, never grey pixels; `effnet.data.repair` is for those who want them. JPEG takes a
fast path that does not hold the interpreter's lock; everything else, and every JPEG that is unusual, is read
by `effnet.data.pillow`.
Dimension key: H height, W width, PH and PW those of a part or of a smaller copy; all upright, as the EXIF
orientation says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import UInt8

from effnet.data.color import convert_pixels, srgb_transform
from effnet.data.crops import Crop
from effnet.data.images import Encoded, Pyramid
from effnet.data.jpeg import JPEG_START, JpegHeader, decode_jpeg, decode_top, has_end, read_header, saves_rows
from effnet.data.jpeg_scan import ImageScans, decode_part, saves_enough
from effnet.data.orientation import is_mirrored, stored_places, upright
from effnet.data.pillow import BadImageError, decode_with_pillow, opened

# libjpeg-turbo scales to these shares while it decodes at less cost than the whole; 3/4 costs more.
_JPEG_SHRINKS = (8, 4, 2)
# The view of a crop that is cut from a smaller copy of this many times the view's size differs from the
# view of the whole by less than two levels of 255 on average, on every photo; by up to seven from a copy
# that is just large enough. Measured with antialias, on views of 24 pixels and more.
_LEAST_REDUCTION = 2.5

_Part: TypeAlias = tuple[UInt8[np.ndarray, "PH PW 3"], Crop]

cv2.setNumThreads(0)  # Each of our threads prepares images of its own.


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of which only the size is known so far."""

    height: int
    width: int
    held_bytes: int
    """What is kept in memory for it."""
    _decode: Callable[[Crop, int, bool], _Part]
    _fetch: Callable[[Crop, int], tuple[Picture, Crop]] | None = None

    def fetch(self, crop: Crop, size: int) -> tuple[Picture, Crop]:
        """Read, but do not decode, what `decode` would; return it, and where the crop lies in it.

        Raises:
            BadImageError: A copy of the image is damaged.
            OSError: A copy of the image cannot be read.
        """
        return self._fetch(crop, size) if self._fetch else (self, crop)

    def decode(self, crop: Crop, size: int, *, antialias: bool = True) -> _Part:
        """Decode pixels that cover a crop.

        Args:
            crop: Inside the image.
            size: The crop is to be resized to ``size`` x ``size`` pixels.
            antialias: Whether by a filter that widens as it shrinks. Otherwise a JPEG file is decoded at
                full size whatever the crop: without the filter, the resized crop of a smaller copy is
                another picture.

        Returns:
            uint8, HWC, RGB, perhaps of a smaller copy of the image or of a part, not always contiguous; and
            where the crop lies in them.

        Raises:
            BadImageError: The image is damaged.
            OSError: A copy of it cannot be read.
        """
        return self._decode(crop, size, antialias)


def open_image(
    encoded: Encoded,
    *,
    max_enlargement: float = 1.0,
    is_whole: bool = False,
    scans: ImageScans | None = None,
) -> Picture:
    """Read the size of an image, and decode later what a crop needs.

    Args:
        encoded: A file of one of `effnet.data.pillow.FORMATS`, of which only the first frame counts; or
            pixels, which are used as they are; or a `Pyramid`.
        max_enlargement: Of a `Pyramid`, the smallest copy is taken whose short side is not below the size
            that is asked for, and in which the crop needs to be enlarged by no more than this factor.
        is_whole: Whether all of this very file was decoded before without an error; then it is enough to
            decode the part that is needed.
        scans: What is remembered of this image's JPEG files, so that parts can be decoded alone.

    Raises:
        BadImageError: The file is empty, damaged, no image, or has more than
            `effnet.data.pillow.MAX_PIXELS`; a truncated file may be noticed by ``decode`` only.
        OSError: A copy cannot be read.
    """
    if isinstance(encoded, Pyramid):
        return _pyramid_picture(encoded, max_enlargement, scans)
    if isinstance(encoded, np.ndarray):
        return _decoded_picture(encoded)
    if not encoded:
        raise BadImageError("the file is empty")
    picture = _jpeg_picture(encoded, is_whole, scans) if encoded.startswith(JPEG_START) else None
    return picture or _decoded_picture(decode_with_pillow(encoded))


def image_size(encoded: bytes) -> tuple[int, int]:
    """Return height and width, in pixels as stored, from the header of a file; nothing is decoded.

    Raises:
        BadImageError: As of `open_image`.
    """
    if not encoded:
        raise BadImageError("the file is empty")
    header = read_header(encoded) if encoded.startswith(JPEG_START) else None
    if header is not None:
        return header.height, header.width
    with opened(encoded) as file:
        return file.height, file.width


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
    return Picture(
        len(pixels), pixels.shape[1], pixels.nbytes, lambda crop, _size, _antialias: (pixels, crop)
    )


def _pyramid_picture(pyramid: Pyramid, max_enlargement: float, scans: ImageScans | None) -> Picture:
    """Choose the copy by the crop."""
    short_side = min(pyramid.height, pyramid.width)

    def fetch(crop: Crop, size: int) -> tuple[Picture, Crop]:
        needed = size * max(short_side / min(crop.width, crop.height) / max_enlargement, 1)
        fitting = (place for place, side in enumerate(pyramid.short_sides) if side >= needed)
        place = next(fitting, len(pyramid.short_sides) - 1)
        # A copy is whole: it comes from our encoder, and with a checksum.
        copy = open_image(pyramid.read(place), is_whole=True, scans=scans and scans.of_copy(place))
        return copy, crop.scaled(copy.width / pyramid.width, copy.height / pyramid.height)

    def decode(crop: Crop, size: int, antialias: bool) -> _Part:
        copy, scaled = fetch(crop, size)
        return copy.decode(scaled, size, antialias=antialias)

    return Picture(pyramid.height, pyramid.width, 0, decode, fetch)


def _jpeg_picture(encoded: bytes, is_whole: bool, scans: ImageScans | None) -> Picture | None:
    """Read the header of a JPEG file; None where Pillow has to decode it."""
    header = read_header(encoded)
    if header is None:
        return None
    is_cmyk = header.colorspace in ("CMYK", "YCCK")
    if is_cmyk or (header.colorspace == "Gray" and header.profile):
        decode_jpeg(encoded, header, shrink=_JPEG_SHRINKS[0], is_cmyk=is_cmyk)  # Pillow is less strict.
        return None
    to_srgb = srgb_transform(header.profile, "RGB") if header.profile else None

    def decode(crop: Crop, size: int, antialias: bool) -> _Part:
        shrink = _shrink(crop, size) if antialias else 1
        margin = crop.scaled(1 / shrink, 1 / shrink).margin(size) if antialias else 0
        part = (
            _decode_around(encoded, header, scans, crop, margin=margin * shrink, shrink=shrink)
            if scans
            else None
        )
        if part is None and is_whole and shrink == 1:
            part = _decode_top(encoded, header, crop, margin)
        part = part or _decode_whole(encoded, header, crop, shrink)
        if to_srgb is None:
            return part
        pixels, crop = _cut(*part, margin)
        return convert_pixels(pixels, to_srgb), crop

    return Picture(*_upright_shape(header), len(encoded), decode)


def _upright_shape(header: JpegHeader) -> tuple[int, int]:
    is_turned = header.orientation >= 5
    return (header.width, header.height) if is_turned else (header.height, header.width)


def _decode_whole(encoded: bytes, header: JpegHeader, crop: Crop, shrink: int) -> _Part:
    """Decode all of a file, at a share of its size."""
    pixels = upright(decode_jpeg(encoded, header, shrink=shrink), header.orientation)
    # The last stored pixels of a smaller copy may reach over the border; a mirrored copy starts with them.
    over = [shrink * small - side for small, side in zip(pixels.shape, _upright_shape(header), strict=False)]
    y, x = (start * mirrored for start, mirrored in zip(over, is_mirrored(header.orientation), strict=True))
    return pixels, crop._replace(x=crop.x + x, y=crop.y + y).scaled(1 / shrink, 1 / shrink)


def _decode_around(
    encoded: bytes, header: JpegHeader, scans: ImageScans, crop: Crop, *, margin: int, shrink: int
) -> _Part | None:
    """Decode a crop and a margin alone, at a share of their size, where that is possible and worth it."""
    shape, orientation = _upright_shape(header), header.orientation
    rows, columns = _around(crop, margin, *shape)
    if not saves_enough(header, len(encoded), rows, columns):
        return None
    index = scans.find(encoded, header)
    part = index is not None and decode_part(
        encoded, index, *stored_places(rows, columns, shape, orientation), shrink=shrink
    )
    if not part:
        return None
    pixels = upright(part.pixels, orientation)
    corner = (part.left, part.top) if orientation >= 5 else (part.top, part.left)
    y, x = (
        side - start - shrink * small if mirrored else start
        for start, small, side, mirrored in zip(
            corner, pixels.shape, shape, is_mirrored(orientation), strict=False
        )
    )
    return pixels, crop._replace(x=crop.x - x, y=crop.y - y).scaled(1 / shrink, 1 / shrink)


def _decode_top(encoded: bytes, header: JpegHeader, crop: Crop, margin: int) -> _Part | None:
    """Decode a crop and what is above it alone, where that is possible and worth it."""
    rows, _ = _around(crop, margin, header.height, header.width)
    # It was whole once, but files change.
    if header.orientation != 1 or not saves_rows(header, rows.stop) or not has_end(encoded, header):
        return None
    pixels = decode_top(encoded, header, rows.stop)
    return None if pixels is None else (pixels, crop)


def _cut(pixels: UInt8[np.ndarray, "H W 3"], crop: Crop, margin: int) -> _Part:
    rows, columns = _around(crop, margin, *pixels.shape[:2])
    return pixels[rows, columns], crop._replace(x=crop.x - columns.start, y=crop.y - rows.start)


def _shrink(crop: Crop, size: int) -> int:
    """Return by how much the sides may be divided while a file is decoded."""
    ratio = min(crop.width, crop.height) / size
    return next((shrink for shrink in _JPEG_SHRINKS if ratio >= shrink * _LEAST_REDUCTION), 1)


def _around(crop: Crop, margin: int, height: int, width: int) -> tuple[slice, slice]:
    """Return rows and columns of a crop and a margin, inside the image."""
    # From even places on, so that a half is rounded to the same pixel as in the whole.
    top, left = (math.floor(start - margin) // 2 * 2 for start in (crop.y, crop.x))
    bottom, right = math.ceil(crop.y + crop.height) + margin, math.ceil(crop.x + crop.width) + margin
    return slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))
