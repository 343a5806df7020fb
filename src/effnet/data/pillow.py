"""What the fast path does not read, by Pillow: other formats, other colours, and files that are unusual.

Dimension key: H height, W width.
"""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import UInt8
from PIL import AvifImagePlugin, Image, ImageFile

from effnet.data.color import srgb_transform
from effnet.data.orientation import orientation_of, upright

MAX_PIXELS = 89_478_485
"""Images of more pixels are refused unread; it is the number from which Pillow suspects an attack."""

BACKGROUND = "white"
"""What transparent pixels lie on."""

PNG_START = b"\x89PNG\r\n\x1a\n"

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM")

_GREY_MODES = ("1", "L", "LA")
_LONGEST_REASON = 100

AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # Each of our threads prepares images of its own.
# What Pillow only warns of, it can read; and what it cannot is reported with the file's name.
warnings.filterwarnings("ignore", module=r"PIL\.")


class BadImageError(Exception):
    """An image that cannot be used.

    Args:
        reason: Why, in a few words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TruncatedImageError(BadImageError):
    """An image file that breaks off; `effnet.data.repair` may make something of it."""


def check_pixels(height: int, width: int) -> None:
    """Refuse an image that is too large.

    Raises:
        BadImageError: It has more than `MAX_PIXELS`.
    """
    if height * width > MAX_PIXELS:
        raise BadImageError(f"{width} x {height} pixels; at most {MAX_PIXELS} are read")


def decode_with_pillow(encoded: bytes) -> UInt8[np.ndarray, "H W 3"]:
    """Decode the first frame of a file of one of `FORMATS`, upright.

    Raises:
        BadImageError: It is none, damaged, or too large.
        TruncatedImageError: It breaks off.
    """
    if encoded.startswith(PNG_START):
        _check_png(encoded)
    with opened(encoded) as file:
        file.load()
        return upright(np.array(to_rgb(file)), orientation_of(file))


@contextmanager
def opened(encoded: bytes) -> Iterator[ImageFile.ImageFile]:
    """Open a file of one of `FORMATS`, to be loaded inside; what goes wrong there becomes a reason.

    Raises:
        BadImageError: The file is no image, damaged, or too large.
        TruncatedImageError: It breaks off.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as file:
            check_pixels(file.height, file.width)
            yield file
    except BadImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(f"far more pixels than the {MAX_PIXELS} that are read") from error
    except Exception as error:  # Pillow's decoders raise a dozen different types on damaged files.
        raise _bad_image(encoded, str(error) or type(error).__name__) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to sRGB without alpha: grey is repeated, 16 bits become 8, transparent becomes `BACKGROUND`.

    Raises:
        BadImageError: The range of the pixels is not known: they are fractions, signed, or of 32 bits.
    """
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        kind = "floating-point" if image.mode == "F" else "signed or 32-bit"
        raise BadImageError(f"{kind} pixels have no known range")
    profile = image.info.get("icc_profile")
    colors, alpha = _colors_and_alpha(image)
    transform = srgb_transform(profile, colors.mode) if profile else None
    colors = transform.apply(colors) if transform else colors.convert("RGB")
    if alpha is None:
        return colors
    background = Image.new("RGB", colors.size, BACKGROUND)
    background.paste(colors, mask=alpha)
    return background


def _check_png(encoded: bytes) -> None:
    """Check what Pillow does not: the checksums of the pixels."""
    start, view = len(PNG_START), memoryview(encoded)
    while start + 12 <= len(encoded):
        end = start + 8 + int.from_bytes(view[start : start + 4], "big")
        name, checksum = view[start + 4 : start + 8], view[end : end + 4]
        is_checked = name.tobytes() == b"IDAT" and len(checksum) == 4
        if is_checked and zlib.crc32(view[start + 4 : end]) != int.from_bytes(checksum, "big"):
            raise BadImageError("the PNG file is damaged: a checksum is wrong")
        start = end + 4


def _colors_and_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return pixels of mode L, RGB, CMYK or LAB, and how opaque they are."""
    if image.mode.startswith("I"):
        return _from_16_bits(np.asarray(image), image.info.get("transparency"))
    if image.has_transparency_data:
        solid = image.convert("RGBA")
        colors = solid.getchannel("R") if image.mode in _GREY_MODES else solid.convert("RGB")
        return colors, solid.getchannel("A")
    if image.mode in _GREY_MODES:
        return image.convert("L"), None
    return (image if image.mode in ("CMYK", "LAB") else image.convert("RGB")), None


def _from_16_bits(levels: np.ndarray, transparent: int | None) -> tuple[Image.Image, Image.Image | None]:
    grey = Image.fromarray((levels.clip(0, 65535).astype(np.uint16) >> 8).astype(np.uint8))
    if transparent is None:
        return grey, None
    return grey, Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8))


def _bad_image(encoded: bytes, message: str) -> BadImageError:
    """Say in a few words what a decoder says in its own."""
    kind = next((name for name in FORMATS if _starts_like(encoded, name)), None)
    if kind is None:
        return BadImageError("not an image of a known format")
    message = message.removesuffix(" when reading image file")
    if "truncated" in message.lower():
        return TruncatedImageError(f"the {kind} data is truncated")
    if "cannot identify" in message:
        return BadImageError(f"the {kind} file is damaged")
    return BadImageError(f"the {kind} file is damaged: {message[:_LONGEST_REASON]}")


def _starts_like(encoded: bytes, kind: str) -> bool:
    accept = Image.OPEN[kind][1]
    return accept is not None and accept(encoded[:16]) is True
