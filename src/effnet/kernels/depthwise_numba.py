"""Depthwise convolution of training on a processor, by programs that Numba compiles where torch's are slow.

torch's library has no fast weight gradient but for kernels of 3 x 3, and in bfloat16 no fast input gradient
at stride 2; what it does instead is 10 to 100 times as slow (docs/log.md). Nor has it padding that differs on
two sides. The rest is left to torch. Results do not depend on the number of threads.
Dimension key: N images, C channels, H and W input pixels, P and Q output pixels, K kernel size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from effnet.kernels import depthwise_numba_programs as programs
from effnet.kernels.depthwise_plain import Geometry, empty_in_layout_of
from effnet.kernels.dispatch import exact_dtype, suits_numba
from effnet.kernels.numba_threads import run
from effnet.kernels.numba_vectors import LANES
from effnet.kernels.passes import laid_out_as

KERNEL_SIZES = frozenset({3, 5, 7})
STRIDES = frozenset({1, 2})
_REAL = {torch.float32: np.float32, torch.bfloat16: np.uint16, torch.float64: np.float64}
_GROUPS = 2
"""Of channels in a buffer, so that neighbouring cache lines are read together."""
_FEW_ROWS = 4
"""Fewer rows of the output are not worth copying those around them."""
_BLOCKS = 32
"""At least so many has a weight gradient if there are images enough, for many threads."""


def can_convolve(x: Float[Tensor, "N C H W"], kernel_size: int, stride: int) -> bool:
    """Whether there are programs for such an activation, and torch is slower; see `suits_numba`."""
    return (
        suits_numba(x, _REAL)
        and kernel_size in KERNEL_SIZES
        and stride in STRIDES
        and (kernel_size, stride) != (3, 1)
        and _rows_that_fit(x.shape[3] + 2 * kernel_size) >= kernel_size
    )


def convolve(
    x: Float[Tensor, "N C H W"],
    weight: Float[Tensor, "C 1 K K"],
    *,
    stride: int,
    padding: tuple[int, int, int, int],
) -> Float[Tensor, "N C P Q"]:
    """Do what `effnet.kernels.depthwise_conv2d` does, for activations of `can_convolve`."""
    out: Tensor = _Convolution.apply(x, weight, stride, padding)  # type: ignore[no-untyped-call]
    return out


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        weight: Tensor,
        stride: int,
        padding: tuple[int, int, int, int],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        top, bottom, left, right = padding
        ctx.geometry = Geometry(
            kernel_size=weight.shape[-1], stride=stride, top=top, bottom=bottom, left=left, right=right
        )
        return forward(x, weight, ctx.geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, weight = ctx.saved_tensors
        gradient = laid_out_as(x, gradient)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = input_gradient(gradient, x, weight, ctx.geometry)
        if ctx.needs_input_grad[1]:
            of_weight = torch.empty_like(weight).copy_(weight_gradient(gradient, x, ctx.geometry))
        return of_x, of_weight, None, None


def forward(
    x: Float[Tensor, "N C H W"], weight: Float[Tensor, "C 1 K K"], geometry: Geometry
) -> Float[Tensor, "N C P Q"]:
    """Return the output in the type of ``x``, with its channels last."""
    if _is_symmetric(geometry):
        padding = (geometry.top, geometry.left)
        return functional.conv2d(x, weight.to(x.dtype), None, geometry.stride, padding, groups=x.shape[1])
    padded, taps = _whole_groups(x), _taps(weight, exact_dtype(x.dtype))
    out = empty_in_layout_of(padded, *geometry.out_size(*x.shape[2:]))
    groups, share = _buffered(_columns(geometry, out.shape[3]), geometry, out.shape[2])
    program = programs.convolve_program(_REAL[x.dtype], _REAL[taps.dtype])
    sizes = (*_sizes(padded, out, geometry), groups, share)
    _over_rows(program, padded, taps, out, sizes, elements=x.numel())
    return _narrowed(out, x.shape[1])


def input_gradient(
    gradient: Float[Tensor, "N C P Q"],
    x: Float[Tensor, "N C H W"],
    weight: Float[Tensor, "C 1 K K"],
    geometry: Geometry,
) -> Float[Tensor, "N C H W"]:
    """Return the gradient of ``x``, whose values do not matter."""
    if x.dtype != torch.bfloat16 and geometry.stride == 1 and _is_symmetric(geometry):
        padding, channels = [geometry.top, geometry.left], x.shape[1]
        of_x: Tensor = torch.ops.aten.convolution_backward(
            gradient,
            x,
            weight.to(x.dtype),
            None,
            [1, 1],
            padding,
            [1, 1],
            False,
            [0, 0],
            channels,
            [True, False, False],
        )[0]
        return of_x
    padded, taps = _whole_groups(gradient), _taps(weight, exact_dtype(x.dtype))
    out = empty_in_layout_of(padded, *x.shape[2:])
    stride, before = geometry.stride, (geometry.kernel_size - 1) // geometry.stride
    fitting = _rows_that_fit(before + (x.shape[3] - 1 + geometry.left) // stride + 1)
    groups = _GROUPS if fitting // _GROUPS > before + _FEW_ROWS // stride else 1
    share = min((fitting // groups - before - 1) * stride + 1, x.shape[2])
    program = programs.input_gradient_program(_REAL[x.dtype], _REAL[taps.dtype])
    sizes = (*_sizes(out, padded, geometry), groups, share)
    _over_rows(program, padded, taps, out, sizes, elements=x.numel())
    return _narrowed(out, x.shape[1])


def _over_rows(
    program: int, read: Tensor, taps: Tensor, written: Tensor, sizes: tuple[int, ...], *, elements: int
) -> None:
    """Run a program that writes some rows of an image at a time, as many as the last of the sizes says."""
    blocks = len(written) * -(-written.shape[2] // sizes[-1])
    addresses = (read.data_ptr(), taps.data_ptr(), written.data_ptr())
    run(program, blocks, (*sizes, *addresses), elements=elements)


def weight_gradient(
    gradient: Float[Tensor, "N C P Q"], x: Float[Tensor, "N C H W"], geometry: Geometry
) -> Float[Tensor, "C 1 K K"]:
    """Return the gradient of the weights, in at least single precision."""
    images, channels, size = len(x), x.shape[1], geometry.kernel_size
    upstream, padded = _whole_groups(gradient), _whole_groups(x)
    all_groups = padded.shape[1] // LANES
    groups, share = _buffered(_columns(geometry, gradient.shape[3]), geometry, gradient.shape[2])
    chunks = -(-all_groups // groups)
    images_of_block = max(images * chunks // _BLOCKS, 1)
    parts, exact = -(-images // images_of_block), exact_dtype(x.dtype)
    sums = torch.empty((parts, all_groups, size * size, LANES), dtype=exact)
    run(
        programs.weight_gradient_program(_REAL[x.dtype], _REAL[exact], size, geometry.stride),
        parts * chunks,
        (
            *_sizes(padded, upstream, geometry),
            groups,
            share,
            upstream.data_ptr(),
            padded.data_ptr(),
            sums.data_ptr(),
            images,
            images_of_block,
        ),
        elements=x.numel(),
    )
    # One after another, whatever the number of threads.
    total = sums[0]
    for part in sums[1:]:
        total += part
    return total.transpose(1, 2).reshape(-1, 1, size, size)[:channels]


def _is_symmetric(geometry: Geometry) -> bool:
    return geometry.top == geometry.bottom and geometry.left == geometry.right


def _sizes(x: Tensor, out: Tensor, geometry: Geometry) -> tuple[int, ...]:
    return (*x.shape[1:], *out.shape[2:], geometry.top, geometry.left, geometry.kernel_size, geometry.stride)


def _columns(geometry: Geometry, out_width: int) -> int:
    """Return how many columns of the input, empty ones included, these columns of the output see."""
    return (out_width - 1) * geometry.stride + geometry.kernel_size


def _rows_that_fit(columns: int) -> int:
    return programs.BUFFER // (columns * LANES)


def _buffered(columns: int, geometry: Geometry, out_height: int) -> tuple[int, int]:
    """Return how many groups and how many rows of the output are computed from one filling of the buffer."""
    fitting = _rows_that_fit(columns)
    for groups in (_GROUPS, 1):
        share = min((fitting // groups - geometry.kernel_size) // geometry.stride + 1, out_height)
        if share >= min(_FEW_ROWS, out_height):
            break
    return groups, share


def _taps(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return weights as groups by taps by lanes."""
    taps = _filled_up(weight.detach().to(dtype).flatten(1), dim=0)
    return taps.view(-1, LANES, taps.shape[1]).transpose(1, 2).contiguous()


def _filled_up(tensor: Tensor, dim: int) -> Tensor:
    """Return a tensor with zeros behind, so that there are whole groups of channels."""
    missing = -tensor.shape[dim] % LANES
    if not missing:
        return tensor
    shape = list(tensor.shape)
    shape[dim] = missing
    return torch.cat([tensor, tensor.new_zeros(shape)], dim)


def _whole_groups(x: Tensor) -> Tensor:
    return _filled_up(x, dim=1).contiguous(memory_format=torch.channels_last)


def _narrowed(out: Tensor, channels: int) -> Tensor:
    return (
        out if out.shape[1] == channels else out[:, :channels].contiguous(memory_format=torch.channels_last)
    )
