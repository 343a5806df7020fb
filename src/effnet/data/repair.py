"""Make a picture of a JPEG or PNG file that breaks off: what there is, with grey for the rest.

Dimension key: H height, W width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from effnet.data.jpeg import JPEG_END, JPEG_START
from effnet.data.orientation import orientation_of, upright
from effnet.data.pillow import PNG_START, BadImageError, opened, to_rgb

LEAST_ROWS = 0.5
"""A picture of which less than this share of the rows is there is not worth repairing."""

GREY = 128
"""What missing rows are filled with, of 255."""

# What decoders leave where there is no data; libjpeg's grey may become 127 on its way through CMYK.
_FILLING = {JPEG_START: (GREY, GREY - 1), PNG_START: (0,)}


class Repaired(NamedTuple):
    """A picture, not all of which is real."""

    pixels: UInt8[np.ndarray, "H W 3"]
    """Upright."""
    reason: str
    """What is wrong with it, in a few words."""


def repair_image(encoded: bytes, reason: str) -> Repaired:
    """Decode what there is of a file that breaks off.

    Args:
        encoded: The file.
        reason: Why it could not be decoded.

    Raises:
        BadImageError: It is of another format, damaged otherwise, or has too little to show.
    """
    for content in _ended(encoded):
        try:
            pixels, real, orientation = _decode(content)
        except BadImageError:
            continue
        if real < LEAST_ROWS * len(pixels):
            raise BadImageError(f"{reason}; only {real} of {len(pixels)} rows are there")
        pixels[real:] = GREY
        grey = f"{len(pixels) - real} of {len(pixels)} rows are grey"
        return Repaired(upright(pixels, orientation), f"{reason}; repaired, {grey}")
    raise BadImageError(reason)


def _ended(encoded: bytes) -> list[bytes]:
    """Return what of a file a decoder may make something of, the most first."""
    if encoded.startswith(PNG_START):
        return [encoded]
    if not encoded.startswith(JPEG_START):
        return []
    # At an end marker libjpeg fills up what is missing. If the file breaks off inside a table or the head
    # of a scan, it has to end before that.
    last_head = max(encoded.rfind(marker) for marker in (b"\xff\xc4", b"\xff\xda"))
    return [encoded + JPEG_END, encoded[:last_head] + JPEG_END]


def _decode(encoded: bytes) -> tuple[UInt8[np.ndarray, "H W 3"], int, int]:
    """Return the pixels as stored, how many rows of them are real, and the orientation."""
    with opened(encoded) as file:
        try:
            file.load()
        except OSError:
            if not encoded.startswith(PNG_START) or file.info.get("interlace"):
                raise
            # The rows so far are in place; without tiles, Pillow believes that there is nothing to add.
            file.tile = []
        return np.array(to_rgb(file)), _real_rows(np.asarray(file), encoded), orientation_of(file)


def _real_rows(stored: np.ndarray, encoded: bytes) -> int:
    """Return how many rows there are above those that hold nothing but filling."""
    filling = next(levels for start, levels in _FILLING.items() if encoded.startswith(start))
    is_real = ~np.isin(stored, filling).reshape(len(stored), -1).all(axis=1)
    return int(np.flatnonzero(is_real)[-1]) + 1 if is_real.any() else 0
