"""The networks of others that compound scaling was tried on: MobileNetV1, MobileNetV2 and ResNet-50.

1905.11946 section 5.1 and table 3 scale them as it scales EfficientNet-B0. Sources: 1704.04861 table 1,
1801.04381 table 2, 1512.03385 table 1. Their constants are those with which timm and torchvision build and
train them: symmetric padding, epsilon 1e-5; ReLU6 in the MobileNets, ReLU in the ResNet, whose bottlenecks
have their stride in the 3 x 3 convolution. Dropout is torchvision's; stochastic depth is none.

They are scaled to multiples of 8 channels with the 10 % rule, as the MobileNets' own code has it and
`effnet.arch.compound.scale_by` does by default. Of a bottleneck it is the hidden channels that are rounded,
so that the wide ones stay four times as many. There is no head that could be scaled but in MobileNetV2.
"""

from __future__ import annotations

from effnet.arch.spec import NetworkSpec, StageSpec


def _separable(stride: int, channels: int, repeats: int) -> StageSpec:
    return StageSpec(
        operation="separable",
        kernel_size=3,
        stride=stride,
        expand_ratio=1,
        channels=channels,
        repeats=repeats,
        residual=False,
    )


def _inverted(stride: int, expand: int, channels: int, repeats: int) -> StageSpec:
    return StageSpec(
        operation="mbconv",
        kernel_size=3,
        stride=stride,
        expand_ratio=expand,
        channels=channels,
        repeats=repeats,
    )


def _bottleneck(stride: int, channels: int, repeats: int) -> StageSpec:
    return StageSpec(
        operation="bottleneck",
        kernel_size=3,
        stride=stride,
        expand_ratio=4,
        channels=channels,
        repeats=repeats,
    )


# fmt: off
_MOBILENET_V1_STAGES = (  # stride channels repeats
    _separable(                 1,      64,      1),
    _separable(                 2,     128,      2),
    _separable(                 2,     256,      2),
    _separable(                 2,     512,      6),
    _separable(                 2,    1024,      2),
)

_MOBILENET_V2_STAGES = (  # stride expand channels repeats
    _inverted(                  1,     1,      16,      1),
    _inverted(                  2,     6,      24,      2),
    _inverted(                  2,     6,      32,      3),
    _inverted(                  2,     6,      64,      4),
    _inverted(                  1,     6,      96,      3),
    _inverted(                  2,     6,     160,      3),
    _inverted(                  1,     6,     320,      1),
)

_RESNET_50_STAGES = (  # stride channels repeats
    _bottleneck(             1,     256,      3),
    _bottleneck(             2,     512,      4),
    _bottleneck(             2,    1024,      6),
    _bottleneck(             2,    2048,      3),
)
# fmt: on

_EPSILON = 1e-5

CLASSICS = (
    NetworkSpec(
        name="mobilenet-v1",
        stages=_MOBILENET_V1_STAGES,
        stem_channels=32,
        head_channels=0,
        image_size=224,
        train_size=224,
        drop_path_rate=0.0,
        activation="relu6",
        padding="symmetric",
        norm_epsilon=_EPSILON,
    ),
    NetworkSpec(
        name="mobilenet-v2",
        stages=_MOBILENET_V2_STAGES,
        stem_channels=32,
        head_channels=1280,
        image_size=224,
        train_size=224,
        drop_path_rate=0.0,
        activation="relu6",
        padding="symmetric",
        norm_epsilon=_EPSILON,
    ),
    NetworkSpec(
        name="resnet-50",
        stages=_RESNET_50_STAGES,
        stem_channels=64,
        stem_kernel_size=7,
        stem_pooling=True,
        head_channels=0,
        image_size=224,
        train_size=224,
        dropout_rate=0.0,
        drop_path_rate=0.0,
        activation="relu",
        padding="symmetric",
        norm_epsilon=_EPSILON,
    ),
)
"""As published; `effnet.arch.network` returns them by name."""
