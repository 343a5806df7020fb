"""AutoAugment (1805.09501): one of 25 sub-policies, found by a search on ImageNet, on uint8 pixels.

A sub-policy is two operations that follow each other, each with the probability that it is applied and a
level from 0 to 10. It is drawn uniformly, and so is the sign of an operation that goes two ways.

``release``: policy v0 of the ``tpu`` and ``automl`` code, which V1 and V2-B0 to B3 were trained with. It is
not the paper's. Levels have the arithmetic of the release's RandAugment, but translations are 250 px at
level 10, whatever the image's size: an image of 224 px is moved away by level 9. (The release's 100 px for
Cutout have no effect: no sub-policy has it.)

``paper``: table 9 over the ranges of table 6. A level is a place between the lower and the upper end of a
range, so Posterize keeps ``4 + 0.4 L`` bits, Solarize inverts from ``25.6 L`` on, and the enhancing
operations blend by ``0.1 + 0.18 L``. Unlike RandAugment's magnitude, a higher level need not do more.

``relative``: the release's sub-policies, but translations are those of RandAugment's ``relative``.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

from effnet.data.operations import Drawn, Operation, without_strength
from effnet.data.randaugment import POLICIES, Policy

OPERATIONS = 2
"""In a sub-policy."""


class Chance(NamedTuple):
    """An operation of a sub-policy."""

    name: str
    probability: float
    """That it is applied."""
    level: float
    """From 0 to 10; of no effect where the operation has no strength."""


_Row: TypeAlias = tuple[tuple[str, float, int], tuple[str, float, int]]

# fmt: off
_V0: tuple[_Row, ...] = (
    (("Equalize",  0.8, 1), ("ShearY",       0.8, 4)),
    (("Color",     0.4, 9), ("Equalize",     0.6, 3)),
    (("Color",     0.4, 1), ("Rotate",       0.6, 8)),
    (("Solarize",  0.8, 3), ("Equalize",     0.4, 7)),
    (("Solarize",  0.4, 2), ("Solarize",     0.6, 2)),
    (("Color",     0.2, 0), ("Equalize",     0.8, 8)),
    (("Equalize",  0.4, 8), ("SolarizeAdd",  0.8, 3)),
    (("ShearX",    0.2, 9), ("Rotate",       0.6, 8)),
    (("Color",     0.6, 1), ("Equalize",     1.0, 2)),
    (("Invert",    0.4, 9), ("Rotate",       0.6, 0)),
    (("Equalize",  1.0, 9), ("ShearY",       0.6, 3)),
    (("Color",     0.4, 7), ("Equalize",     0.6, 0)),
    (("Posterize", 0.4, 6), ("AutoContrast", 0.4, 7)),
    (("Solarize",  0.6, 8), ("Color",        0.6, 9)),
    (("Solarize",  0.2, 4), ("Rotate",       0.8, 9)),
    (("Rotate",    1.0, 7), ("TranslateY",   0.8, 9)),
    (("ShearX",    0.0, 0), ("Solarize",     0.8, 4)),
    (("ShearY",    0.8, 0), ("Color",        0.6, 4)),
    (("Color",     1.0, 0), ("Rotate",       0.6, 2)),
    (("Equalize",  0.8, 4), ("Equalize",     0.0, 8)),
    (("Equalize",  1.0, 4), ("AutoContrast", 0.6, 2)),
    (("ShearY",    0.4, 7), ("SolarizeAdd",  0.6, 7)),
    (("Posterize", 0.8, 2), ("Solarize",     0.6, 10)),
    (("Solarize",  0.6, 8), ("Equalize",     0.6, 1)),
    (("Color",     0.8, 6), ("Rotate",       0.4, 5)),
)
_TABLE_9: tuple[_Row, ...] = (
    (("Posterize", 0.4, 8), ("Rotate",       0.6, 9)),
    (("Solarize",  0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Equalize",  0.8, 8), ("Equalize",     0.6, 3)),
    (("Posterize", 0.6, 7), ("Posterize",    0.6, 6)),
    (("Equalize",  0.4, 7), ("Solarize",     0.2, 4)),
    (("Equalize",  0.4, 4), ("Rotate",       0.8, 8)),
    (("Solarize",  0.6, 3), ("Equalize",     0.6, 7)),
    (("Posterize", 0.8, 5), ("Equalize",     1.0, 2)),
    (("Rotate",    0.2, 3), ("Solarize",     0.6, 8)),
    (("Equalize",  0.6, 8), ("Posterize",    0.4, 6)),
    (("Rotate",    0.8, 8), ("Color",        0.4, 0)),
    (("Rotate",    0.4, 9), ("Equalize",     0.6, 2)),
    (("Equalize",  0.0, 7), ("Equalize",     0.8, 8)),
    (("Invert",    0.6, 4), ("Equalize",     1.0, 8)),
    (("Color",     0.6, 4), ("Contrast",     1.0, 8)),
    (("Rotate",    0.8, 8), ("Color",        1.0, 2)),
    (("Color",     0.8, 8), ("Solarize",     0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert",       0.6, 8)),
    (("ShearX",    0.6, 5), ("Equalize",     1.0, 9)),
    (("Color",     0.4, 0), ("Equalize",     0.6, 3)),
    (("Equalize",  0.4, 7), ("Solarize",     0.2, 4)),
    (("Solarize",  0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Invert",    0.6, 4), ("Equalize",     1.0, 8)),
    (("Color",     0.6, 4), ("Contrast",     1.0, 8)),
    (("Equalize",  0.8, 8), ("Equalize",     0.6, 3)),
)
_V0_OPERATIONS: dict[str, Operation] = POLICIES["release"] | {
    "TranslateY":   Operation("TranslateY", lambda level, sign, size: sign * level * 250),
}
_TABLE_6: dict[str, Operation] = {
    "ShearX":       Operation("ShearX",     lambda level, sign, size: sign * level * 0.3),
    "Rotate":       Operation("Rotate",     lambda level, sign, size: sign * level * 30),
    "AutoContrast": without_strength("AutoContrast"),
    "Invert":       without_strength("Invert"),
    "Equalize":     without_strength("Equalize"),
    "Solarize":     Operation("Solarize",   lambda level, sign, size: int(level * 256)),
    "Posterize":    Operation("Posterize",  lambda level, sign, size: int(level * 4) + 4),
    "Contrast":     Operation("Contrast",   lambda level, sign, size: level * 1.8 + 0.1),
    "Color":        Operation("Color",      lambda level, sign, size: level * 1.8 + 0.1),
    "Sharpness":    Operation("Sharpness",  lambda level, sign, size: level * 1.8 + 0.1),
}
_V0_RELATIVE: dict[str, Operation] = POLICIES["release"] | {"TranslateY": POLICIES["relative"]["TranslateY"]}
# fmt: on

_TABLES: dict[Policy, tuple[tuple[_Row, ...], dict[str, Operation]]] = {
    "release": (_V0, _V0_OPERATIONS),
    "paper": (_TABLE_9, _TABLE_6),
    "relative": (_V0, _V0_RELATIVE),
}


def sub_policies(policy: Policy) -> list[tuple[Chance, Chance]]:
    """Return the 25 sub-policies, in the order of their source."""
    rows, _ = _TABLES[policy]
    return [(Chance(*first), Chance(*second)) for first, second in rows]


def operation(policy: Policy, name: str) -> Operation:
    """Return an operation of the sub-policies, which says how strong it is at which level."""
    _, operations = _TABLES[policy]
    return operations[name]


def draw_autoaugment(size: int, policy: Policy, rng: np.random.Generator) -> list[Drawn]:
    """Draw a sub-policy for an image, and which of its operations are applied.

    Args:
        size: Side of the image in pixels.
        policy: One of the three readings.
        rng: Where everything is drawn.

    Returns:
        No more than `OPERATIONS`.
    """
    rows, operations = _TABLES[policy]
    row = rows[int(rng.integers(len(rows)))]
    return [
        operations[name].draw(level / 10, size, rng)
        for name, probability, level in row
        if rng.random() < probability
    ]
