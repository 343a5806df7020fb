"""Whether a prepared store keeps pixels or JPEG files, where nobody has said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import numpy as np

from effnet.data.copying import sample_of
from effnet.data.decode import image_size
from effnet.data.images import LabelledImages, Pyramid
from effnet.data.pillow import BadImageError
from effnet.data.prepare import open_originals
from effnet.data.selection import ALL, Selection
from effnet.data.shards import begun_plan
from effnet.data.store import Encoding, copy_levels, level_shape
from effnet.errors import UserError

MOST_PIXEL_BYTES = 2_000_000_000
"""Of all copies as pixels, which a machine's memory holds while it trains."""


def choose_encoding(
    source: str, short_sides: tuple[int, ...], *, out: Path | None = None, selection: Selection = ALL
) -> Encoding:
    """Choose pixels where all copies together are few enough to stay in memory, else JPEG.

    Args:
        source: As of `effnet.data.prepare.prepare_store`.
        short_sides: Of the copies, in pixels.
        out: Folder of the store; one that was begun goes on as it was.
        selection: Which splits and columns to use.

    Raises:
        UserError: There is no such data, none of the images that were tried can be read, or the journal in
            ``out`` is damaged.
    """
    begun = begun_plan(out) if out is not None else None
    if begun is not None:
        return begun.settings.encoding
    originals = list(open_originals(source, selection).values())
    return "raw" if pixel_bytes(originals, short_sides) <= MOST_PIXEL_BYTES else "jpeg"


def pixel_bytes(splits: Sequence[LabelledImages], short_sides: tuple[int, ...]) -> float:
    """Predict the bytes of all copies as pixels, by the sizes of some images of every split.

    Raises:
        UserError: None of the images that were tried can be read.
    """
    total, readable = 0.0, False
    for images in splits:
        sizes = [size for index in sample_of(images) if (size := _copies_bytes(images, index, short_sides))]
        readable |= bool(sizes)
        total += len(images) * mean(sizes or [0])
    if not readable:
        raise UserError("none of the images that were tried can be read")
    return total


def _copies_bytes(images: LabelledImages, index: int, short_sides: tuple[int, ...]) -> int:
    """Return the bytes of an image's copies as pixels; 0 where it cannot be read."""
    try:
        encoded = images.read(index)
        assert not isinstance(encoded, Pyramid)
        # Which way up does not matter for their number.
        height, width = image_size(encoded) if isinstance(encoded, bytes) else encoded.shape[:2]
    except (BadImageError, OSError):
        return 0
    levels = copy_levels(height, width, short_sides)
    return sum(3 * int(np.prod(level_shape(height, width, level))) for level in levels)
