"""From the bytes of an image file to RGB pixels, strictly: a damaged file is an error, never grey pixels.

Dimension key: H height, W width.
"""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 89_478_485
"""Images of more pixels are refused unread; it is the number from which Pillow suspects an attack."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_JPEG_START = b"\xff\xd8"
_FAST_COLORSPACES = {"YCbCr", "Gray", "RGB"}
_EXIF_START = b"Exif\0\0"
_EXIF_SEARCH_BYTES = 1 << 16
_ORIENTATION_TAG = 0x0112

cv2.setNumThreads(0)  # Each of our threads prepares images of its own.


class BadImageError(Exception):
    """An image that cannot be used.

    Args:
        reason: Why, in a few words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode_image(encoded: bytes | UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Decode an image file, upright as its EXIF orientation says.

    Args:
        encoded: A JPEG, PNG, WebP, BMP, GIF, TIFF or PPM file, of which only the first frame counts;
            or pixels, which are returned as they are.

    Returns:
        uint8, HWC, RGB, [0, 255]. Grey is repeated, 16 bits become 8, and what is transparent lies on
        white.

    Raises:
        BadImageError: The file is empty, damaged, truncated, no image, or has more than `MAX_PIXELS`.
    """
    if isinstance(encoded, np.ndarray):
        return encoded
    if not encoded:
        raise BadImageError("the file is empty")
    if encoded.startswith(_JPEG_START):
        pixels = _decode_jpeg(encoded)
        if pixels is not None:
            return pixels
    return _decode_with_pillow(encoded)


def _decode_jpeg(encoded: bytes) -> UInt8[np.ndarray, "H W 3"] | None:
    """Decode without holding the GIL; None where Pillow has to look at the file."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(encoded)
        if colorspace not in _FAST_COLORSPACES:
            return None
        _check_pixels(height, width)
        pixels = simplejpeg.decode_jpeg(encoded)
    except ValueError as error:
        # Pillow would fill up with grey what is missing before an end-of-image marker.
        if "premature end" in str(error).lower():
            raise BadImageError("the JPEG data is truncated") from error
        return None
    return _upright(pixels, _orientation(encoded))


def _check_pixels(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise BadImageError(f"{width} x {height} pixels; at most {MAX_PIXELS} are read")


def _orientation(encoded: bytes) -> int:
    """Return the EXIF orientation of a JPEG file, 1 to 8; most files have no EXIF and cost no parsing."""
    if encoded.find(_EXIF_START, 0, _EXIF_SEARCH_BYTES) < 0:
        return 1
    try:
        with Image.open(io.BytesIO(encoded), formats=("JPEG",)) as image:
            return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # Parsing arbitrary bytes; the pixels are good, so the picture counts.
        return 1


def _upright(pixels: UInt8[np.ndarray, "H W 3"], orientation: int) -> UInt8[np.ndarray, "H2 W2 3"]:
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _decode_with_pillow(encoded: bytes) -> UInt8[np.ndarray, "H W 3"]:
    try:
        with Image.open(io.BytesIO(encoded), formats=_FORMATS) as file:
            _check_pixels(file.height, file.width)
            return np.array(_to_rgb(ImageOps.exif_transpose(file)))
    except BadImageError:
        raise
    except UnidentifiedImageError as error:
        raise BadImageError("not an image of a known format") from error
    except Exception as error:  # Pillow's decoders raise a dozen different types on damaged files.
        raise BadImageError(str(error) or type(error).__name__) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise BadImageError("floating-point pixels have no known range")
    if image.mode.startswith("I"):
        levels: np.ndarray[Any, Any] = np.asarray(image).clip(0, 65535)
        image = Image.fromarray((levels.astype(np.uint16) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
