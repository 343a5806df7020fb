"""What a network is: frozen, validated data, from which everything else is derived.

Stages are numbered from 1 in the papers' tables, in names such as ``v1-b4.fused1-3`` and in feature
names; ``NetworkSpec.stages`` is an ordinary tuple indexed from 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Operation = Literal["conv", "mbconv", "fused_mbconv", "separable", "bottleneck"]
Activation = Literal["silu", "relu", "relu6", "hard_swish", "leaky_relu", "elu", "mish", "gelu"]
Padding = Literal["same", "symmetric"]
Output = Literal["softmax", "sigmoid"]
"""How logits become probabilities: one class of all, or each class for itself."""

Count = Annotated[int, Field(ge=1)]
OptionalCount = Annotated[int, Field(ge=0)]
"""0: there is none."""
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]

SPEC_CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class StageSpec:
    """A run of equal blocks; only the first one has the stride and changes the width.

    Raises:
        pydantic.ValidationError: A value is outside its range, the kernel is even, or an operation is
            given a property that it does not have.
    """

    operation: Operation
    """``conv``: k x k convolution; ``mbconv``: V1 2.2; ``fused_mbconv``: V2 3.2; ``separable``: depthwise and
    pointwise convolution, both activated (1704.04861); ``bottleneck``: 1 x 1, k x k with the stride, 1 x 1,
    the sum activated (1512.03385, with the stride of torchvision and timm)."""
    kernel_size: Count
    """Side of the spatial kernel in pixels; odd."""
    stride: Count
    """Stride of the first block."""
    expand_ratio: Count
    """Hidden channels of a block divided by its input channels; of a bottleneck, the divisor of its output
    channels that gives the hidden ones."""
    channels: Count
    """Output channels of every block."""
    repeats: Count
    """Number of blocks."""
    se_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Squeeze-and-excitation channels divided by the block's *input* channels; 0 leaves it out."""
    residual: bool = True
    """Whether blocks that keep the shape add their input to their output. Bottlenecks that change it do so as
    well, through a 1 x 1 convolution."""

    def __post_init__(self) -> None:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}")
        if self.operation in {"conv", "separable"} and (self.expand_ratio != 1 or self.se_ratio):
            raise ValueError(
                f"a {self.operation} stage has neither expansion nor squeeze-and-excitation: expand_ratio "
                f"must be 1 and se_ratio 0, got {self.expand_ratio} and {self.se_ratio}"
            )
        if self.operation == "bottleneck" and (self.channels % self.expand_ratio or self.se_ratio):
            raise ValueError(
                "a bottleneck stage has no squeeze-and-excitation and a multiple of its expand_ratio as "
                f"channels, got se_ratio {self.se_ratio}, {self.channels} channels and expand_ratio "
                f"{self.expand_ratio}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockSpec:
    """One block as built: a stage's row with its input channels and place in the network filled in."""

    stage: int
    """Index of its stage, from 0."""
    position: int
    """Index in its stage, from 0."""
    index: int
    """Index in the whole network, from 0."""
    operation: Operation
    kernel_size: int
    stride: int
    in_channels: int
    hidden_channels: int
    out_channels: int
    se_channels: int
    """Width of the squeeze; 0 without squeeze-and-excitation."""
    has_residual: bool
    has_shortcut_conv: bool = False
    """Whether the input is brought to the shape of the output before it is added."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class NetworkSpec:
    """A whole network: stem, stages, head and the constants its layers share.

    Raises:
        pydantic.ValidationError: A value is outside its range or there is no stage.
    """

    name: Annotated[str, Field(min_length=1)]
    """Free text; the family's names are in `effnet.arch.family`."""
    stages: Annotated[tuple[StageSpec, ...], Field(min_length=1)]
    stem_channels: Count
    """Output channels of the stride 2 stem."""
    head_channels: OptionalCount
    """Output channels of the 1 x 1 convolution before global pooling; 0: there is none."""
    image_size: Count
    """Side in pixels at which the network is evaluated."""
    train_size: Count
    """Largest side in pixels at which the network is trained."""
    dropout_rate: Rate = 0.2
    """Default rate of the dropout before the classifier."""
    drop_path_rate: Rate = 0.2
    """Default stochastic-depth rate: block ``i`` of ``n`` is dropped at rate ``drop_path_rate * i / n``."""
    activation: Activation = "silu"
    padding: Padding = "same"
    """``same`` pads as TensorFlow does (bottom and right first); ``symmetric`` pads ``kernel_size // 2``."""
    norm_epsilon: Annotated[float, Field(gt=0.0)] = 1e-3
    norm_momentum: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """PyTorch's convention: the released TensorFlow value 0.9 is 0.1 here."""
    in_channels: Count = 3
    num_classes: Count = 1000
    # Specs that have neither of these are written as they were before there were any.
    stem_kernel_size: Annotated[int, Field(ge=1, exclude_if=lambda value: value == 3)] = 3
    """Side of the stem's kernel in pixels; odd."""
    stem_pooling: Annotated[bool, Field(exclude_if=lambda value: not value)] = False
    """Whether a 3 x 3 max pooling of stride 2 follows the stem."""

    def __post_init__(self) -> None:
        if self.stem_kernel_size % 2 == 0:
            raise ValueError(f"stem_kernel_size must be odd, got {self.stem_kernel_size}")

    def blocks(self) -> Iterator[BlockSpec]:
        """Yield every block in order, with derived widths (1905.11946 section 4; SE as released)."""
        index, in_channels = 0, self.stem_channels
        for stage_index, stage in enumerate(self.stages):
            for position in range(stage.repeats):
                stride = stage.stride if position == 0 else 1
                keeps_shape = stride == 1 and in_channels == stage.channels
                is_bottleneck = stage.operation == "bottleneck"
                yield BlockSpec(
                    stage=stage_index,
                    position=position,
                    index=index,
                    operation=stage.operation,
                    kernel_size=stage.kernel_size,
                    stride=stride,
                    in_channels=in_channels,
                    hidden_channels=stage.channels // stage.expand_ratio
                    if is_bottleneck
                    else in_channels * stage.expand_ratio,
                    out_channels=stage.channels,
                    se_channels=max(1, int(in_channels * stage.se_ratio)) if stage.se_ratio else 0,
                    has_residual=stage.residual and (keeps_shape or is_bottleneck),
                    has_shortcut_conv=stage.residual and is_bottleneck and not keeps_shape,
                )
                index, in_channels = index + 1, stage.channels

    @property
    def num_blocks(self) -> int:
        """Number of blocks in all stages."""
        return sum(stage.repeats for stage in self.stages)

    @property
    def feature_channels(self) -> int:
        """Channels that are pooled for the classifier: of the head, or of the last stage without one."""
        return self.head_channels or self.stages[-1].channels

    @property
    def stem_stride(self) -> int:
        """Pixels of the image for one before the first stage, along a side."""
        return 4 if self.stem_pooling else 2

    @property
    def stride(self) -> int:
        """Pixels of the image for one behind the last stage, along a side."""
        return self.stem_stride * math.prod(stage.stride for stage in self.stages)

    def with_stages(self, **changes: object) -> NetworkSpec:
        """Return a copy in which every stage has ``changes`` applied, such as ``residual=False``."""
        return replace(self, stages=tuple(replace(stage, **changes) for stage in self.stages))  # type: ignore[arg-type]
