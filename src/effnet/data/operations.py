"""What RandAugment, AutoAugment and TrivialAugment do to an image, once it is drawn what.

Operations that move the image look pixels up at the nearest place and fill with grey 128. Grey levels and
rounding are Pillow's, which TensorFlow's agree with to one level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

from effnet.data import pixels
from effnet.data.pixels import Pixels

Argument: TypeAlias = Callable[[float, int, int], float]
"""(strength, sign, image size in pixels) -> the operation's argument. Policies count strength differently."""
Place: TypeAlias = tuple[int, int]
"""Pixels from the left and from the top; only cutout has one."""
Apply: TypeAlias = Callable[[Pixels, float, Place], Pixels]
Matrix: TypeAlias = Callable[[float, int, int], list[list[float]]]
"""(argument, height, width) -> from a pixel's place in the result to its place in the image."""


class Drawn(NamedTuple):
    """One operation as it was drawn for one image."""

    kind: str
    """A name in `KINDS`."""
    argument: float
    place: Place


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of a policy: its kind, and its argument at which strength."""

    kind: str
    """A name in `KINDS`."""
    argument: Argument

    def draw(self, strength: float, size: int, rng: np.random.Generator) -> Drawn:
        """Draw the sign, and cutout's place, in an image of ``size`` x ``size`` pixels.

        Args:
            strength: As the policy counts it.
            size: Pixels.
            rng: Where they are drawn.
        """
        sign = 1 if rng.random() < 0.5 else -1
        place = (int(rng.integers(size)), int(rng.integers(size))) if self.kind == "Cutout" else (0, 0)
        return Drawn(self.kind, self.argument(strength, sign, size), place)


def apply_operations(image: Pixels, drawn: Iterable[Drawn]) -> Pixels:
    """Apply operations one after the other.

    Args:
        image: uint8, HWC, RGB; left as it is.
        drawn: What was drawn for it.

    Returns:
        Pixels of the same shape; the image itself where nothing was to be done.
    """
    for kind, argument, place in drawn:
        image = KINDS[kind](image, argument, place)
    return image


def without_strength(kind: str) -> Operation:
    """Return an operation that has no argument."""
    return Operation(kind, lambda level, sign, size: 0.0)


def _rotation(degrees: float, height: int, width: int) -> list[list[float]]:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = (width - 1) / 2, (height - 1) / 2
    return [[cosine, -sine, x - cosine * x + sine * y], [sine, cosine, y - sine * x - cosine * y]]


MATRICES: dict[str, Matrix] = {
    "Rotate": _rotation,
    "ShearX": lambda shear, height, width: [[1, shear, 0], [0, 1, 0]],
    "ShearY": lambda shear, height, width: [[1, 0, 0], [shear, 1, 0]],
    "TranslateX": lambda distance, height, width: [[1, 0, distance], [0, 1, 0]],
    "TranslateY": lambda distance, height, width: [[1, 0, 0], [0, 1, distance]],
}
"""The kinds that move the image."""


def _affine(name: str) -> Apply:
    def apply(image: Pixels, argument: float, place: Place) -> Pixels:
        matrix: Float[np.ndarray, "2 3"] = np.array(MATRICES[name](argument, *image.shape[:2]), np.float64)
        return pixels.affine(image, matrix)

    return apply


def _plain(change: Callable[[Pixels], Pixels]) -> Apply:
    return lambda image, argument, place: change(image)


def _with_integer(change: Callable[[Pixels, int], Pixels]) -> Apply:
    return lambda image, argument, place: change(image, int(argument))


def _with_factor(change: Callable[[Pixels, float], Pixels]) -> Apply:
    return lambda image, argument, place: change(image, argument)


def _cutout(image: Pixels, half_side: float, place: Place) -> Pixels:
    x, y = place
    return pixels.cutout(image, int(half_side), x=x, y=y)


KINDS: dict[str, Apply] = {
    "Identity": _plain(lambda image: image),
    "AutoContrast": _plain(pixels.autocontrast),
    "Equalize": _plain(pixels.equalize),
    "Invert": _plain(pixels.invert),
    "Posterize": _with_integer(pixels.posterize),
    "Solarize": _with_integer(pixels.solarize),
    "SolarizeAdd": _with_integer(pixels.solarize_add),
    "Color": _with_factor(pixels.color),
    "Contrast": _with_factor(pixels.contrast),
    "ContrastAsReleased": _with_factor(pixels.contrast_as_released),
    "Brightness": _with_factor(pixels.brightness),
    "Sharpness": _with_factor(pixels.sharpness),
    **{name: _affine(name) for name in MATRICES},
    "Cutout": _cutout,
}
"""All kinds of operations. The argument is degrees, pixels, bits, a level or a factor, if there is one."""
