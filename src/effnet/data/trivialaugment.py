"""TrivialAugment (2103.10158) over its wide space, on uint8 pixels.

An image gets one operation, drawn uniformly, with one of 31 strengths, drawn uniformly. The table is that of
the paper's code (``wide``): Posterize keeps 8 to 2 bits, and the enhancing operations blend by 0.01 to 2, of
which 0.01 is the strongest. Pixels that an operation moves in are grey, where that code has black.
"""

from __future__ import annotations

import numpy as np

from effnet.data.operations import Drawn, Operation, without_strength
from effnet.data.randaugment import RELATIVE_TO_PX, Policy

STRENGTHS = 31
"""Level 0 to 30 is as many 30ths of the range."""

_TRANSLATION_PX = 32


def _enhance(level: float, sign: int, size: int) -> float:
    return level * 1.99 / 30 + 0.01


def _translate(level: float, sign: int, size: int) -> float:
    return sign * int(level * _TRANSLATION_PX / 30)


def _translate_relative(level: float, sign: int, size: int) -> float:
    return sign * level * _TRANSLATION_PX / 30 * size / RELATIVE_TO_PX


# fmt: off
WIDE: dict[str, Operation] = {
    "Identity":     without_strength("Identity"),
    "AutoContrast": without_strength("AutoContrast"),
    "Equalize":     without_strength("Equalize"),
    "Rotate":       Operation("Rotate",     lambda level, sign, size: sign * int(level * 135 / 30)),
    "Solarize":     Operation("Solarize",   lambda level, sign, size: 256 - int(level * 256 / 30)),
    "Color":        Operation("Color",      _enhance),
    "Posterize":    Operation("Posterize",  lambda level, sign, size: 8 - int(level * 6 / 30)),
    "Contrast":     Operation("Contrast",   _enhance),
    "Brightness":   Operation("Brightness", _enhance),
    "Sharpness":    Operation("Sharpness",  _enhance),
    "ShearX":       Operation("ShearX",     lambda level, sign, size: sign * level * 0.99 / 30),
    "ShearY":       Operation("ShearY",     lambda level, sign, size: sign * level * 0.99 / 30),
    "TranslateX":   Operation("TranslateX", _translate),
    "TranslateY":   Operation("TranslateY", _translate),
}
"""The operations, in the order in which they are drawn; translations are up to 32 px of any image."""
WIDE_RELATIVE: dict[str, Operation] = WIDE | {
    "TranslateX":   Operation("TranslateX", _translate_relative),
    "TranslateY":   Operation("TranslateY", _translate_relative),
}
"""The same for the policy ``relative``: up to 32 px of an image of 224."""
# fmt: on


def draw_trivialaugment(size: int, policy: Policy, rng: np.random.Generator) -> list[Drawn]:
    """Draw the one operation for an image.

    Args:
        size: Side of the image in pixels.
        policy: ``release`` and ``paper`` are the same here.
        rng: Where everything is drawn.
    """
    operations = tuple((WIDE_RELATIVE if policy == "relative" else WIDE).values())
    chosen = operations[int(rng.integers(len(operations)))]
    return [chosen.draw(int(rng.integers(STRENGTHS)), size, rng)]
