"""How pixels must be prepared for a set of weights; it travels with the weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from effnet.arch.spec import SPEC_CONFIG, Count

Interpolation = Literal["bilinear", "bicubic"]
CropMode = Literal["center", "squash"]
Channels = Annotated[tuple[float, ...], Field(min_length=1)]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class Preprocessing:
    """From an RGB image in [0, 255] to the network's input ``(x / 255 - mean) / std``.

    Raises:
        pydantic.ValidationError: A value is outside its range, or mean and std differ in length.
    """

    image_size: Count
    """Side in pixels of the square input at evaluation."""
    mean: Channels = (0.5, 0.5, 0.5)
    """One value a channel, of pixels in [0, 1]."""
    std: Channels = (0.5, 0.5, 0.5)
    """One value a channel, of pixels in [0, 1]."""
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    """Whether the resize filter widens when it shrinks (as Pillow does; TensorFlow's release does not)."""
    crop_mode: CropMode = "center"
    """``center`` keeps the aspect ratio and cuts a square; ``squash`` resizes the whole image."""
    crop_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Side of the centre square divided by the short side of the image."""

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean and std need one value a channel, got {len(self.mean)} and {len(self.std)}"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0, got {self.std}")
