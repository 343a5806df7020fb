"""JPEG files by libjpeg-turbo, which does not hold the interpreter's lock: header, verdict and pixels.

Dimension key: H height, W width; as stored, before the orientation counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import simplejpeg
from jaxtyping import UInt8

from effnet.data.orientation import parse_orientation
from effnet.data.pillow import BadImageError, TruncatedImageError, check_pixels

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"

MAX_SCANS = 100
"""A progressive file of more scans is refused: each costs a pass over all pixels, and encoders write ten."""

_EXIF, _XMP, _ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_APP1, _APP2, _SCAN = 0xE1, 0xE2, 0xDA
_PROGRESSIVE_FRAMES = (0xC2, 0xCA)
_SEQUENTIAL_FRAMES = (0xC0, 0xC1)
_RESTARTS = 0xDD
_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xDA), 0xFF})
# Where libjpeg only warns though pixels are lost; its other warnings are of matters of form.
_DAMAGE = re.compile(r"bad (Huffman|arithmetic) code|instead of RST|extraneous bytes before marker 0xd[0-7]")
# Where the first scan's head begins, and ends, in a file of three colours with the usual tables and no more.
_PLAIN_SCAN, _PLAIN_END, _SCAN_START = 609, 623, b"\xff\xda"
_MORE_ROWS = re.compile(r"Corrupt JPEG data: \d+ extraneous bytes before marker 0xd9")
# The colours of a row may be mixed with those of rows below it, which the last rows of a picture lack.
_ROWS_BELOW = 8
# Pixels, and their share of a picture, that it costs as much to decode as to make a copy of the file.
_LEAST_LEFT_OUT, _LEAST_LEFT_OUT_SHARE = 2_000, 1 / 32


class JpegHeader(NamedTuple):
    """What a file says before its pixels."""

    height: int
    width: int
    colorspace: str
    """``YCbCr``, ``RGB``, ``Gray``, ``CMYK`` or ``YCCK``."""
    orientation: int
    """As in EXIF, 1 to 8."""
    profile: bytes
    """ICC; empty where there is none, or not all of it."""
    scan: int
    """Where in the file the first scan starts."""
    height_place: int | None
    """Where in the file the height stands; None unless all pixels follow in one go, from top to bottom."""


def read_header(encoded: bytes) -> JpegHeader | None:
    """Read what a file says before its pixels; None where libjpeg-turbo's own interface does not read it.

    Raises:
        BadImageError: It has too many pixels or scans.
    """
    is_plain = encoded.startswith(_SCAN_START, _PLAIN_SCAN)
    header = _plain_header(encoded[:_PLAIN_END]) if is_plain else None
    if header is None or header.height_place is None:
        header = _header(encoded)
    if header is not None:
        check_pixels(header.height, header.width)
    return header


@lru_cache(maxsize=1024)
def _plain_header(start: bytes) -> JpegHeader | None:
    """Read the header of a file that has nothing else before its pixels: many files share one."""
    return _header(start)


def _header(encoded: bytes) -> JpegHeader | None:
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(encoded)
    except (ValueError, KeyError):  # The latter where colours have a quarter of the rows.
        return None
    exif, xmp, profile_parts, scan = b"", b"", [], len(encoded)
    frame, colors, has_restarts = 0, b"", False
    for marker, start, end in segments(encoded):
        if marker in _SEQUENTIAL_FRAMES:
            frame, colors = start, encoded[start + 5 : start + 6]
        elif marker == _RESTARTS:
            has_restarts = True
        elif marker == _APP1 and encoded.startswith(_EXIF, start):
            exif += encoded[start + len(_EXIF) : end]
        elif marker == _APP1 and encoded.startswith(_XMP, start):
            xmp = encoded[start + len(_XMP) : end]
        elif marker == _APP2 and encoded.startswith(_ICC, start):
            profile_parts.append(encoded[start + len(_ICC) : end])
        elif marker in _PROGRESSIVE_FRAMES:
            _check_scans(encoded)
        scan = end
    # Of all the colours that the frame announces, the first scan has each.
    is_one_scan = frame > 0 and not has_restarts and encoded.startswith(colors, start)
    return JpegHeader(
        height,
        width,
        colorspace,
        parse_orientation(exif, xmp) if exif or xmp else 1,
        _joined(profile_parts) if profile_parts else b"",
        scan,
        frame + 1 if is_one_scan else None,
    )


def decode_jpeg(
    encoded: bytes, header: JpegHeader, *, shrink: int = 1, is_cmyk: bool = False
) -> UInt8[np.ndarray, "H W C"]:
    """Decode a whole file, strictly.

    Args:
        encoded: The file.
        header: Of it.
        shrink: 1, 2, 4 or 8: the sides are divided by this, which costs less than all pixels.
        is_cmyk: Whether to return four colours as they are stored; else RGB.

    Raises:
        BadImageError: It is damaged or of a kind that libjpeg-turbo does not decode.
        TruncatedImageError: It breaks off.
    """
    colorspace = "CMYK" if is_cmyk else "RGB"
    height, width = math.ceil(header.height / shrink), math.ceil(header.width / shrink)
    try:
        return simplejpeg.decode_jpeg(encoded, colorspace, min_height=height, min_width=width)
    except ValueError as error:
        message = str(error)
    # Only the first warning is told: one of form may hide that the file breaks off.
    if "premature end" in message.lower() or not has_end(encoded, header):
        raise TruncatedImageError("the JPEG data is truncated")
    if _DAMAGE.search(message):
        raise BadImageError(f"the JPEG file is damaged: {message.removeprefix('Corrupt JPEG data: ')}")
    # Some complaints are of matters of form, and others keep rows from being written.
    fills = [np.full((height, width, len(colorspace)), level, np.uint8) for level in (0, 255)]
    try:
        for pixels in fills:
            simplejpeg.decode_jpeg(
                encoded, colorspace, min_height=height, min_width=width, buffer=pixels, strict=False
            )
    except ValueError as error:
        raise BadImageError(f"the JPEG file cannot be decoded: {error}") from error
    if not np.array_equal(fills[0], fills[1]):
        raise BadImageError(f"the JPEG file is damaged: {message}")
    return fills[0]


def saves_rows(header: JpegHeader, rows: int) -> bool:
    """Whether `decode_top` can decode the first rows of a file, and is worth it."""
    left_out = (header.height - rows - _ROWS_BELOW) * header.width
    least = max(_LEAST_LEFT_OUT, header.height * header.width * _LEAST_LEFT_OUT_SHARE)
    return header.height_place is not None and left_out >= least


def decode_top(encoded: bytes, header: JpegHeader, rows: int) -> UInt8[np.ndarray, "H W 3"] | None:
    """Decode the first rows of a file alone, strictly as far as they reach: as a picture of less height.

    Args:
        encoded: The file.
        header: Of it; must have a ``height_place``.
        rows: How many are needed.

    Returns:
        RGB, bit for bit as in the whole picture; None where something is wrong with them.
    """
    place, height = header.height_place, min(rows + _ROWS_BELOW, header.height)
    assert place is not None
    shorter = bytearray(encoded)
    shorter[place : place + 2] = height.to_bytes(2, "big")
    pixels = np.empty((height, header.width, 3), np.uint8)
    try:
        simplejpeg.decode_jpeg(shorter, "RGB", buffer=pixels)
    except ValueError as error:
        # What is complained of first is left out below, so nothing was wrong above.
        if not _MORE_ROWS.fullmatch(str(error)):
            return None
    return pixels[:rows]


def has_end(encoded: bytes, header: JpegHeader) -> bool:
    """Whether there is an end marker behind the pixels; a file that was cut off has none."""
    return encoded.rfind(JPEG_END, header.scan) >= 0


def segments(encoded: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker of each segment, the last of which is the first scan's, and where its data lies."""
    place = encoded.find(b"\xff", len(JPEG_START))
    while 0 <= place <= len(encoded) - 4:
        marker, end = encoded[place + 1], place + 1
        if marker not in _WITHOUT_LENGTH:
            # A length counts its own two bytes, which are there whatever it says.
            end = place + 2 + max(int.from_bytes(encoded[place + 2 : place + 4], "big"), 2)
            yield marker, place + 4, end
            if marker == _SCAN:
                return
        place = encoded.find(b"\xff", end)


def _check_scans(encoded: bytes) -> None:
    scans = encoded.count(bytes((0xFF, _SCAN)))
    if scans > MAX_SCANS:
        raise BadImageError(f"a progressive JPEG file of {scans} scans; at most {MAX_SCANS} are read")


def _joined(parts: list[bytes]) -> bytes:
    """Join a profile's parts; each starts with its number, from 1, and how many there are."""
    parts.sort()
    is_complete = all(tuple(part[:2]) == (number, len(parts)) for number, part in enumerate(parts, start=1))
    return b"".join(part[2:] for part in parts) if is_complete else b""
