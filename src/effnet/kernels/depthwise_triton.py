"""Depthwise convolution in Triton, but for the gradient of its weights: see `effnet.kernels.depthwise_plain`.

All activations have their channels last, as `effnet.kernels.dispatch.runs_on` makes sure.
"""

from __future__ import annotations

import triton
from jaxtyping import Float
from torch import Tensor
from triton.runtime import KernelInterface

from effnet.kernels import depthwise_programs as programs
from effnet.kernels.depthwise_plain import Geometry, empty_in_layout_of
from effnet.kernels.dispatch import on_device_of
from effnet.kernels.launching import exact_type, unit_of

_TILE, _TILE_WIDTH, _MOST_CHANNELS = 2048, 8, 128
"""Elements of a tile, 16 for each of the 128 threads that share it, and how wide it is."""
_ROWS_TILE = 1024
"""The same of the program that goes down rows."""
_BUSY = 2048
"""Programs that keep a large GPU busy: rows are cut into segments until there are as many."""
_SHORTEST = 8
"""Rows of a segment at least, as two more are read."""


def _constants(x: Tensor) -> dict[str, object]:
    return {
        "CHANNELS": _tile_channels(x),
        "UNIT": unit_of(x.shape[1]),
        "EXACT": exact_type(x.dtype),
    }


def _tile_channels(x: Tensor) -> int:
    return min(triton.next_power_of_2(x.shape[1]), _MOST_CHANNELS)


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
    images, channels, height, width = written.shape
    tile_channels = _tile_channels(read)
    columns = _ROWS_TILE // tile_channels
    blocks = triton.cdiv(images * width, columns), triton.cdiv(channels, tile_channels)
    segment, segments = _segments(blocks[0] * blocks[1], height)
    with on_device_of(read):
        programs.depthwise_rows_program[(*blocks, segments)](
            read,
            weight.contiguous(),
            written,
            images,
            channels // unit_of(channels),
            *read.shape[2:],
            height,
            width,
            *before,
            segment,
            IS_FLIPPED=is_flipped,
            COLUMNS=columns,
            **_constants(read),
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
    tile_channels = _tile_channels(read)
    tile_height = max(_TILE // tile_channels // _TILE_WIDTH, 1)
    tiles = triton.cdiv(height, tile_height) * triton.cdiv(width, _TILE_WIDTH)
    with on_device_of(read):
        program[tiles, triton.cdiv(channels, tile_channels), images](
            read,
            weight.contiguous(),
            written,
            channels // unit_of(channels),
            *sizes,
            geometry.top,
            geometry.left,
            SIZE=geometry.kernel_size,
            STRIDE=geometry.stride,
            TILE_HEIGHT=tile_height,
            TILE_WIDTH=_TILE_WIDTH,
            **_constants(read),
        )
