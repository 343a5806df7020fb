"""Rectangles of noise: Cutout as released for fine-tuning, and random erasing (1708.04896).

The noise of a patch is a pure function of one number that is drawn for it and of a pixel's place, so that it
is the same wherever it is made.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeVar

import numpy as np

from effnet.data.pixels import Pixels

ERASED_AREA = (0.02, 0.4)
"""Smallest and largest area that is erased, as a share of the image (1708.04896, section 4)."""
ERASED_ASPECT = (0.3, 1 / 0.3)
"""Smallest and largest height / width of what is erased."""

Numbers = TypeVar("Numbers", bound=Any)
"""An array or a tensor; torch is not imported for its name, since processes that need none wait for it."""

_TRIES = 100
_CUTOUT_LOWEST = 128
_WORD = 0xFFFFFFFF


class Patch(NamedTuple):
    """A rectangle of noise, in pixels; it may be empty."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0
    key: int = 0
    """Of the noise, 32 bits."""
    lowest: int = 0
    """Level of the noise, which goes up to 255; 0 or 128."""


def draw_cutout(size: int, share: float, rng: np.random.Generator) -> Patch:
    """Draw the square that the released fine-tuning covers, as in 1708.04552.

    Its centre is drawn uniformly in the image, over whose border the square may reach. Its noise is uniform
    between 128 and 255: the release fills with U[0, 1) behind a normalisation to [-1, 1].

    Args:
        size: Side of the image in pixels.
        share: Half of the square's side as a share of the image's; the release has a quarter.
        rng: Where the place and the noise are drawn.
    """
    half = int(share * size)
    x, y = int(rng.integers(size)), int(rng.integers(size))
    left, top, right, bottom = max(x - half, 0), max(y - half, 0), min(x + half, size), min(y + half, size)
    return Patch(left, top, right, bottom, _key(rng), _CUTOUT_LOWEST)


def draw_erasing(size: int, probability: float, rng: np.random.Generator) -> Patch:
    """Draw whether and where random erasing covers an image with noise (1708.04896, algorithm 1).

    Area and aspect are drawn uniformly, again and again until the rectangle fits. Its noise is uniform
    between 0 and 255.

    Args:
        size: Side of the image in pixels.
        probability: That there is anything to erase.
        rng: Where everything is drawn.
    """
    if rng.random() >= probability:
        return Patch()
    for _ in range(_TRIES):
        area = rng.uniform(*ERASED_AREA) * size * size
        aspect = rng.uniform(*ERASED_ASPECT)
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        left, top = int(rng.integers(size)), int(rng.integers(size))
        if left + width <= size and top + height <= size:
            return Patch(left, top, left + width, top + height, _key(rng))
    return Patch()


def cover(image: Pixels, patch: Patch) -> None:
    """Fill a rectangle of an image with its noise, in place.

    Args:
        image: uint8, HWC, RGB.
        patch: Inside the image.
    """
    if patch.bottom <= patch.top or patch.right <= patch.left:
        return
    rows = np.arange(patch.top, patch.bottom)[:, None]
    numbers = rows * image.shape[1] + np.arange(patch.left, patch.right) + patch.key
    # The lowest byte first, as in `effnet.data.device_augment`.
    levels = noise(numbers).astype("<u4").view(np.uint8).reshape(*numbers.shape, 4)
    image[patch.top : patch.bottom, patch.left : patch.right] = levels[..., :3] | np.uint8(patch.lowest)


def noise(numbers: Numbers) -> Numbers:
    """Return 32 random bits for each number, as a hash: any arithmetic on whole numbers gives the same.

    Args:
        numbers: From 0; only their lowest 32 bits count. An array or a tensor.
    """
    # Thomas Mueller's hash; no product leaves 63 bits.
    numbers = numbers & _WORD
    for _ in range(2):
        numbers = ((numbers >> 16) ^ numbers) * 0x45D9F3B & _WORD
    return (numbers >> 16) ^ numbers


def _key(rng: np.random.Generator) -> int:
    return int(rng.integers(_WORD + 1))
