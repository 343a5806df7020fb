"""Depthwise convolution in Triton: the twin of `effnet.kernels.depthwise_plain`.

All activations have their channels last, as `effnet.kernels.dispatch.runs_on` makes sure.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from triton.runtime import KernelInterface

from effnet.kernels import depthwise_programs as programs
from effnet.kernels.depthwise_plain import Geometry, empty_in_layout_of
from effnet.kernels.dispatch import exact_dtype, on_device_of

_TILE = 2048
"""Elements of a tile: 16 for each of the 128 threads that share it."""
_MOST_CHANNELS = 64
_TILE_WIDTH = 8
_PROGRAMS = 1024
"""About as many as keep a large GPU busy where each goes over many tiles."""


def _constants(x: Tensor, geometry: Geometry) -> dict[str, object]:
    return {
        "SIZE": geometry.kernel_size,
        "STRIDE": geometry.stride,
        "CHANNELS": min(triton.next_power_of_2(x.shape[1]), _MOST_CHANNELS),
        "EXACT": tl.float64 if x.dtype == torch.float64 else tl.float32,
    }


def _taps(weight: Tensor) -> Tensor:
    """Return the weights as taps by channels."""
    return weight.flatten(1).T.contiguous()


def convolve(
    x: Float[Tensor, "N C H W"], weight: Float[Tensor, "C 1 K K"], geometry: Geometry
) -> Float[Tensor, "N C P Q"]:
    """Return the output in the type and layout of ``x``."""
    height, width = x.shape[2:]
    out = empty_in_layout_of(x, *geometry.out_size(height, width))
    _over_tiles(programs.depthwise_forward_program, x, weight, out, geometry, (height, width, *out.shape[2:]))
    return out


def input_gradient(
    gradient: Float[Tensor, "N C P Q"],
    weight: Float[Tensor, "C 1 K K"],
    geometry: Geometry,
    *,
    height: int,
    width: int,
) -> Float[Tensor, "N C H W"]:
    """Return the gradient of the input, which has these many pixels."""
    out = empty_in_layout_of(gradient, height, width)
    sizes = (height, width, *gradient.shape[2:])
    _over_tiles(programs.depthwise_input_gradient_program, gradient, weight, out, geometry, sizes)
    return out


def _over_tiles(  # noqa: PLR0917 - as the programs are called
    program: KernelInterface,
    read: Tensor,
    weight: Tensor,
    written: Tensor,
    geometry: Geometry,
    sizes: tuple[int, int, int, int],
) -> None:
    constants = _constants(read, geometry)
    images, channels, height, width = written.shape
    tile_channels = min(triton.next_power_of_2(channels), _MOST_CHANNELS)
    tile_height = max(_TILE // tile_channels // _TILE_WIDTH, 1)
    tiles = triton.cdiv(height, tile_height) * triton.cdiv(width, _TILE_WIDTH)
    with on_device_of(read):
        program[tiles, triton.cdiv(channels, tile_channels), images](
            read,
            _taps(weight),
            written,
            channels,
            *sizes,
            geometry.top,
            geometry.left,
            TILE_HEIGHT=tile_height,
            TILE_WIDTH=_TILE_WIDTH,
            **constants,
        )


def weight_gradient(
    gradient: Float[Tensor, "N C P Q"], x: Float[Tensor, "N C H W"], geometry: Geometry
) -> Float[Tensor, "C 1 K K"]:
    """Return the gradient of the weights, in at least single precision."""
    images, channels, out_height, out_width = gradient.shape
    constants, size = _constants(x, geometry), geometry.kernel_size
    tile_channels = min(triton.next_power_of_2(channels), _MOST_CHANNELS)
    rows, tile_rows = images * out_height * out_width, _TILE // tile_channels
    columns = triton.cdiv(channels, tile_channels)
    parts = min(max(_PROGRAMS // (columns * size), 1), triton.cdiv(rows, tile_rows))
    share = triton.cdiv(triton.cdiv(rows, parts), tile_rows) * tile_rows
    parts = triton.cdiv(rows, share)
    sums = torch.empty((parts, size * size, channels), dtype=exact_dtype(x.dtype), device=x.device)
    with on_device_of(x):
        programs.depthwise_weight_gradient_program[parts * size, columns](
            gradient,
            x,
            sums,
            rows,
            channels,
            *x.shape[2:],
            out_height,
            out_width,
            geometry.top,
            geometry.left,
            share,
            ROWS=tile_rows,
            **constants,
        )
    return sums.sum(0).T.reshape(channels, 1, size, size)
