"""Depthwise convolutions in training mode by `effnet.kernels`.

Dimension key: N images, C channels, H and W input pixels, P and Q output pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from effnet.kernels import Kernels, depthwise_conv2d
from effnet.kernels.depthwise import KERNEL_SIZES, STRIDES
from effnet.native import has_numba


def can_convolve(conv: nn.Module, kernels: Kernels) -> bool:
    """Whether these kernels compute what this layer computes: not in evaluation mode."""
    return (
        isinstance(conv, nn.Conv2d)
        and conv.training
        and conv.bias is None
        and conv.groups == conv.in_channels == conv.out_channels > 1
        and conv.kernel_size[0] == conv.kernel_size[1]
        and conv.stride[0] == conv.stride[1]
        and ((kernels == "numba" and has_numba()) or (kernels == "triton" and _is_known_to_triton(conv)))
    )


def _is_known_to_triton(conv: nn.Conv2d) -> bool:
    return conv.kernel_size[0] in KERNEL_SIZES and conv.stride[0] in STRIDES


def convolve(
    x: Float[Tensor, "N C H W"], conv: nn.Conv2d, kernels: Kernels, *, padding: tuple[int, int, int, int]
) -> Float[Tensor, "N C P Q"]:
    """Return the output of such a layer, padded at the top, the bottom, the left and the right.

    Numba's kernels leave to the layer itself what they do not know or what it does as fast.
    """
    activation, device, stride = x, x.device.type, conv.stride[0]
    # Asked like this, as torch 2.11 cannot compile `torch.amp.is_autocast_available`.
    if device != "meta" and torch.is_autocast_enabled(device):
        # Only the activation: the kernels read exact weights.
        activation = x.to(torch.get_autocast_dtype(device))
    if kernels != "numba":
        return depthwise_conv2d(activation, conv.weight, stride=stride, padding=padding)
    from effnet.kernels import depthwise_numba  # noqa: PLC0415 - Numba is optional

    if not depthwise_numba.can_convolve(activation, conv.kernel_size[0], stride):
        out: Tensor = conv(x)
        return out
    return depthwise_numba.convolve(activation, conv.weight, stride=stride, padding=padding)
