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
_MOST_CHANNELS = 128
_TILE_WIDTH = 8
_ROWS_TILE, _ROWS_CHANNELS, _ROWS_WARPS = 512, 64, 4
"""Of the program that goes down rows."""
_WEIGHT_TILE, _WEIGHT_CHANNELS, _WEIGHT_WARPS = 512, 64, 4
"""Of the one that sums gradients of the weights as it does so."""
_BUSY = 2048
"""Programs that keep a large GPU busy: rows are cut into segments until there are as many."""
_SHORTEST = 8
"""Rows of a segment at least, as two more are read."""
_PROGRAMS = 1024
"""About as many as keep a large GPU busy where each goes over many tiles."""


def _constants(x: Tensor, most_channels: int) -> dict[str, object]:
    return {
        "CHANNELS": min(triton.next_power_of_2(x.shape[1]), most_channels),
        "UNIT": _unit(x),
        "EXACT": tl.float64 if x.dtype == torch.float64 else tl.float32,
    }


def _unit(x: Tensor) -> int:
    """Return what the channels are known to be a multiple of: 16 bytes in bf16."""
    return 8 if x.shape[1] % 8 == 0 else 1


def _is_by_rows(geometry: Geometry) -> bool:
    return geometry.kernel_size == 3 and geometry.stride == 1


def _segments(programs: int, height: int) -> tuple[int, int]:
    """Return rows of a segment and the number of segments, for so many programs without them."""
    wanted = min(max(_BUSY // max(programs, 1), 1), max(height // _SHORTEST, 1))
    segment = triton.cdiv(height, wanted)
    return segment, triton.cdiv(height, segment)


def convolve(
    x: Float[Tensor, "N C H W"], weight: Float[Tensor, "C 1 K K"], geometry: Geometry
) -> Float[Tensor, "N C P Q"]:
    """Return the output in the type and layout of ``x``."""
    height, width = x.shape[2:]
    out = empty_in_layout_of(x, *geometry.out_size(height, width))
    if _is_by_rows(geometry):
        _down_rows(x, weight, out, (geometry.top, geometry.left), is_flipped=False)
    else:
        sizes = (height, width, *out.shape[2:])
        _over_tiles(programs.depthwise_forward_program, x, weight, out, geometry, sizes)
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
    if _is_by_rows(geometry):
        _down_rows(gradient, weight, out, (2 - geometry.top, 2 - geometry.left), is_flipped=True)
    else:
        sizes = (height, width, *gradient.shape[2:])
        _over_tiles(programs.depthwise_input_gradient_program, gradient, weight, out, geometry, sizes)
    return out


def _down_rows(
    read: Tensor, weight: Tensor, written: Tensor, before: tuple[int, int], *, is_flipped: bool
) -> None:
    """Convolve with the kernel or its mirror image, behind so many zeros at the top and the left."""
    constants = _constants(read, _ROWS_CHANNELS)
    images, channels, height, width = written.shape
    tile_channels = min(triton.next_power_of_2(channels), _ROWS_CHANNELS)
    columns = _ROWS_TILE // tile_channels
    blocks = triton.cdiv(images * width, columns), triton.cdiv(channels, tile_channels)
    segment, segments = _segments(blocks[0] * blocks[1], height)
    with on_device_of(read):
        programs.depthwise_rows_program[(*blocks, segments)](
            read,
            weight.contiguous(),
            written,
            images,
            channels // _unit(read),
            *read.shape[2:],
            height,
            width,
            *before,
            segment,
            IS_FLIPPED=is_flipped,
            COLUMNS=columns,
            num_warps=_ROWS_WARPS,
            **constants,
        )


def _over_tiles(  # noqa: PLR0917 - as the programs are called
    program: KernelInterface,
    read: Tensor,
    weight: Tensor,
    written: Tensor,
    geometry: Geometry,
    sizes: tuple[int, int, int, int],
) -> None:
    images, channels, height, width = written.shape
    tile_channels = min(triton.next_power_of_2(channels), _MOST_CHANNELS)
    tile_height = max(_TILE // tile_channels // _TILE_WIDTH, 1)
    tiles = triton.cdiv(height, tile_height) * triton.cdiv(width, _TILE_WIDTH)
    with on_device_of(read):
        program[tiles, triton.cdiv(channels, tile_channels), images](
            read,
            weight.contiguous(),
            written,
            channels // _unit(read),
            *sizes,
            geometry.top,
            geometry.left,
            SIZE=geometry.kernel_size,
            STRIDE=geometry.stride,
            TILE_HEIGHT=tile_height,
            TILE_WIDTH=_TILE_WIDTH,
            **_constants(read, _MOST_CHANNELS),
        )


def weight_gradient(
    gradient: Float[Tensor, "N C P Q"], x: Float[Tensor, "N C H W"], geometry: Geometry
) -> Float[Tensor, "C 1 K K"]:
    """Return the gradient of the weights, in at least single precision."""
    sums = (_weight_sums_by_rows if _is_by_rows(geometry) else _weight_sums)(gradient, x, geometry)
    return sums.sum(0).T.reshape(x.shape[1], 1, geometry.kernel_size, geometry.kernel_size)


def _weight_sums_by_rows(gradient: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
    images, channels, height, width = gradient.shape
    constants = _constants(x, _WEIGHT_CHANNELS)
    tile_channels = min(triton.next_power_of_2(channels), _WEIGHT_CHANNELS)
    columns, across = _WEIGHT_TILE // tile_channels, triton.cdiv(channels, tile_channels)
    blocks = triton.cdiv(images * width, columns)
    segment, segments = _segments(blocks * across, height)
    blocks *= segments
    parts = min(max(_PROGRAMS // across, 1), blocks)
    sums = torch.empty((parts, 9, channels), dtype=exact_dtype(x.dtype), device=x.device)
    with on_device_of(x):
        programs.depthwise_rows_weight_program[parts, across](
            gradient,
            x,
            sums,
            images,
            channels // _unit(x),
            *x.shape[2:],
            height,
            width,
            geometry.top,
            geometry.left,
            segment,
            segments,
            blocks,
            COLUMNS=columns,
            num_warps=_WEIGHT_WARPS,
            **constants,
        )
    return sums


def _weight_sums(gradient: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
    images, channels, out_height, out_width = gradient.shape
    size, tile_channels = geometry.kernel_size, min(triton.next_power_of_2(channels), _WEIGHT_CHANNELS)
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
            channels // _unit(x),
            *x.shape[2:],
            out_height,
            out_width,
            geometry.top,
            geometry.left,
            share,
            SIZE=size,
            STRIDE=geometry.stride,
            ROWS=tile_rows,
            **_constants(x, _WEIGHT_CHANNELS),
        )
    return sums
