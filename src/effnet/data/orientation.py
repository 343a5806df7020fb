"""Which way up an image file is to be shown, by its EXIF or XMP data.

Dimension key: H height, W width.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image


def orientation_of(image: Image.Image) -> int:
    """Return an image's EXIF orientation, 1 to 8; 1 where there is none that makes sense.

    Args:
        image: Its ``info`` counts; TIFF files are turned by Pillow and have none after that.
    """
    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Parsing arbitrary bytes; the pixels may be good, so the picture counts.
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def parse_orientation(exif: bytes, xmp: bytes) -> int:
    """Return the orientation that a file's EXIF data says, or else its XMP data.

    Args:
        exif: With or without its ``Exif`` header; empty where there is none.
        xmp: Empty where there is none.
    """
    if not exif and not xmp:
        return 1
    holder = Image.Image()
    holder.info = {key: value for key, value in (("exif", exif), ("xmp", xmp)) if value}
    return orientation_of(holder)


def is_mirrored(orientation: int) -> tuple[bool, bool]:
    """Whether the rows, and the columns, of an upright image are stored from the last to the first."""
    return orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)


def upright(pixels: UInt8[np.ndarray, "H W 3"], orientation: int) -> UInt8[np.ndarray, "H2 W2 3"]:
    """Turn and mirror stored pixels as an EXIF orientation says; a view, not always contiguous."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    rows, columns = is_mirrored(orientation)
    return pixels[:: -1 if rows else 1, :: -1 if columns else 1]


def stored_places(
    rows: slice, columns: slice, shape: tuple[int, int], orientation: int
) -> tuple[slice, slice]:
    """Return the stored rows and columns that some rows and columns of an upright image are.

    Args:
        rows: Of the upright image.
        columns: Likewise.
        shape: Height and width of the upright image.
        orientation: As in EXIF, 1 to 8.
    """
    places = [
        slice(side - place.stop, side - place.start) if mirrored else place
        for place, side, mirrored in zip((rows, columns), shape, is_mirrored(orientation), strict=True)
    ]
    if orientation >= 5:
        places.reverse()
    return places[0], places[1]
