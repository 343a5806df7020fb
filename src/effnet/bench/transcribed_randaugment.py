"""timm's RandAugment (``rand-m10-n2-p1``) in Pillow, in our own words.

An image gets two of fifteen operations, each drawn uniformly, with replacement. ``p1`` applies both always,
as the paper and the release do and as ours does; timm's own default leaves each out half of the times.
Against the release, timm's set lacks Cutout, its translations are a share of the image, and it moves pixels
with the crop's filter, bicubic, where the release looks up the nearest.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TypeAlias

from PIL import Image, ImageEnhance, ImageOps

from effnet.bench.workload import MAGNITUDE, OPERATIONS

FILL = (124, 116, 104)
"""ImageNet's mean colour."""
_LEVEL = MAGNITUDE / 10

Operations: TypeAlias = Mapping[str, Callable[[Image.Image, int], Image.Image]]
"""Under timm's names: (image, sign) -> image; the sign, 1 or -1, matters to those that move pixels."""


def operations(resampling: Image.Resampling) -> Operations:
    """Return the operations at `MAGNITUDE`.

    Args:
        resampling: How those that move pixels look them up.
    """

    def affine(image: Image.Image, *coefficients: float) -> Image.Image:
        method = Image.Transform.AFFINE
        return image.transform(image.size, method, coefficients, resampling, fillcolor=FILL)

    factor = 1.8 * _LEVEL + 0.1
    shear, share = 0.3 * _LEVEL, 0.45 * _LEVEL
    return {
        "AutoContrast": lambda image, sign: ImageOps.autocontrast(image),
        "Equalize": lambda image, sign: ImageOps.equalize(image),
        "Invert": lambda image, sign: ImageOps.invert(image),
        "Rotate": lambda image, sign: image.rotate(sign * 30 * _LEVEL, resampling, fillcolor=FILL),
        "Posterize": lambda image, sign: ImageOps.posterize(image, int(4 * _LEVEL)),
        "Solarize": lambda image, sign: ImageOps.solarize(image, int(256 * _LEVEL)),
        "SolarizeAdd": lambda image, sign: _solarize_add(image, int(110 * _LEVEL)),
        "Color": lambda image, sign: ImageEnhance.Color(image).enhance(factor),
        "Contrast": lambda image, sign: ImageEnhance.Contrast(image).enhance(factor),
        "Brightness": lambda image, sign: ImageEnhance.Brightness(image).enhance(factor),
        "Sharpness": lambda image, sign: ImageEnhance.Sharpness(image).enhance(factor),
        "ShearX": lambda image, sign: affine(image, 1, sign * shear, 0, 0, 1, 0),
        "ShearY": lambda image, sign: affine(image, 1, 0, 0, sign * shear, 1, 0),
        "TranslateXRel": lambda image, sign: affine(image, 1, 0, sign * share * image.width, 0, 1, 0),
        "TranslateYRel": lambda image, sign: affine(image, 1, 0, 0, 0, 1, sign * share * image.height),
    }


def _solarize_add(image: Image.Image, addition: int) -> Image.Image:
    return image.point([min(level + addition, 255) if level < 128 else level for level in range(256)] * 3)


BICUBIC = operations(Image.Resampling.BICUBIC)
"""timm's."""
NEAREST = operations(Image.Resampling.NEAREST)
"""With the release's way to move pixels, which costs much less."""


def randaugment(image: Image.Image, draws: random.Random, table: Operations = BICUBIC) -> Image.Image:
    """Apply random operations."""
    for operation in draws.choices(tuple(table.values()), k=OPERATIONS):
        image = operation(image, -1 if draws.random() > 0.5 else 1)
    return image
