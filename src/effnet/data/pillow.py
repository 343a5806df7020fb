"""What the fast path does not read, by Pillow: other formats, other colours, and files that are unusual."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

MAX_PIXELS = 89_478_485
"""Images of more pixels are refused unread; it is the number from which Pillow suspects an attack."""

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM")
_ORIENTATION_TAG = 0x0112


class BadImageError(Exception):
    """An image that cannot be used.

    Args:
        reason: Why, in a few words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def check_pixels(height: int, width: int) -> None:
    """Refuse an image that is too large.

    Raises:
        BadImageError: It has more than `MAX_PIXELS`.
    """
    if height * width > MAX_PIXELS:
        raise BadImageError(f"{width} x {height} pixels; at most {MAX_PIXELS} are read")


def jpeg_orientation(encoded: bytes) -> int:
    """Return the EXIF orientation of a JPEG file, 1 to 8; 1 where there is none that makes sense."""
    try:
        with Image.open(io.BytesIO(encoded), formats=("JPEG",)) as image:
            orientation = int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # Parsing arbitrary bytes; the pixels are good, so the picture counts.
        return 1
    return orientation if 1 <= orientation <= 8 else 1


@lru_cache(maxsize=64)
def is_srgb(profile: bytes) -> bool:
    """Whether colours of an ICC profile can be taken as sRGB; so are those of a profile that is damaged."""
    try:
        described = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return True
    return "srgb" in described.lower()


def decode_with_pillow(encoded: bytes) -> UInt8[np.ndarray, "H W 3"]:
    """Decode the first frame of a file of one of `FORMATS`.

    Raises:
        BadImageError: It is none, damaged, or too large.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as file:
            check_pixels(file.height, file.width)
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
