"""TensorFlow's padding as arithmetic on the size, so that one graph is right for images of all sizes.

Dimension key: N images, C channels, D output channels, H W input and P Q output pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from effnet.nn import Network
from effnet.nn.layers import SameConv2d, StemPool


def for_any_size(network: Network) -> Network:
    """Exchange in place what pads by the size; other layers do not depend on it."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, SameConv2d):
                setattr(module, name, AnySizeConv2d(child))
            elif isinstance(child, StemPool) and child.is_same:
                setattr(module, name, AnySizePool())
    return network


class AnySizeConv2d(nn.Module):
    """`SameConv2d` as arithmetic on the size: without a branch that tracing would decide for one size.

    All in all there are ``kernel - stride`` pixels and those that are missing to a multiple of the stride; a
    kernel smaller than the stride needs none.
    """

    def __init__(self, conv: SameConv2d) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        self.conv.load_state_dict(conv.state_dict())
        self.kernel_size, self.stride = conv.kernel_size[0], conv.stride[0]

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D P Q"]:
        return self.conv(_pad(x, self.kernel_size, self.stride, 0.0))


class AnySizePool(nn.Module):
    """`StemPool` with TensorFlow's padding as arithmetic on the size."""

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C P Q"]:
        return functional.max_pool2d(_pad(x, 3, 2, -torch.inf), 3, 2)


def _pad(x: Tensor, kernel_size: int, stride: int, value: float) -> Tensor:
    if kernel_size < stride:
        return x
    sides: list[int] = []
    for size in (x.shape[3], x.shape[2]):
        # Without a remainder: OpenVINO cannot convert that of a size.
        total = kernel_size - stride + (size + stride - 1) // stride * stride - size
        sides += [total // 2, total - total // 2]
    return functional.pad(x, sides, value=value)
