"""One block of a stage: plain convolution, MBConv or Fused-MBConv.

Dimension key: N images, C input channels, D output channels, H W input and P Q output pixels.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from effnet.arch.spec import BlockSpec, NetworkSpec
from effnet.nn.layers import ConvNorm, SqueezeExcite, StochasticDepth


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


_BRANCHES = {"conv": _conv_branch, "mbconv": _mbconv_branch, "fused_mbconv": _fused_branch}


class Block(nn.Module):
    """The residual branch of a `BlockSpec`, and the sum with its input where the shape stays."""

    def __init__(self, spec: NetworkSpec, block: BlockSpec) -> None:
        super().__init__()
        layers = _BRANCHES[block.operation](spec, block)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._branch = tuple(layers)
        self.drop_path = StochasticDepth() if block.has_residual else None

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D P Q"]:
        branch = x
        for name in self._branch:
            branch = getattr(self, name)(branch)
        return branch if self.drop_path is None else self.drop_path(x, branch)
