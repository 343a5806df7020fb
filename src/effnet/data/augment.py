"""Everything that is done to a training image behind its crop, as one draw.

Workers do it at once (`change`), and `effnet.data.device_augment` collects the draws of a batch and does it
on the device.
Dimension key: S side.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from effnet.config import AugmentConfig, ProgressiveConfig
from effnet.data import autoaugment
from effnet.data.operations import Drawn, apply_operations
from effnet.data.patches import Patch, cover, draw_cutout, draw_erasing
from effnet.data.randaugment import draw_randaugment
from effnet.data.trivialaugment import draw_trivialaugment
from effnet.schedule.progressive import StageSettings

PATCHES = 2
"""Cutout's and random erasing's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnView:
    """What was drawn for one image."""

    is_mirrored: bool
    operations: list[Drawn]
    """No more than `most_operations`, in their order."""
    patches: tuple[Patch, Patch]
    """Each may be empty."""


def draw_view(
    settings: StageSettings, *, flip: bool, augment: AugmentConfig, rng: np.random.Generator
) -> DrawnView:
    """Draw what is done to one image.

    Args:
        settings: Image size and strengths.
        flip: Whether half of the images are mirrored.
        augment: The method.
        rng: The only source of randomness; nothing is drawn for what is switched off.
    """
    size = settings.image_size
    return DrawnView(
        is_mirrored=flip and rng.random() < 0.5,
        operations=draw_operations(size, settings.randaugment_magnitude, augment, rng),
        patches=(
            draw_cutout(size, augment.cutout, rng) if augment.cutout else Patch(),
            draw_erasing(size, settings.erasing_probability, rng)
            if settings.erasing_probability
            else Patch(),
        ),
    )


def draw_operations(
    size: int, magnitude: float, config: AugmentConfig, rng: np.random.Generator
) -> list[Drawn]:
    """Draw the operations of ``config.method`` for an image.

    Args:
        size: Side of the image in pixels.
        magnitude: Of RandAugment; the other methods have none.
        config: Method, policy and number of operations.
        rng: Where everything is drawn.
    """
    method = config.method
    if method == "randaugment_or_autoaugment":
        method = "randaugment" if rng.random() < 0.5 else "autoaugment"
    if method == "autoaugment":
        return autoaugment.draw_autoaugment(size, config.policy, rng)
    if method == "trivialaugment":
        return draw_trivialaugment(size, config.policy, rng)
    return draw_randaugment(size, magnitude, config, rng)


def most_operations(config: AugmentConfig) -> int:
    """Return how many operations an image can get."""
    return {
        "randaugment": config.operations,
        "autoaugment": autoaugment.OPERATIONS,
        "randaugment_or_autoaugment": max(config.operations, autoaugment.OPERATIONS),
        "trivialaugment": 1,
    }[config.method]


def is_augmented(config: AugmentConfig, progressive: ProgressiveConfig) -> bool:
    """Whether anything is done to images but mirroring."""
    return bool(most_operations(config) or config.cutout or any(progressive.erasing_probability))


def describe(settings: StageSettings, config: AugmentConfig) -> str:
    """Name what is done to an image behind its crop, with its strength in a stage, one thing a line."""
    randaugment = (
        f"RandAugment {settings.randaugment_magnitude:.3g}" if config.operations else "no RandAugment"
    )
    lines = {
        "randaugment": [randaugment],
        "autoaugment": ["AutoAugment"],
        "randaugment_or_autoaugment": [randaugment, "or AutoAugment"],
        "trivialaugment": ["TrivialAugment"],
    }[config.method]
    if config.cutout:
        lines.append(f"Cutout {config.cutout:.2g}")
    if settings.erasing_probability:
        lines.append(f"erasing {settings.erasing_probability:.2g}")
    return "\n".join(lines)


def change(image: UInt8[np.ndarray, "S S 3"], view: DrawnView) -> None:
    """Do to an image what was drawn for it, in place.

    Args:
        image: uint8, HWC, RGB; contiguous.
        view: Drawn for its size.
    """
    if view.is_mirrored:
        cv2.flip(image, 1, dst=image)
    changed = apply_operations(image, view.operations)
    if changed is not image:
        image[...] = changed
    for patch in view.patches:
        cover(image, patch)
