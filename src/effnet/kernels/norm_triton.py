"""The passes of batch norm with its activation, in Triton: the twin of `effnet.kernels.norm_plain`.

All activations have their channels last, as `effnet.kernels.dispatch.runs_on` makes sure. The sizes of tiles
are chosen by what was measured of V2-S at 300 px on an H100 (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import triton
from jaxtyping import Float
from torch import Tensor

from effnet.kernels import norm_programs, norm_sum_programs
from effnet.kernels.dispatch import exact_dtype, on_device_of
from effnet.kernels.launching import exact_type, unit_of
from effnet.kernels.norm_plain import Moving, Normalization, Statistics, Upstream

_TILE, _MOST_CHANNELS = 2048, 128
"""Elements of a tile, 16 for each of the 128 threads that share it, and how wide it is at most."""
_SUM_TILE, _MOST_SUM_CHANNELS = 2048, 64
"""The same where a sum is kept for each element of a tile."""
_POOL_TILE, _IMAGE_TILE = 1024, 512
"""The same where that is done for each image, with one sum or five."""
_WASTE = 1.4
"""Tiles are as wide as possible, but have at most so many times the channels that there are."""
_PROGRAMS = 528
"""Most of those that share rows: four for each multiprocessor of an H100."""
_PARTS, _PART_CHANNELS, _PART_WARPS = 256, 16, 8
"""Tile of those that add up what others have summed, and how many warps share it."""
_MOVED = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tiling:
    """How an activation is cut into tiles."""

    rows: int
    channels: int
    pixels: int
    tile_rows: int
    tile_channels: int
    exact: torch.dtype

    @property
    def tiles(self) -> int:
        """Tiles below each other."""
        return triton.cdiv(self.rows, self.tile_rows)

    @property
    def columns(self) -> int:
        """Tiles side by side."""
        return triton.cdiv(self.channels, self.tile_channels)

    @property
    def parts(self) -> int:
        """Programs that share the rows of a column of tiles."""
        return min(self.tiles, max(_PROGRAMS // self.columns, 1))

    @property
    def units(self) -> int:
        """How many units of channels there are."""
        return self.channels // unit_of(self.channels)

    @property
    def constants(self) -> dict[str, object]:
        """What every program on an activation is compiled for."""
        return {
            "ROWS": self.tile_rows,
            "CHANNELS": self.tile_channels,
            "UNIT": unit_of(self.channels),
            "EXACT": exact_type(self.exact),
        }


def _tile_channels(channels: int, most: int) -> int:
    """Return a power of two: as many channels as make few of a row's tiles' wasted."""
    width = min(triton.next_power_of_2(channels), most)
    while width > 32 and triton.cdiv(channels, width) * width > _WASTE * channels:
        width //= 2
    return width


def _tiling(x: Tensor, tile: int, most: int) -> _Tiling:
    images, channels, height, width = x.shape
    tile_channels = _tile_channels(channels, most)
    return _Tiling(
        rows=images * height * width,
        channels=channels,
        pixels=height * width,
        tile_rows=tile // tile_channels,
        tile_channels=tile_channels,
        exact=exact_dtype(x.dtype),
    )


def _empty(x: Tensor, shape: Iterable[int]) -> Tensor:
    return torch.empty(tuple(shape), dtype=exact_dtype(x.dtype), device=x.device)


def _numbers(x: Tensor, count: int) -> list[Tensor]:
    """Return so many tensors with a number for each channel; no two have the same memory."""
    return [_empty(x, x.shape[1:2]) for _ in range(count)]


def _arguments(norm: Normalization) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return norm.mean, norm.inverse_deviation, norm.weight, norm.bias


def statistics(x: Float[Tensor, "N C H W"], epsilon: float) -> Statistics:
    """Return mean, biased variance and inverse deviation of each channel."""
    tiling = _tiling(x, _SUM_TILE, _MOST_SUM_CHANNELS)
    parts, columns = tiling.parts, tiling.columns
    part_means, part_squares = _empty(x, (2, parts, tiling.channels)).unbind()
    mean, variance, inverse = _numbers(x, 3)
    with on_device_of(x):
        norm_sum_programs.statistics_program[parts, columns](
            x, part_means, part_squares, tiling.rows, tiling.units, tiling.tiles, **tiling.constants
        )
        norm_sum_programs.merge_program[(triton.cdiv(tiling.channels, _PART_CHANNELS),)](
            x,
            part_means,
            part_squares,
            mean,
            variance,
            inverse,
            tiling.rows,
            tiling.channels,
            tiling.tiles,
            parts,
            EPSILON=epsilon,
            ROWS=tiling.tile_rows,
            PARTS=_PARTS,
            CHANNELS=_PART_CHANNELS,
            EXACT=exact_type(tiling.exact),
            num_warps=_PART_WARPS,
        )
    return Statistics(mean=mean, variance=variance, inverse_deviation=inverse)


def move(
    mean: Float[Tensor, " C"], variance: Float[Tensor, " C"], moving: Moving, *, correction: float
) -> None:
    """Move statistics in place by a share of the way to those of a batch."""
    with on_device_of(mean):
        norm_sum_programs.move_program[(triton.cdiv(len(mean), _MOVED),)](
            mean,
            variance,
            moving.mean,
            moving.variance,
            len(mean),
            moving.weight,
            correction,
            CHANNELS=_MOVED,
        )


def activate(
    x: Float[Tensor, "N C H W"],
    norm: Normalization,
    *,
    is_silu: bool,
    factor: Float[Tensor, "N C"] | None = None,
    identity: Float[Tensor, "N C H W"] | None = None,
) -> Float[Tensor, "N C H W"]:
    """Return ``identity + factor * activation(normalised x)``; what is None is left out."""
    tiling, out = _tiling(x, _TILE, _MOST_CHANNELS), torch.empty_like(x)
    with on_device_of(x):
        norm_programs.activate_program[tiling.tiles, tiling.columns](
            x,
            *_arguments(norm),
            factor,
            identity,
            out,
            tiling.rows,
            tiling.units,
            tiling.pixels,
            HAS_FACTOR=factor is not None,
            HAS_IDENTITY=identity is not None,
            IS_SILU=is_silu,
            **tiling.constants,
        )
    return out


def pooled(x: Float[Tensor, "N C H W"], norm: Normalization) -> Float[Tensor, "N C"]:
    """Return the mean over the pixels of the activated value."""
    tiling, out = _tiling(x, _POOL_TILE, _MOST_SUM_CHANNELS), _empty(x, x.shape[:2])
    with on_device_of(x):
        norm_sum_programs.pool_program[len(x), tiling.columns](
            x, *_arguments(norm), out, tiling.units, tiling.pixels, **tiling.constants
        )
    return out


def image_sums(
    x: Float[Tensor, "N C H W"], norm: Normalization, gradient: Float[Tensor, "N C H W"]
) -> Float[Tensor, "5 N C"]:
    """Return what `effnet.kernels.norm_plain.image_sums` does."""
    tiling, out = _tiling(x, _IMAGE_TILE, _MOST_SUM_CHANNELS), _empty(x, (5, *x.shape[:2]))
    with on_device_of(x):
        norm_sum_programs.image_sums_program[len(x), tiling.columns](
            x, gradient, *_arguments(norm), out, tiling.units, tiling.pixels, **tiling.constants
        )
    return out


def joined_sums(
    sums: Float[Tensor, "5 N C"], factor: Float[Tensor, "N C"], offset: Float[Tensor, "N C"]
) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Return the gradients of weight and bias."""
    images, channels = factor.shape
    of_weight, of_bias = _numbers(factor, 2)
    with on_device_of(sums):
        norm_sum_programs.join_program[(triton.cdiv(channels, _PART_CHANNELS),)](
            sums,
            factor,
            offset,
            of_weight,
            of_bias,
            images,
            channels,
            IMAGES=_PARTS // 2,
            CHANNELS=_PART_CHANNELS,
            EXACT=exact_type(sums.dtype),
            num_warps=_PART_WARPS,
        )
    return of_weight, of_bias


def gradient_sums(
    x: Float[Tensor, "N C H W"], norm: Normalization, upstream: Upstream, *, is_silu: bool
) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Return the gradients of weight and bias; the upstream gradient has no offset."""
    tiling = _tiling(x, _SUM_TILE, _MOST_SUM_CHANNELS)
    parts, columns = tiling.parts, tiling.columns
    sums, (of_weight, of_bias) = _empty(x, (2, parts, tiling.channels)), _numbers(x, 2)
    with on_device_of(x):
        norm_sum_programs.gradient_sums_program[parts, columns](
            x,
            upstream.gradient,
            *_arguments(norm),
            upstream.factor,
            sums,
            tiling.rows,
            tiling.units,
            tiling.pixels,
            tiling.tiles,
            HAS_FACTOR=upstream.factor is not None,
            IS_SILU=is_silu,
            **tiling.constants,
        )
        norm_sum_programs.add_parts_program[(triton.cdiv(tiling.channels, _PART_CHANNELS),)](
            sums,
            of_weight,
            of_bias,
            parts,
            tiling.channels,
            PARTS=_PARTS,
            CHANNELS=_PART_CHANNELS,
            EXACT=exact_type(tiling.exact),
            num_warps=_PART_WARPS,
        )
    return of_weight, of_bias


def input_gradient(
    x: Float[Tensor, "N C H W"],
    norm: Normalization,
    upstream: Upstream,
    sums: tuple[Float[Tensor, " C"], Float[Tensor, " C"]],
    *,
    is_silu: bool,
) -> Float[Tensor, "N C H W"]:
    """Return the gradient of ``x``, that through the statistics included.

    Args:
        x: Input of the norm.
        norm: With the statistics of ``x``.
        upstream: Gradient of the activated value.
        sums: Gradients of weight and bias.
        is_silu: Whether there is an activation.
    """
    tiling, out = _tiling(x, _TILE, _MOST_CHANNELS), torch.empty_like(x)
    with on_device_of(x):
        norm_programs.input_gradient_program[tiling.tiles, tiling.columns](
            x,
            upstream.gradient,
            *_arguments(norm),
            upstream.factor,
            upstream.offset,
            *sums,
            out,
            tiling.rows,
            tiling.units,
            tiling.pixels,
            HAS_FACTOR=upstream.factor is not None,
            HAS_OFFSET=upstream.offset is not None,
            IS_SILU=is_silu,
            **tiling.constants,
        )
    return out
