"""One block of a stage: plain convolution, MBConv, Fused-MBConv, separable convolution or bottleneck.

Dimension key: N images, C input channels, D output channels, H W input and P Q output pixels.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from effnet.arch.spec import BlockSpec, NetworkSpec
from effnet.kernels import Kernels
from effnet.nn.layers import ConvNorm, SqueezeExcite, StochasticDepth, activation


def _conv_branch(spec: NetworkSpec, block: BlockSpec) -> dict[str, nn.Module]:
    project = ConvNorm(
        spec,
        block.in_channels,
        block.out_channels,
        kernel_size=block.kernel_size,
        stride=block.stride,
    )
    return {"project": project}


def _mbconv_branch(spec: NetworkSpec, block: BlockSpec) -> dict[str, nn.Module]:
    hidden = block.hidden_channels
    layers: dict[str, nn.Module] = {}
    if hidden != block.in_channels:
        layers["expand"] = ConvNorm(spec, block.in_channels, hidden)
    layers["depthwise"] = ConvNorm(
        spec, hidden, hidden, kernel_size=block.kernel_size, stride=block.stride, groups=hidden
    )
    if block.se_channels:
        layers["squeeze_excite"] = SqueezeExcite(spec, hidden, block.se_channels)
    layers["project"] = ConvNorm(spec, hidden, block.out_channels, activate=False)
    return layers


def _fused_branch(spec: NetworkSpec, block: BlockSpec) -> dict[str, nn.Module]:
    hidden = block.hidden_channels
    squeeze: dict[str, nn.Module] = {}
    if block.se_channels:
        squeeze["squeeze_excite"] = SqueezeExcite(spec, hidden, block.se_channels)
    if hidden == block.in_channels:
        # As released: without expansion the one convolution that is left keeps its activation.
        return squeeze | _conv_branch(spec, block)
    expand = ConvNorm(spec, block.in_channels, hidden, kernel_size=block.kernel_size, stride=block.stride)
    project = ConvNorm(spec, hidden, block.out_channels, activate=False)
    return {"expand": expand} | squeeze | {"project": project}


def _separable_branch(spec: NetworkSpec, block: BlockSpec) -> dict[str, nn.Module]:
    inputs = block.in_channels
    depthwise = ConvNorm(
        spec, inputs, inputs, kernel_size=block.kernel_size, stride=block.stride, groups=inputs
    )
    return {"depthwise": depthwise, "project": ConvNorm(spec, inputs, block.out_channels)}


def _bottleneck_branch(spec: NetworkSpec, block: BlockSpec) -> dict[str, nn.Module]:
    hidden = block.hidden_channels
    return {
        "reduce": ConvNorm(spec, block.in_channels, hidden),
        "spatial": ConvNorm(spec, hidden, hidden, kernel_size=block.kernel_size, stride=block.stride),
        "project": ConvNorm(spec, hidden, block.out_channels, activate=False),
    }


_BRANCHES = {
    "conv": _conv_branch,
    "mbconv": _mbconv_branch,
    "fused_mbconv": _fused_branch,
    "separable": _separable_branch,
    "bottleneck": _bottleneck_branch,
}


class Block(nn.Module):
    """The residual branch of a `BlockSpec`, and the sum with its input where it has a shortcut."""

    kernels: Kernels = "plain"
    """What `effnet.kernels` computes in training mode, wherever it can; see `EfficientNet`."""

    def __init__(self, spec: NetworkSpec, block: BlockSpec) -> None:
        super().__init__()
        layers = _BRANCHES[block.operation](spec, block)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._branch = tuple(layers)
        self.shortcut: nn.Module | None = None
        if block.has_shortcut_conv:
            self.shortcut = ConvNorm(
                spec, block.in_channels, block.out_channels, stride=block.stride, activate=False
            )
        self.drop_path = StochasticDepth() if block.has_residual else None
        self.is_bottleneck = block.operation == "bottleneck"
        self.act = activation(spec.activation) if self.is_bottleneck else None

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D P Q"]:
        if self.kernels != "plain":
            return self._fused(x)
        branch = x
        for name in self._branch:
            branch = getattr(self, name)(branch)
        if self.drop_path is not None:
            branch = self.drop_path(x if self.shortcut is None else self.shortcut(x), branch)
        return branch if self.act is None else self.act(branch)

    def _fused(self, x: Tensor) -> Tensor:
        branch, layers = x, [getattr(self, name) for name in self._branch]
        while layers:
            layer = layers.pop(0)
            if isinstance(layer, ConvNorm) and layers and isinstance(layers[0], SqueezeExcite):
                branch = layer.gated(branch, layers.pop(0))
            elif not layers and self.drop_path is not None:
                identity = x if self.shortcut is None else self.shortcut(x)
                branch = layer.added(branch, identity, self.drop_path)
            else:
                branch = layer(branch)
        return branch if self.act is None else self.act(branch)
