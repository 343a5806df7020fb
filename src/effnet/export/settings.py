"""What is asked of an export."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from effnet.arch.spec import SPEC_CONFIG, Count, OptionalCount
from effnet.export.card import Precision

Kept = Literal["none", "ends", "se", "ends+se"]

_DIFFERENCE = {"fp32": 1e-4, "fp16": 5e-2, "int8": float("inf")}
_AGREEMENT = {"fp32": 0.999, "fp16": 0.99, "int8": 0.95}
_DROP = {"fp32": 0.001, "fp16": 0.005, "int8": 0.01}


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How far an exported file may be from the network. What is not a number is beyond every limit."""

    difference: float
    """Largest relative difference of the logits, see `effnet.export.parity.relative_differences`."""
    agreement: float
    """Smallest share of the images with the same most probable class."""
    drop: float
    """Largest loss of top-1, as a fraction, where the images have labels."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class ExportSettings:
    """How to export, in whatever form.

    Raises:
        pydantic.ValidationError: A value is outside its range.
    """

    image_size: OptionalCount = 0
    """Side of the images in pixels; 0: as the weights say."""
    batch_size: OptionalCount = 1
    """Images that the file takes at once; 0: any number, where the form can."""
    any_size: bool = False
    """Whether the file shall take squares of any side, where the form can."""
    raw_pixels: bool = False
    """Whether the file shall take uint8 N H W C and normalise it itself."""
    keep: Kept = "se"
    """What stays in floating point in int8: nothing, the first convolution and the classifier, the squeeze
    and excitation, or these and those."""
    calibration_images: Count = 128
    """Images by which the ranges of int8 are chosen."""
    tolerance: Annotated[float, Field(gt=0.0)] | None = None
    """Largest relative difference of the logits; None: 1e-4 in fp32, 0.05 in fp16, none in int8."""
    max_drop: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    """Largest loss of top-1, as a fraction; None: 0.001 in fp32, 0.005 in fp16, 0.01 in int8."""
    allow_unchecked: bool = False
    """Whether a form may be written that this machine cannot run."""

    def limits(self, precision: Precision) -> Limits:
        """Return how far a file of that precision may be from the network."""
        return Limits(
            difference=_DIFFERENCE[precision] if self.tolerance is None else self.tolerance,
            agreement=_AGREEMENT[precision],
            drop=_DROP[precision] if self.max_drop is None else self.max_drop,
        )
