"""Depthwise convolutions in training mode by `effnet.kernels`.

Dimension key: N images, C channels, H and W input pixels, P and Q output pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from effnet.kernels import depthwise_conv2d
from effnet.kernels.depthwise import KERNEL_SIZES, STRIDES


def can_convolve(conv: nn.Module) -> bool:
    """Whether the kernels compute what this layer computes: not in evaluation mode."""
    return (
        isinstance(conv, nn.Conv2d)
        and conv.training
        and conv.bias is None
        and conv.groups == conv.in_channels == conv.out_channels > 1
        and conv.kernel_size[0] == conv.kernel_size[1]
        and conv.kernel_size[0] in KERNEL_SIZES
        and conv.stride[0] == conv.stride[1]
        and conv.stride[0] in STRIDES
    )


def convolve(
    x: Float[Tensor, "N C H W"], conv: nn.Conv2d, *, padding: tuple[int, int, int, int]
) -> Float[Tensor, "N C P Q"]:
    """Return the output of such a layer, padded at the top, the bottom, the left and the right."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        # Only the activation: the kernels read exact weights.
        x = x.to(torch.get_autocast_dtype(device))
    return depthwise_conv2d(x, conv.weight, stride=conv.stride[0], padding=padding)
