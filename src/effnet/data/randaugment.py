"""RandAugment (1909.13719) in three readings, on uint8 pixels.

An image gets N operations, each drawn uniformly from the policy's table, with replacement, and always
applied. One magnitude M, any number from 0 on, sets the strength of all of them; there is no noise on it.

``release``: the 16 operations of the ``automl`` code with its arithmetic, quirks included. Translations and
cutout are in pixels of whatever size the image has (100 and 40 at M = 10); Posterize and Solarize fade as M
grows and do nothing from 20 and 10 on; the enhancing operations do nothing at M = 5; Contrast blends with a
grey that depends on the image's size.

``paper``: the 14 operations of the RandAugment paper over the ranges of AutoAugment (1805.09501, table 6),
read such that M = 10 is the end of each range, that every operation does more as M grows, and that M = 0
does nothing (AutoContrast and Equalize excepted, which have no strength). Posterize keeps ``8 - 0.4 M``
bits, at least 1; Solarize inverts from ``256 - 25.6 M`` on; the enhancing operations blend by
``1 +- 0.09 M``, at least 0.1, which is where AutoAugment's range ends; translations are 150 px of 480 px at
M = 10, see `PAPER_TRANSLATION`.

``relative``: the release's operations, but pixels mean pixels of an image of 224 px and grow and shrink with
the image's size, Posterize and Solarize grow with M as in ``paper``, and Contrast blends with the mean grey.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from effnet.config import AugmentConfig
from effnet.data.operations import Argument, Drawn, Operation, without_strength

Policy: TypeAlias = Literal["release", "paper", "relative"]

RELATIVE_TO_PX = 224

PAPER_TRANSLATION = 150 / 480
"""Share of the image's side by which ``paper`` translates at M = 10.

Table 6 of AutoAugment says 150 px, and not of which size. Its code moves CIFAR's images of 32 px by up to
10 px, the same share as 150 of 480. Pixels of whatever size the image has, or of 224 or 331 px (torchvision's
choice), would move it by its whole side and more at the magnitudes up to 25 that 2104.00298 (table 6) trains
with; of 480 px it is 78 % at 25. The release, by which those networks were trained, moves 66 % there.
"""


def draw_randaugment(
    size: int, magnitude: float, config: AugmentConfig, rng: np.random.Generator
) -> list[Drawn]:
    """Draw ``config.operations`` operations for an image.

    Args:
        size: Side of the image in pixels.
        magnitude: Strength, from 0; the release trains with 5 to 20.
        config: Number of operations and policy.
        rng: Where the operations, their signs and cutout's place are drawn.
    """
    operations = tuple(POLICIES[config.policy].values())
    return [
        operations[int(rng.integers(len(operations)))].draw(magnitude / 10, size, rng)
        for _ in range(config.operations)
    ]


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


def _enhance_released(level: float, sign: int, size: int) -> float:
    return level * 1.8 + 0.1


def _enhance_paper(level: float, sign: int, size: int) -> float:
    return max(1 + sign * 0.9 * level, 0.1)


def _translate_paper(level: float, sign: int, size: int) -> float:
    return sign * level * PAPER_TRANSLATION * size


def _cutout_relative(level: float, sign: int, size: int) -> float:
    return int(level * 40 * size / RELATIVE_TO_PX)


def _pixels_relative(at_ten: float) -> Argument:
    return lambda level, sign, size: sign * level * at_ten * size / RELATIVE_TO_PX


# Each argument is a function of level = M / 10, the random sign and the image's size in pixels.
# fmt: off
_RELEASE: dict[str, Operation] = {
    "AutoContrast": without_strength("AutoContrast"),
    "Equalize":     without_strength("Equalize"),
    "Invert":       without_strength("Invert"),
    "Rotate":       Operation("Rotate",      lambda level, sign, size: sign * level * 30),
    "Posterize":    Operation("Posterize",   lambda level, sign, size: int(level * 4)),
    "Solarize":     Operation("Solarize",    lambda level, sign, size: int(level * 256)),
    "Color":        Operation("Color",       _enhance_released),
    "Contrast":     Operation("ContrastAsReleased", _enhance_released),
    "Brightness":   Operation("Brightness",  _enhance_released),
    "Sharpness":    Operation("Sharpness",   _enhance_released),
    "ShearX":       Operation("ShearX",      lambda level, sign, size: sign * level * 0.3),
    "ShearY":       Operation("ShearY",      lambda level, sign, size: sign * level * 0.3),
    "TranslateX":   Operation("TranslateX",  lambda level, sign, size: sign * level * 100),
    "TranslateY":   Operation("TranslateY",  lambda level, sign, size: sign * level * 100),
    "Cutout":       Operation("Cutout",      lambda level, sign, size: int(level * 40)),
    "SolarizeAdd":  Operation("SolarizeAdd", lambda level, sign, size: int(level * 110)),
}
_PAPER: dict[str, Operation] = {
    "Identity":     without_strength("Identity"),
    "AutoContrast": without_strength("AutoContrast"),
    "Equalize":     without_strength("Equalize"),
    "Rotate":       Operation("Rotate",      lambda level, sign, size: sign * level * 30),
    "Solarize":     Operation("Solarize",    lambda level, sign, size: max(int(256 - level * 256), 0)),
    "Color":        Operation("Color",       _enhance_paper),
    "Posterize":    Operation("Posterize",   lambda level, sign, size: max(int(8 - level * 4), 1)),
    "Contrast":     Operation("Contrast",    _enhance_paper),
    "Brightness":   Operation("Brightness",  _enhance_paper),
    "Sharpness":    Operation("Sharpness",   _enhance_paper),
    "ShearX":       Operation("ShearX",      lambda level, sign, size: sign * level * 0.3),
    "ShearY":       Operation("ShearY",      lambda level, sign, size: sign * level * 0.3),
    "TranslateX":   Operation("TranslateX",  _translate_paper),
    "TranslateY":   Operation("TranslateY",  _translate_paper),
}
_RELATIVE: dict[str, Operation] = _RELEASE | {
    "Posterize":    _PAPER["Posterize"],
    "Solarize":     _PAPER["Solarize"],
    "Contrast":     Operation("Contrast",    _enhance_released),
    "TranslateX":   Operation("TranslateX",  _pixels_relative(100)),
    "TranslateY":   Operation("TranslateY",  _pixels_relative(100)),
    "Cutout":       Operation("Cutout",      _cutout_relative),
}
# fmt: on

POLICIES: dict[Policy, dict[str, Operation]] = {"release": _RELEASE, "paper": _PAPER, "relative": _RELATIVE}
"""Each policy's operations under their names, in the order in which they are drawn."""
