"""Parameters, multiply-adds and activations of a network in closed form, at any input size.

One multiply-add is one MAC. Only convolutions and linear layers count (squeeze-and-excitation
included), as in the papers' "FLOPs"; batch norm, activations and pooling do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from effnet.arch.spec import BlockSpec, NetworkSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerCost:
    """One convolution or linear layer, with the batch norm that follows it."""

    name: str
    """The module's name in `effnet.nn.EfficientNet`."""
    params: int
    """Trainable values, batch-norm scale and shift included."""
    norm_stats: int
    """Running means and variances."""
    macs: int
    """Multiply-adds for one image."""
    activations: int
    """Output values for one image."""
    output_size: int
    """Side of the output in pixels; 1 behind global pooling."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkCost:
    """Totals of a network for one image of ``image_size`` pixels a side."""

    image_size: int
    params: int
    norm_stats: int
    macs: int
    activations: int
    layers: tuple[LayerCost, ...]

    @property
    def params_with_bn_stats(self) -> int:
        """Trainable values and batch-norm statistics, the count of the released unit test."""
        return self.params + self.norm_stats


def _conv(
    name: str, kernel: int, inputs: int, outputs: int, output_size: int, *, groups: int = 1
) -> LayerCost:
    weights = kernel * kernel * (inputs // groups) * outputs
    pixels = output_size * output_size
    return LayerCost(
        name=name,
        params=weights + 2 * outputs,
        norm_stats=2 * outputs,
        macs=weights * pixels,
        activations=outputs * pixels,
        output_size=output_size,
    )


def _linear(name: str, inputs: int, outputs: int) -> LayerCost:
    return LayerCost(
        name=name,
        params=inputs * outputs + outputs,
        norm_stats=0,
        macs=inputs * outputs,
        activations=outputs,
        output_size=1,
    )


def _squeeze_excite(prefix: str, channels: int, squeeze: int) -> Iterator[LayerCost]:
    if squeeze:
        yield _linear(f"{prefix}.squeeze_excite.reduce", channels, squeeze)
        yield _linear(f"{prefix}.squeeze_excite.expand", squeeze, channels)


def _block(block: BlockSpec, input_size: int, output_size: int) -> Iterator[LayerCost]:
    prefix = f"stages.{block.stage}.{block.position}"
    kernel, hidden = block.kernel_size, block.hidden_channels
    expands = hidden != block.in_channels
    if block.operation == "conv":
        yield _conv(f"{prefix}.project", kernel, block.in_channels, block.out_channels, output_size)
    elif block.operation == "mbconv":
        if expands:
            yield _conv(f"{prefix}.expand", 1, block.in_channels, hidden, input_size)
        yield _conv(f"{prefix}.depthwise", kernel, hidden, hidden, output_size, groups=hidden)
        yield from _squeeze_excite(prefix, hidden, block.se_channels)
        yield _conv(f"{prefix}.project", 1, hidden, block.out_channels, output_size)
    elif block.operation == "separable":
        yield _conv(f"{prefix}.depthwise", kernel, hidden, hidden, output_size, groups=hidden)
        yield _conv(f"{prefix}.project", 1, hidden, block.out_channels, output_size)
    elif block.operation == "bottleneck":
        yield _conv(f"{prefix}.reduce", 1, block.in_channels, hidden, input_size)
        yield _conv(f"{prefix}.spatial", kernel, hidden, hidden, output_size)
        yield _conv(f"{prefix}.project", 1, hidden, block.out_channels, output_size)
        if block.has_shortcut_conv:
            yield _conv(f"{prefix}.shortcut", 1, block.in_channels, block.out_channels, output_size)
    elif expands:
        yield _conv(f"{prefix}.expand", kernel, block.in_channels, hidden, output_size)
        yield from _squeeze_excite(prefix, hidden, block.se_channels)
        yield _conv(f"{prefix}.project", 1, hidden, block.out_channels, output_size)
    else:
        yield from _squeeze_excite(prefix, hidden, block.se_channels)
        yield _conv(f"{prefix}.project", kernel, block.in_channels, block.out_channels, output_size)


def _layers(spec: NetworkSpec, image_size: int) -> Iterator[LayerCost]:
    size = -(-image_size // 2)
    yield _conv("stem", spec.stem_kernel_size, spec.in_channels, spec.stem_channels, size)
    if spec.stem_pooling:
        size = -(-size // 2)
    for block in spec.blocks():
        output_size = -(-size // block.stride)
        yield from _block(block, size, output_size)
        size = output_size
    if spec.head_channels:
        yield _conv("head", 1, spec.stages[-1].channels, spec.head_channels, size)
    yield _linear("classifier", spec.feature_channels, spec.num_classes)


def network_cost(spec: NetworkSpec, image_size: int | None = None) -> NetworkCost:
    """Count a network layer by layer.

    Args:
        spec: The network.
        image_size: Side of the input in pixels; by default the size at which it is evaluated.

    Returns:
        The totals and every layer. Both paddings give the same sizes: an odd kernel of stride ``s``
        maps ``n`` pixels to ``ceil(n / s)``.
    """
    size = image_size or spec.image_size
    layers = tuple(_layers(spec, size))
    return NetworkCost(
        image_size=size,
        params=sum(layer.params for layer in layers),
        norm_stats=sum(layer.norm_stats for layer in layers),
        macs=sum(layer.macs for layer in layers),
        activations=sum(layer.activations for layer in layers),
        layers=layers,
    )
