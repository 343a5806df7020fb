"""The passes of batch norm with its activation, in Triton: the twin of `effnet.kernels.norm_plain`.

All activations have their channels last, as `effnet.kernels.dispatch.runs_on` makes sure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from effnet.kernels import norm_programs as programs
from effnet.kernels.dispatch import exact_dtype, on_device_of
from effnet.kernels.norm_plain import Normalization, Upstream

_TILE = 4096
"""Elements of a tile: 32 for each of the 128 threads that share it."""
_MOST_CHANNELS = 64
_PROGRAMS = 1024
"""About as many as keep a large GPU busy where each goes over many tiles."""


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
    def columns(self) -> int:
        """Tiles side by side."""
        return triton.cdiv(self.channels, self.tile_channels)

    @property
    def grid(self) -> tuple[int, int]:
        """A program for each tile."""
        return triton.cdiv(self.rows, self.tile_rows), self.columns

    @property
    def share(self) -> int:
        """Rows of each program where only `_PROGRAMS` share them: a multiple of a tile's."""
        parts = min(max(_PROGRAMS // self.columns, 1), triton.cdiv(self.rows, self.tile_rows))
        return triton.cdiv(triton.cdiv(self.rows, parts), self.tile_rows) * self.tile_rows

    @property
    def parts(self) -> int:
        """Programs that share the rows."""
        return triton.cdiv(self.rows, self.share)

    @property
    def constants(self) -> dict[str, object]:
        """What every program is compiled for."""
        exact = tl.float64 if self.exact == torch.float64 else tl.float32
        return {"CHANNELS": self.tile_channels, "EXACT": exact}


def _tiling(x: Tensor) -> _Tiling:
    images, channels, height, width = x.shape
    tile_channels = min(triton.next_power_of_2(channels), _MOST_CHANNELS)
    return _Tiling(
        rows=images * height * width,
        channels=channels,
        pixels=height * width,
        tile_rows=_TILE // tile_channels,
        tile_channels=tile_channels,
        exact=exact_dtype(x.dtype),
    )


def _empty(x: Tensor, shape: Iterable[int]) -> Tensor:
    return torch.empty(tuple(shape), dtype=exact_dtype(x.dtype), device=x.device)


def _arguments(norm: Normalization) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return norm.mean, norm.inverse_deviation, norm.weight, norm.bias


def statistics(x: Float[Tensor, "N C H W"]) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Return mean and biased variance of each channel."""
    tiling = _tiling(x)
    part_means, part_squares = _empty(x, (2, tiling.parts, tiling.channels)).unbind()
    mean, variance = _empty(x, (tiling.channels,)), _empty(x, (tiling.channels,))
    with on_device_of(x):
        programs.statistics_program[tiling.parts, tiling.columns](
            x,
            part_means,
            part_squares,
            tiling.rows,
            tiling.channels,
            tiling.share,
            ROWS=tiling.tile_rows,
            **tiling.constants,
        )
        programs.merge_program[(tiling.columns,)](
            x,
            part_means,
            part_squares,
            mean,
            variance,
            tiling.rows,
            tiling.channels,
            tiling.share,
            tiling.parts,
            PARTS=tiling.tile_rows,
            **tiling.constants,
        )
    return mean, variance


def activate(
    x: Float[Tensor, "N C H W"],
    norm: Normalization,
    *,
    is_silu: bool,
    factor: Float[Tensor, "N C"] | None = None,
    identity: Float[Tensor, "N C H W"] | None = None,
) -> Float[Tensor, "N C H W"]:
    """Return ``identity + factor * activation(normalised x)``; what is None is left out."""
    tiling, out = _tiling(x), torch.empty_like(x)
    with on_device_of(x):
        programs.activate_program[tiling.grid](
            x,
            *_arguments(norm),
            factor,
            identity,
            out,
            tiling.rows,
            tiling.channels,
            tiling.pixels,
            HAS_FACTOR=factor is not None,
            HAS_IDENTITY=identity is not None,
            IS_SILU=is_silu,
            ROWS=tiling.tile_rows,
            **tiling.constants,
        )
    return out


def pooled(x: Float[Tensor, "N C H W"], norm: Normalization) -> Float[Tensor, "N C"]:
    """Return the mean over the pixels of the activated value."""
    return _pool(x, norm, None)


def pooled_product(
    x: Float[Tensor, "N C H W"], norm: Normalization, gradient: Float[Tensor, "N C H W"]
) -> Float[Tensor, "N C"]:
    """Return the sum over the pixels of ``gradient`` times the activated value."""
    return _pool(x, norm, gradient)


def _pool(x: Tensor, norm: Normalization, gradient: Tensor | None) -> Tensor:
    tiling, out = _tiling(x), _empty(x, x.shape[:2])
    with on_device_of(x):
        programs.pool_program[len(x), tiling.columns](
            x,
            gradient,
            *_arguments(norm),
            out,
            tiling.channels,
            tiling.pixels,
            HAS_GRADIENT=gradient is not None,
            ROWS=tiling.tile_rows,
            **tiling.constants,
        )
    return out


def gradient_sums(
    x: Float[Tensor, "N C H W"], norm: Normalization, upstream: Upstream, *, is_silu: bool
) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Return the gradients of weight and bias."""
    tiling = _tiling(x)
    parts = _empty(x, (2, tiling.parts, tiling.channels))
    with on_device_of(x):
        programs.gradient_sums_program[tiling.parts, tiling.columns](
            x,
            upstream.gradient,
            *_arguments(norm),
            upstream.factor,
            upstream.offset,
            parts[0],
            parts[1],
            tiling.rows,
            tiling.channels,
            tiling.pixels,
            tiling.share,
            HAS_FACTOR=upstream.factor is not None,
            HAS_OFFSET=upstream.offset is not None,
            IS_SILU=is_silu,
            ROWS=tiling.tile_rows,
            **tiling.constants,
        )
    return parts[0].sum(0), parts[1].sum(0)


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
        sums: Of `gradient_sums`.
        is_silu: Whether there is an activation.
    """
    tiling, out = _tiling(x), torch.empty_like(x)
    with on_device_of(x):
        programs.input_gradient_program[tiling.grid](
            x,
            upstream.gradient,
            *_arguments(norm),
            upstream.factor,
            upstream.offset,
            *sums,
            out,
            tiling.rows,
            tiling.channels,
            tiling.pixels,
            HAS_FACTOR=upstream.factor is not None,
            HAS_OFFSET=upstream.offset is not None,
            IS_SILU=is_silu,
            ROWS=tiling.tile_rows,
            **tiling.constants,
        )
    return out
