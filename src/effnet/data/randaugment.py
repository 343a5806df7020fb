"""RandAugment (1909.13719) in three readings, on uint8 pixels.

An image gets N operations, each drawn uniformly from the policy's table, with replacement, and always
applied. One magnitude M, any number from 0 on, sets the strength of all of them; there is no noise on it.
Operations that move the image look pixels up at the nearest place and fill with grey 128, in all policies.

``release``: the 16 operations of the ``automl`` code with its arithmetic, quirks included. Translations and
cutout are in pixels of whatever size the image has (100 and 40 at M = 10); Posterize and Solarize fade as M
grows and do nothing from 20 and 10 on; the enhancing operations do nothing at M = 5; Contrast blends with a
grey that depends on the image's size. Grey levels and rounding are Pillow's, which TensorFlow's agree with
to one level.

``paper``: the 14 operations of the RandAugment paper over the ranges of AutoAugment (1805.09501, table 6),
read such that M = 10 is the end of each range, that every operation does more as M grows, and that M = 0
does nothing (AutoContrast and Equalize excepted, which have no strength). Posterize keeps ``8 - 0.4 M``
bits, at least 1; Solarize inverts from ``256 - 25.6 M`` on; the enhancing operations blend by
``1 +- 0.09 M``, at least 0.1, which is where AutoAugment's range ends; translations are 150 px at M = 10,
whatever the image's size.

``relative``: the release's operations, but pixels mean pixels of an image of 224 px and grow and shrink with
the image's size, Posterize and Solarize grow with M as in ``paper``, and Contrast blends with the mean grey.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

from effnet.config import AugmentConfig
from effnet.data import pixels
from effnet.data.pixels import Pixels

Policy: TypeAlias = Literal["release", "paper", "relative"]
Argument: TypeAlias = Callable[[float, int, int], float]
"""(magnitude / 10, sign, image size in pixels) -> the operation's argument."""
Place: TypeAlias = tuple[int, int]
"""Pixels from the left and from the top; only cutout has one."""
Apply: TypeAlias = Callable[[Pixels, float, Place], Pixels]
Matrix: TypeAlias = Callable[[float, int, int], list[list[float]]]
"""(argument, height, width) -> from a pixel's place in the result to its place in the image."""

_RELATIVE_TO_PX = 224


@dataclass(frozen=True, slots=True)
class Operation:
    """What an operation does with an image, and with which argument."""

    argument: Argument
    apply: Apply


class Drawn(NamedTuple):
    """One operation as it was drawn for one image."""

    operation: int
    """Its place in the policy's table."""
    argument: float
    place: Place


def draw_operations(
    height: int, width: int, magnitude: float, config: AugmentConfig, rng: np.random.Generator
) -> list[Drawn]:
    """Draw what `randaugment` does with an image of ``height`` x ``width`` pixels."""
    operations = tuple(POLICIES[config.policy].items())
    drawn = []
    for _ in range(config.operations):
        position = int(rng.integers(len(operations)))
        name, operation = operations[position]
        sign = 1 if rng.random() < 0.5 else -1
        place = (int(rng.integers(width)), int(rng.integers(height))) if name == "Cutout" else (0, 0)
        drawn.append(Drawn(position, operation.argument(magnitude / 10, sign, width), place))
    return drawn


def randaugment(image: Pixels, magnitude: float, config: AugmentConfig, rng: np.random.Generator) -> Pixels:
    """Apply ``config.operations`` random operations.

    Args:
        image: uint8, HWC, RGB; left as it is.
        magnitude: Strength, from 0; the release trains with 5 to 20.
        config: Number of operations and policy.
        rng: Where the operations, their signs and cutout's place are drawn.

    Returns:
        Pixels of the same shape; the image itself where nothing was to be done.
    """
    operations = tuple(POLICIES[config.policy].values())
    height, width, _ = image.shape
    for drawn in draw_operations(height, width, magnitude, config, rng):
        image = operations[drawn.operation].apply(image, drawn.argument, drawn.place)
    return image


def operation_argument(
    policy: Policy, name: str, magnitude: float, image_size: int, *, sign: Literal[-1, 1] = 1
) -> float:
    """Return an operation's argument: degrees, pixels, bits, a level or a factor; 0 where it has none.

    Args:
        policy: One of the three readings.
        name: Of the operation, as in the paper.
        magnitude: From 0.
        image_size: Side in pixels.
        sign: The random one, for operations that go two ways.
    """
    return POLICIES[policy][name].argument(magnitude / 10, sign, image_size)


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
"""The operations that move the image, of all policies."""


def _affine(name: str) -> Apply:
    def apply(image: Pixels, argument: float, place: Place) -> Pixels:
        matrix: Float[np.ndarray, "2 3"] = np.array(MATRICES[name](argument, *image.shape[:2]), np.float64)
        return pixels.affine(image, matrix)

    return apply


def _cutout(image: Pixels, half_side: float, place: Place) -> Pixels:
    x, y = place
    return pixels.cutout(image, int(half_side), x=x, y=y)


def _plain(change: Callable[[Pixels], Pixels]) -> Operation:
    return Operation(lambda level, sign, size: 0.0, lambda image, argument, place: change(image))


def _with_integer(change: Callable[[Pixels, int], Pixels]) -> Apply:
    return lambda image, argument, place: change(image, int(argument))


def _with_factor(change: Callable[[Pixels, float], Pixels]) -> Apply:
    return lambda image, argument, place: change(image, argument)


_rotate = _affine("Rotate")
_shear_x = _affine("ShearX")
_shear_y = _affine("ShearY")
_translate_x = _affine("TranslateX")
_translate_y = _affine("TranslateY")
_posterize = _with_integer(pixels.posterize)
_solarize = _with_integer(pixels.solarize)
_solarize_add = _with_integer(pixels.solarize_add)
_color = _with_factor(pixels.color)
_contrast = _with_factor(pixels.contrast)
_contrast_released = _with_factor(pixels.contrast_as_released)
_brightness = _with_factor(pixels.brightness)
_sharpness = _with_factor(pixels.sharpness)


def _enhance_released(level: float, sign: int, size: int) -> float:
    return level * 1.8 + 0.1


def _enhance_paper(level: float, sign: int, size: int) -> float:
    return max(1 + sign * 0.9 * level, 0.1)


def _pixels_relative(at_ten: float) -> Argument:
    return lambda level, sign, size: sign * level * at_ten * size / _RELATIVE_TO_PX


# Each argument is a function of level = M / 10, the random sign and the image's size in pixels.
# fmt: off
_RELEASE: dict[str, Operation] = {
    "AutoContrast": _plain(pixels.autocontrast),
    "Equalize":     _plain(pixels.equalize),
    "Invert":       _plain(pixels.invert),
    "Rotate":       Operation(lambda level, sign, size: sign * level * 30,  _rotate),
    "Posterize":    Operation(lambda level, sign, size: int(level * 4),     _posterize),
    "Solarize":     Operation(lambda level, sign, size: int(level * 256),   _solarize),
    "Color":        Operation(_enhance_released,                            _color),
    "Contrast":     Operation(_enhance_released,                            _contrast_released),
    "Brightness":   Operation(_enhance_released,                            _brightness),
    "Sharpness":    Operation(_enhance_released,                            _sharpness),
    "ShearX":       Operation(lambda level, sign, size: sign * level * 0.3, _shear_x),
    "ShearY":       Operation(lambda level, sign, size: sign * level * 0.3, _shear_y),
    "TranslateX":   Operation(lambda level, sign, size: sign * level * 100, _translate_x),
    "TranslateY":   Operation(lambda level, sign, size: sign * level * 100, _translate_y),
    "Cutout":       Operation(lambda level, sign, size: int(level * 40),    _cutout),
    "SolarizeAdd":  Operation(lambda level, sign, size: int(level * 110),   _solarize_add),
}
_PAPER: dict[str, Operation] = {
    "Identity":     _plain(lambda image: image),
    "AutoContrast": _plain(pixels.autocontrast),
    "Equalize":     _plain(pixels.equalize),
    "Rotate":       Operation(lambda level, sign, size: sign * level * 30,  _rotate),
    "Solarize":     Operation(lambda level, sign, size: max(int(256 - level * 256), 0), _solarize),
    "Color":        Operation(_enhance_paper,                               _color),
    "Posterize":    Operation(lambda level, sign, size: max(int(8 - level * 4), 1), _posterize),
    "Contrast":     Operation(_enhance_paper,                               _contrast),
    "Brightness":   Operation(_enhance_paper,                               _brightness),
    "Sharpness":    Operation(_enhance_paper,                               _sharpness),
    "ShearX":       Operation(lambda level, sign, size: sign * level * 0.3, _shear_x),
    "ShearY":       Operation(lambda level, sign, size: sign * level * 0.3, _shear_y),
    "TranslateX":   Operation(lambda level, sign, size: sign * level * 150, _translate_x),
    "TranslateY":   Operation(lambda level, sign, size: sign * level * 150, _translate_y),
}
_RELATIVE: dict[str, Operation] = _RELEASE | {
    "Posterize":    _PAPER["Posterize"],
    "Solarize":     _PAPER["Solarize"],
    "Contrast":     Operation(_enhance_released,                            _contrast),
    "TranslateX":   Operation(_pixels_relative(100),                        _translate_x),
    "TranslateY":   Operation(_pixels_relative(100),                        _translate_y),
    "Cutout":       Operation(lambda level, sign, size: int(level * 40 * size / _RELATIVE_TO_PX), _cutout),
}
# fmt: on

POLICIES: dict[Policy, dict[str, Operation]] = {"release": _RELEASE, "paper": _PAPER, "relative": _RELATIVE}
"""Each policy's operations under their names, in the order in which they are drawn."""
