"""Which rectangle of an image to look at; geometry only, no pixels.

Dimension key: H height, W width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from effnet.config import DataConfig

CROP_ATTEMPTS = 100


class Crop(NamedTuple):
    """A rectangle of an image, in pixels; from the left and from the top."""

    x: float
    y: float
    width: float
    height: float

    def scaled(self, horizontally: float, vertically: float) -> Crop:
        """Return the same rectangle of a copy that has other numbers of pixels."""
        return Crop(
            self.x * horizontally,
            self.y * vertically,
            self.width * horizontally,
            self.height * vertically,
        )

    def rounded(self, height: int, width: int) -> tuple[slice, slice]:
        """Return rows and columns of whole pixels, at least one of each, inside ``height`` x ``width``."""
        top, left = min(round(self.y), height - 1), min(round(self.x), width - 1)
        bottom = min(max(round(self.y + self.height), top + 1), height)
        right = min(max(round(self.x + self.width), left + 1), width)
        return slice(top, bottom), slice(left, right)

    def margin(self, size: int) -> int:
        """Return how many pixels beside it a bicubic filter looks at that makes ``size`` pixels of a side."""
        return 2 * max(math.ceil(max(self.width, self.height) / size), 1)


def draw_crop(height: int, width: int, config: DataConfig, rng: np.random.Generator) -> Crop:
    """Draw a training crop; at least one pixel, never over the border, in whole pixels.

    In mode ``squash`` it is the whole image, and nothing is drawn.

    As released (TensorFlow's ``sample_distorted_bounding_box``): the aspect is uniform in its range, then
    the height is uniform between those that give the smallest and the largest area, as far as the image
    reaches. After 100 attempts without a crop that is large enough, the whole image is taken.
    """
    for _ in range(CROP_ATTEMPTS if config.crop_mode == "random" else 0):
        aspect = rng.uniform(*config.crop_aspect)
        smallest, largest = (round(math.sqrt(area * height * width / aspect)) for area in config.crop_area)
        largest = min(largest, height, int((width + 0.5) / aspect))
        if smallest <= largest:
            crop_height = max(int(rng.integers(smallest, largest, endpoint=True)), 1)
            crop_width = min(max(round(crop_height * aspect), 1), width)
            x = int(rng.integers(width - crop_width, endpoint=True))
            y = int(rng.integers(height - crop_height, endpoint=True))
            return Crop(x, y, crop_width, crop_height)
    return Crop(0, 0, width, height)


def center_crop(height: int, width: int, fraction: float) -> Crop:
    """Return the square in the middle whose side is ``fraction`` of the short side; not rounded."""
    side = fraction * min(height, width)
    return Crop((width - side) / 2, (height - side) / 2, side, side)
