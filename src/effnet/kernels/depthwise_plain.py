"""Depthwise convolution in plain PyTorch; the passes of `effnet.kernels.depthwise_triton` have twins here.

Dimension key: N images, C channels, H and W input pixels, P and Q output pixels, K kernel size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """Which input pixels an output pixel sees."""

    kernel_size: int
    stride: int
    top: int
    bottom: int
    left: int
    right: int

    def out_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the output."""
        return (
            (height + self.top + self.bottom - self.kernel_size) // self.stride + 1,
            (width + self.left + self.right - self.kernel_size) // self.stride + 1,
        )

    def padded(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C _ _"]:
        """Return the input with zeros around it."""
        return functional.pad(x, (self.left, self.right, self.top, self.bottom))


def empty_in_layout_of(x: Float[Tensor, "N C _ _"], height: int, width: int) -> Float[Tensor, "N C _ _"]:
    """Return an activation of another size, with its channels last where those of ``x`` are."""
    is_last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.empty(
        (*x.shape[:2], height, width),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last if is_last else torch.contiguous_format,
    )


def convolve(
    x: Float[Tensor, "N C H W"], weight: Float[Tensor, "C 1 K K"], geometry: Geometry
) -> Float[Tensor, "N C P Q"]:
    """Return the output in the type and layout of ``x``."""
    out = functional.conv2d(geometry.padded(x), weight.to(x.dtype), stride=geometry.stride, groups=x.shape[1])
    return empty_in_layout_of(x, *geometry.out_size(*x.shape[2:])).copy_(out)


def input_gradient(
    gradient: Float[Tensor, "N C P Q"],
    weight: Float[Tensor, "C 1 K K"],
    geometry: Geometry,
    *,
    height: int,
    width: int,
) -> Float[Tensor, "N C H W"]:
    """Return the gradient of the input, which has these many pixels."""
    images, channels = gradient.shape[:2]
    size = (height + geometry.top + geometry.bottom, width + geometry.left + geometry.right)
    padded = conv2d_input(  # type: ignore[no-untyped-call]
        (images, channels, *size),
        weight.to(gradient.dtype),
        gradient,
        stride=geometry.stride,
        groups=channels,
    )
    inside = padded[:, :, geometry.top : geometry.top + height, geometry.left : geometry.left + width]
    return empty_in_layout_of(gradient, height, width).copy_(inside)


def weight_gradient(
    gradient: Float[Tensor, "N C P Q"], x: Float[Tensor, "N C H W"], geometry: Geometry
) -> Float[Tensor, "C 1 K K"]:
    """Return the gradient of the weights; on a GPU too, where cuDNN beats what we tried (docs/log.md)."""
    channels, size, padding = x.shape[1], geometry.kernel_size, (geometry.top, geometry.left)
    if padding != (geometry.bottom, geometry.right):
        x, padding = geometry.padded(x), (0, 0)
    return conv2d_weight(  # type: ignore[no-untyped-call]
        x, (channels, 1, size, size), gradient, stride=geometry.stride, padding=padding, groups=channels
    )
