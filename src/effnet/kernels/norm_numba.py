"""Batch norm of training with what follows it, on a processor by programs that Numba compiles.

The same as `effnet.kernels.batch_norm_act` and `effnet.kernels.batch_norm_act_squeeze_excite`, in single and
double precision, but without an operator for the compiler: compiled networks keep their layers, which the
compiler fuses itself. An operator costs 90 microseconds a layer and step more than a function.
Dimension key: N images, C channels, S squeezed channels, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from effnet.kernels import norm_numba_gradient_programs as gradient_programs
from effnet.kernels import norm_numba_programs as programs
from effnet.kernels.norm_gate import Gate
from effnet.kernels.norm_plain import Moving
from effnet.kernels.numba_threads import run
from effnet.native.jit import number_bits

_BLOCK = 65536
"""About so many numbers has a block: they fit into the cache of a core."""
_REAL = {torch.float32: np.float32, torch.float64: np.float64}


@dataclass(frozen=True, slots=True)
class _Blocks:
    """How an activation is cut into blocks."""

    geometry: tuple[int, int, int, int, int]
    """The first arguments of a program."""
    images: int
    elements: int

    @property
    def slots(self) -> int:
        """Blocks of rows."""
        return self.images * self.geometry[3]

    @property
    def count(self) -> int:
        """Blocks of work."""
        return self.slots * self.geometry[1]


@lru_cache(maxsize=1024)
def _blocks(images: int, channels: int, pixels: int) -> _Blocks:
    rows = min(max(_BLOCK // channels, 1), pixels)
    parts = -(-channels // programs.WIDTH)
    return _Blocks((channels, parts, rows, -(-pixels // rows), pixels), images, images * channels * pixels)


def _by_image(x: Tensor) -> _Blocks:
    images, channels, height, width = x.shape
    return _blocks(images, channels, height * width)


def _together(x: Tensor) -> _Blocks:
    images, channels, height, width = x.shape
    return _blocks(1, channels, images * height * width)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _moving_arguments(moving: Moving | None) -> tuple[int, int, int]:
    if moving is None or moving.weight == 0:
        return 0, 0, 0
    return moving.mean.data_ptr(), moving.variance.data_ptr(), number_bits(moving.weight)


def _sums(blocks: _Blocks, count: int) -> Tensor:
    return torch.empty((count, blocks.slots, blocks.geometry[0]), dtype=torch.float64)


class _Normalization:
    """Statistics and parameters of batch norm, and their addresses as arguments."""

    def __init__(self, mean: Tensor, inverse: Tensor, weight: Tensor, bias: Tensor) -> None:
        self.tensors = (mean, inverse, weight, bias)
        self.addresses = tuple(tensor.data_ptr() for tensor in self.tensors)


def _statistics(x: Tensor, epsilon: float, moving: Moving | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, biased variance and inverse deviation; move the moving statistics."""
    blocks, real = _together(x), _REAL[x.dtype]
    parts = _sums(blocks, 2)
    mean, variance, inverse = torch.empty((3, x.shape[1]), dtype=x.dtype).unbind()
    means, squares = parts.data_ptr(), parts.data_ptr() + 8 * blocks.slots * x.shape[1]
    run(
        programs.statistics_program(real),
        blocks.count,
        (*blocks.geometry, x.data_ptr(), means, squares),
        elements=blocks.elements,
    )
    run(
        programs.merge_program(real),
        1,
        (
            *blocks.geometry,
            means,
            squares,
            mean.data_ptr(),
            variance.data_ptr(),
            inverse.data_ptr(),
            number_bits(epsilon),
            *_moving_arguments(moving),
        ),
        elements=0,
    )
    return mean, variance, inverse


def _activate(
    x: Tensor,
    norm: _Normalization,
    *,
    is_silu: bool,
    factor: Tensor | None = None,
    identity: Tensor | None = None,
) -> Tensor:
    blocks, out = _together(x) if factor is None else _by_image(x), torch.empty_like(x)
    run(
        programs.activate_program(_REAL[x.dtype]),
        blocks.count,
        (
            *blocks.geometry,
            x.data_ptr(),
            *norm.addresses,
            _address(factor),
            _address(identity),
            int(is_silu),
            out.data_ptr(),
        ),
        elements=blocks.elements,
    )
    return out


def _over_images(blocks: _Blocks, sums: Tensor, dtype: torch.dtype, divisor: int) -> Tensor:
    out = torch.empty((blocks.images, blocks.geometry[0]), dtype=dtype)
    run(
        programs.images_program(_REAL[dtype]),
        blocks.images,
        (*blocks.geometry, sums.data_ptr(), out.data_ptr(), divisor),
        elements=0,
    )
    return out


def _pooled(x: Tensor, norm: _Normalization) -> Tensor:
    blocks = _by_image(x)
    sums = _sums(blocks, 1)
    run(
        programs.pool_program(_REAL[x.dtype]),
        blocks.count,
        (*blocks.geometry, x.data_ptr(), *norm.addresses, sums.data_ptr()),
        elements=blocks.elements,
    )
    return _over_images(blocks, sums, x.dtype, blocks.geometry[4])


def _gradient_sums(
    x: Tensor, gradient: Tensor, norm: _Normalization, blocks: _Blocks, *, is_silu: bool, has_gate: bool
) -> Tensor:
    sums = _sums(blocks, 5 if has_gate else 2)
    run(
        gradient_programs.sums_program(_REAL[x.dtype]),
        blocks.count,
        (
            *blocks.geometry,
            x.data_ptr(),
            gradient.data_ptr(),
            *norm.addresses,
            int(is_silu),
            int(has_gate),
            sums.data_ptr(),
            blocks.slots * x.shape[1],
        ),
        elements=blocks.elements,
    )
    return sums


def _input_gradient(
    x: Tensor,
    gradient: Tensor,
    norm: _Normalization,
    blocks: _Blocks,
    sums: Tensor,
    *,
    is_silu: bool,
    factor: Tensor | None = None,
    offset: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of input, weight and bias."""
    real, channels = _REAL[x.dtype], x.shape[1]
    of_weight, of_bias = torch.empty(channels, dtype=x.dtype), torch.empty(channels, dtype=x.dtype)
    exact = torch.empty((2, channels), dtype=torch.float64)
    geometry = (channels, 1, blocks.slots, blocks.geometry[3], 0)
    factors = (_address(factor), _address(offset))
    of_parameters = (of_weight.data_ptr(), of_bias.data_ptr())
    run(
        gradient_programs.parameters_program(real),
        1,
        (
            *geometry,
            sums.data_ptr(),
            blocks.slots * channels,
            *factors,
            *of_parameters,
            exact.data_ptr(),
            exact.data_ptr() + 8 * channels,
        ),
        elements=0,
    )
    of_x = torch.empty_like(x)
    run(
        gradient_programs.input_gradient_program(real),
        blocks.count,
        (
            *blocks.geometry,
            x.data_ptr(),
            gradient.data_ptr(),
            *norm.addresses,
            *factors,
            *of_parameters,
            int(is_silu),
            of_x.data_ptr(),
            x.numel() // channels,
        ),
        elements=blocks.elements,
    )
    return of_x, of_weight, of_bias


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - as functions are applied
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        keep: Tensor | None,
        identity: Tensor | None,
        is_silu: bool,
        epsilon: float,
        moving: Moving | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance, inverse = _statistics(x, epsilon, moving)
        norm = _Normalization(mean, inverse, weight, bias)
        factor = None if keep is None else keep.to(x.dtype)[:, None].expand(x.shape[:2]).contiguous()
        ctx.save_for_backward(x, weight, bias, mean, inverse, factor)
        ctx.is_silu, ctx.has_identity = is_silu, identity is not None
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return _activate(x, norm, is_silu=is_silu, factor=factor, identity=identity), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        if gradient is None:
            return (None,) * 8
        x, weight, bias, mean, inverse, factor = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        norm = _Normalization(mean, inverse, weight, bias)
        blocks = _together(x) if factor is None else _by_image(x)
        sums = _gradient_sums(x, gradient, norm, blocks, is_silu=ctx.is_silu, has_gate=False)
        gradients = _input_gradient(x, gradient, norm, blocks, sums, is_silu=ctx.is_silu, factor=factor)
        return *gradients, None, gradient if ctx.has_identity else None, None, None, None


class _NormActGate(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - as functions are applied
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        reduce_weight: Tensor,
        reduce_bias: Tensor,
        expand_weight: Tensor,
        expand_bias: Tensor,
        epsilon: float,
        moving: Moving | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance, inverse = _statistics(x, epsilon, moving)
        norm = _Normalization(mean, inverse, weight, bias)
        pooled = _pooled(x, norm)
        layers = (reduce_weight, reduce_bias, expand_weight, expand_bias)
        gate = Gate.of(pooled, layers)
        ctx.save_for_backward(x, weight, bias, mean, inverse, pooled, gate.reduced, gate.value, *layers)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return _activate(x, norm, is_silu=True, factor=gate.value), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        if gradient is None:
            return (None,) * 9
        x, weight, bias, mean, inverse, pooled, reduced, value, *layers = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        norm, blocks = _Normalization(mean, inverse, weight, bias), _by_image(x)
        gate = Gate(pooled=pooled, reduced=reduced, value=value)
        sums = _gradient_sums(x, gradient, norm, blocks, is_silu=True, has_gate=True)
        of_value = _over_images(blocks, sums[4], x.dtype, 1)
        of_pooled, of_layers = gate.gradients(of_value, layers[0], layers[2])
        gradients = _input_gradient(
            x,
            gradient,
            norm,
            blocks,
            sums,
            is_silu=True,
            factor=value,
            offset=of_pooled / blocks.geometry[4],
        )
        return *gradients, *of_layers, None, None


def batch_norm_act(
    x: Float[Tensor, "N C H W"],
    weight: Float[Tensor, " C"],
    bias: Float[Tensor, " C"],
    *,
    epsilon: float,
    is_silu: bool,
    keep: Float[Tensor, " N"] | None = None,
    identity: Float[Tensor, "N C H W"] | None = None,
    moving: Moving | None = None,
) -> tuple[Float[Tensor, "N C H W"], Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Do what `effnet.kernels.batch_norm_act` does, on tensors for which `runs_by_numba` holds.

    It moves the moving statistics itself.
    """
    out, mean, variance = _NormAct.apply(  # type: ignore[no-untyped-call]
        x, weight, bias, keep, identity, is_silu, epsilon, moving
    )
    return out, mean, variance


def batch_norm_act_squeeze_excite(
    x: Float[Tensor, "N C H W"],
    weight: Float[Tensor, " C"],
    bias: Float[Tensor, " C"],
    *,
    reduce_weight: Float[Tensor, "S C"],
    reduce_bias: Float[Tensor, " S"],
    expand_weight: Float[Tensor, "C S"],
    expand_bias: Float[Tensor, " C"],
    epsilon: float,
    moving: Moving | None = None,
) -> tuple[Float[Tensor, "N C H W"], Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Do what `effnet.kernels.batch_norm_act_squeeze_excite` does; see `batch_norm_act`."""
    out, mean, variance = _NormActGate.apply(  # type: ignore[no-untyped-call]
        x, weight, bias, reduce_weight, reduce_bias, expand_weight, expand_bias, epsilon, moving
    )
    return out, mean, variance
