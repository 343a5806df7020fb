"""Networks that another library builds: what a run must know about them, without their layers."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field
from pydantic.dataclasses import dataclass

from effnet.arch.preprocessing import Preprocessing
from effnet.arch.spec import SPEC_CONFIG, Count, NetworkSpec

TIMM = "timm:"
"""What the names of timm's networks begin with, such as ``timm:resnet50``."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class ExternalSpec:
    """A network of timm: its name stands for its layers.

    Raises:
        pydantic.ValidationError: A value is outside its range, or the name is none of timm.
    """

    name: Annotated[str, Field(pattern="^timm:.+")]
    """``timm:`` and timm's name, with or without the tag of its weights."""
    preprocessing: Preprocessing
    """As timm evaluates it."""
    train_size: Count
    """Side in pixels at which timm's weights were trained."""
    classifier: Annotated[str, Field(min_length=1)]
    """timm's name of the classifier; here it is ``classifier``, as in every network."""
    has_fixed_size: bool = False
    """Whether it takes images of ``train_size`` only."""
    norm_epsilon: Annotated[float, Field(gt=0.0)] | None = None
    """Of batch norm; None: timm's."""
    norm_momentum: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Of batch norm, in PyTorch's convention; None: timm's."""
    in_channels: Count = 3
    num_classes: Count = 1000

    @property
    def image_size(self) -> int:
        """Side in pixels at which it is evaluated."""
        return self.preprocessing.image_size

    @property
    def timm_name(self) -> str:
        """The name without its prefix."""
        return self.name.removeprefix(TIMM)

    @property
    def architecture(self) -> str:
        """Timm's name without the tag of weights."""
        return self.timm_name.partition(".")[0]


AnySpec: TypeAlias = NetworkSpec | ExternalSpec
"""What a network is: its layers, or the name by which another library builds it."""
