"""What an image is and looks like, in a few numbers to compare with those of millions of others."""

from __future__ import annotations

import hashlib
import io
from typing import Literal, NamedTuple, TypeAlias

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8, UInt16, UInt64
from PIL import Image

from effnet.data.crops import Crop
from effnet.data.decode import open_image
from effnet.data.images import Encoded, Pyramid

Color = Literal["color", "grey", "CMYK"]
Hash: TypeAlias = UInt64[np.ndarray, " 4"]
Hashes: TypeAlias = UInt64[np.ndarray, "N 4"]

HASH_BITS = 255
"""Of a perceptual hash; the average brightness, which would be the 256th, does not count."""
SMALLEST_COMPARED = 16
"""An image with a shorter side, in pixels, has no hash: it lacks the frequencies."""
_FREQUENCIES, _SIDE = SMALLEST_COMPARED, 32
_LEAST_CONTRAST = 4.0
_JPEG_START = b"\xff\xd8"
_COLORS: dict[str, Color] = {
    "Gray": "grey",
    "1": "grey",
    "L": "grey",
    "LA": "grey",
    "CMYK": "CMYK",
    "YCCK": "CMYK",
}


class Fingerprint(NamedTuple):
    """An image that can be read."""

    height: int
    """Upright, in pixels."""
    width: int
    """Upright, in pixels."""
    format: str
    """Of the file, whatever its name says, such as ``JPEG``; ``pixels`` where there is no file."""
    color: Color
    """How the file stores it."""
    digest: bytes
    """SHA-256 of the file, or of the pixels and their shape: 32 bytes, equal for equal images only."""
    hash: Hash | None
    """See `perceptual_hash`; None for an image that is smaller than 16 pixels or almost uniform: any two of
    those look alike."""


def fingerprint(encoded: Encoded) -> Fingerprint:
    """Decode an image as far as it takes to know that it is whole, and describe it.

    Args:
        encoded: An image file; pixels; or copies of an image, of which the smallest is described, with the
            size of the original.

    Raises:
        BadImageError: The image cannot be decoded.
        OSError: A copy cannot be read.
    """
    height = width = 0
    if isinstance(encoded, Pyramid):
        height, width, encoded = encoded.height, encoded.width, encoded.read(0)
    picture = open_image(encoded)
    whole = Crop(0, 0, picture.width, picture.height)
    # The hash needs few pixels; a JPEG file that is decoded at a scale is still read to its end.
    pixels, _ = picture.decode(whole, _SIDE)
    kind, color = _format_of(encoded)
    is_comparable = min(picture.height, picture.width) >= SMALLEST_COMPARED
    return Fingerprint(
        height=height or picture.height,
        width=width or picture.width,
        format=kind,
        color=color,
        digest=_digest(encoded),
        hash=perceptual_hash(pixels) if is_comparable else None,
    )


def perceptual_hash(pixels: UInt8[np.ndarray, "H W 3"]) -> Hash | None:
    """Return bits of which two images share most where one is a changed copy of the other.

    Each bit is the sign of one of the 16 x 16 lowest frequencies of the grey image at 32 x 32 pixels. A copy
    that was scaled, squashed, blurred, coded again, or changed in brightness and contrast keeps nearly all of
    them; unrelated images share half. The idea is pHash's (Zauner, Implementation and Benchmarking of
    Perceptual Image Hash Functions, 2010) with signs for its comparison with the median, so that a mirrored
    image's hash is known without looking at it: `mirrored`.

    Args:
        pixels: uint8, HWC, RGB; of any size.

    Returns:
        Four words: the 8 x 8 lowest frequencies are the first, the others follow. None for an image that is
        almost uniform.
    """
    small = cv2.resize(np.ascontiguousarray(pixels), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    if grey.std() < _LEAST_CONTRAST:
        return None
    signs = cv2.dct(grey)[:_FREQUENCIES, :_FREQUENCIES] > 0
    signs[0, 0] = False
    return _words(signs)


def mirrored(hashes: Hashes) -> Hashes:
    """Return the hashes of the images' mirror images: every odd horizontal frequency changes its sign."""
    return hashes ^ _MIRROR


def distances(hashes: Hashes, others: Hashes) -> UInt16[np.ndarray, " N"]:
    """Return in how many of the `HASH_BITS` bits hashes differ."""
    return np.bitwise_count(hashes ^ others).sum(-1, dtype=np.uint16)


def _words(signs: np.ndarray) -> Hash:
    """Pack a square of bits with the lowest frequencies, its upper left quarter, first."""
    half = _FREQUENCIES // 2
    quarters = (signs[:half, :half], signs[:half, half:], signs[half:, :half], signs[half:, half:])
    return np.packbits(np.stack(quarters).reshape(-1)).view(np.uint64)


_MIRROR = _words(np.broadcast_to(np.arange(_FREQUENCIES) % 2 == 1, (_FREQUENCIES, _FREQUENCIES)))


def _digest(encoded: bytes | UInt8[np.ndarray, "H W 3"]) -> bytes:
    if isinstance(encoded, bytes):
        return hashlib.sha256(encoded).digest()
    return hashlib.sha256(repr(encoded.shape).encode() + encoded.tobytes()).digest()


def _format_of(encoded: bytes | UInt8[np.ndarray, "H W 3"]) -> tuple[str, Color]:
    """Return what a file that could be decoded says about itself."""
    if not isinstance(encoded, bytes):
        return "pixels", "color"
    if encoded.startswith(_JPEG_START):
        try:
            return "JPEG", _COLORS.get(simplejpeg.decode_jpeg_header(encoded)[2], "color")
        except ValueError:  # Pillow reads more kinds of it.
            return "JPEG", "color"
    with Image.open(io.BytesIO(encoded)) as image:
        return str(image.format), "grey" if image.mode.startswith("I") else _COLORS.get(image.mode, "color")
