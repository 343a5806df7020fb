"""Convolutions of single pixels in training mode, as the products of matrices that they are.

torch's convolutions on a processor bring weights into an order of their own in each step, and their gradient
back, which products do without: they take 0.63 to 1.0 of the time, weight and input gradients included.
Dimension key: N images, C and D channels, H and W pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from effnet.kernels import Kernels
from effnet.kernels.dispatch import EXACT_DTYPES, suits_numba

_MANY_PIXELS = 8192
"""In a batch; with more of them convolutions into more channels are as fast by torch's, or faster."""


def can_multiply(conv: nn.Module, x: Tensor, kernels: Kernels) -> bool:
    """Whether a layer is a product, and one that saves time: on a processor, in exact types.

    Like all of its kernels, not in evaluation mode, and not while a network is compiled or exported.

    Args:
        conv: The layer.
        x: Its input "N C H W".
        kernels: Of the network; products are the processor's, so that ``numba`` asks for them.
    """
    return (
        kernels == "numba"
        and isinstance(conv, nn.Conv2d)
        and conv.training
        and conv.bias is None
        and conv.kernel_size == conv.stride == (1, 1)
        and conv.padding == (0, 0)
        and conv.groups == 1
        and (conv.out_channels <= conv.in_channels or x.numel() <= _MANY_PIXELS * conv.in_channels)
        and suits_numba(x, EXACT_DTYPES)
        and conv.weight.dtype == x.dtype
        and not torch.is_autocast_enabled("cpu")
    )


def multiply(x: Float[Tensor, "N C H W"], conv: nn.Conv2d) -> Float[Tensor, "N D H W"]:
    """Return the output of such a layer, channels last as its input."""
    pixels = x.permute(0, 2, 3, 1).flatten(0, 2)
    out = functional.linear(pixels, conv.weight.flatten(1))
    return out.view(len(x), *x.shape[2:], conv.out_channels).permute(0, 3, 1, 2)
