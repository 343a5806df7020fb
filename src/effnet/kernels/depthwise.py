"""Depthwise convolution as one operation, padded on each side by as much as is asked for.

Dimension key: N images, C channels, H and W input pixels, P and Q output pixels, K kernel size.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from effnet.kernels import depthwise_plain
from effnet.kernels.depthwise_plain import Geometry, empty_in_layout_of
from effnet.kernels.dispatch import runs_on
from effnet.kernels.passes import laid_out_as

KERNEL_SIZES = frozenset({3, 5})
STRIDES = frozenset({1, 2})


def depthwise_conv2d(
    x: Float[Tensor, "N C H W"],
    weight: Float[Tensor, "C 1 K K"],
    *,
    stride: int,
    padding: tuple[int, int, int, int],
) -> Float[Tensor, "N C P Q"]:
    """Convolve each channel with a kernel of its own.

    Args:
        x: Of any floating-point type, in which the result is.
        weight: Of the same type or a more exact one.
        stride: 1 or 2.
        padding: Zeros at the top, the bottom, the left and the right.

    Raises:
        ValueError: The kernel is none of 3 x 3 and 5 x 5, or the stride is another one.
    """
    if weight.shape[-1] not in KERNEL_SIZES or weight.shape[-2] != weight.shape[-1] or stride not in STRIDES:
        raise ValueError(
            f"kernels are 3 x 3 or 5 x 5 and strides 1 or 2, got {tuple(weight.shape[2:])} and {stride}"
        )
    out: Tensor = _convolve(x, weight, stride, list(padding))
    return out


def _passes_for(*activations: Tensor) -> ModuleType:
    if not runs_on(*activations):
        return depthwise_plain
    from effnet.kernels import depthwise_triton  # noqa: PLC0415 - Triton is optional

    return depthwise_triton


def _geometry(kernel_size: int, stride: int, padding: list[int]) -> Geometry:
    top, bottom, left, right = padding
    return Geometry(kernel_size=kernel_size, stride=stride, top=top, bottom=bottom, left=left, right=right)


@torch.library.custom_op(
    "effnet::depthwise_conv",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, int stride, int[] padding) -> Tensor",
)
def _convolve(x: Tensor, weight: Tensor, stride: int, padding: list[int]) -> Tensor:
    geometry = _geometry(weight.shape[-1], stride, padding)
    out: Tensor = _passes_for(x).convolve(x, weight, geometry)
    return out


@_convolve.register_fake
def _(x: Tensor, weight: Tensor, stride: int, padding: list[int]) -> Tensor:
    geometry = _geometry(weight.shape[-1], stride, padding)
    return empty_in_layout_of(x, *geometry.out_size(*x.shape[2:]))


@torch.library.custom_op(
    "effnet::depthwise_conv_input_gradient",
    mutates_args=(),
    schema="(Tensor gradient, Tensor weight, int height, int width, int stride, int[] padding) -> Tensor",
)
def _input_gradient(  # noqa: PLR0917 - as operators are called
    gradient: Tensor, weight: Tensor, height: int, width: int, stride: int, padding: list[int]
) -> Tensor:
    geometry = _geometry(weight.shape[-1], stride, padding)
    out: Tensor = _passes_for(gradient).input_gradient(gradient, weight, geometry, height=height, width=width)
    return out


@_input_gradient.register_fake
def _(gradient: Tensor, weight: Tensor, height: int, width: int, *_: object) -> Tensor:
    return empty_in_layout_of(gradient, height, width)


@torch.library.custom_op(
    "effnet::depthwise_conv_weight_gradient",
    mutates_args=(),
    schema="(Tensor gradient, Tensor x, Tensor weight, int stride, int[] padding) -> Tensor",
)
def _weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: list[int]) -> Tensor:
    geometry = _geometry(weight.shape[-1], stride, padding)
    out = depthwise_plain.weight_gradient(gradient, x, geometry)
    return torch.empty_like(weight).copy_(out)


@_weight_gradient.register_fake
def _(gradient: Tensor, x: Tensor, weight: Tensor, *_: object) -> Tensor:
    return torch.empty_like(weight)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401
    x, weight, ctx.stride, ctx.padding = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
    x, weight = ctx.saved_tensors
    gradient = laid_out_as(x, gradient)
    of_x = of_weight = None
    if ctx.needs_input_grad[0]:
        of_x = _input_gradient(gradient, weight, *x.shape[2:], ctx.stride, ctx.padding)
    if ctx.needs_input_grad[1]:
        of_weight = _weight_gradient(gradient, x, weight, ctx.stride, ctx.padding)
    return of_x, of_weight, None, None


_convolve.register_autograd(_backward, setup_context=_save)
