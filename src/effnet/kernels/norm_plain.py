"""The passes of batch norm with its activation, in plain PyTorch: the twin of `effnet.kernels.norm_triton`.

Both files have the same functions. Everything is computed in at least single precision; what is as large as
an activation has its type.
Dimension key: N images, C channels, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from effnet.kernels.dispatch import exact_dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalization:
    """What turns an activation into a normalised one."""

    mean: Float[Tensor, " C"]
    inverse_deviation: Float[Tensor, " C"]
    weight: Float[Tensor, " C"]
    bias: Float[Tensor, " C"]

    def whitened(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """Return ``x`` with mean 0 and deviation 1."""
        # Not as x * scale + shift, which cancels where the mean is large.
        exact = x.to(exact_dtype(x.dtype))
        return (exact - _of_channels(self.mean)) * _of_channels(self.inverse_deviation)

    def normalized(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """Return the output of batch norm."""
        return self.whitened(x) * _of_channels(self.weight) + _of_channels(self.bias)


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """Of each channel over the pixels of all images."""

    mean: Float[Tensor, " C"]
    variance: Float[Tensor, " C"]
    """The biased one."""
    inverse_deviation: Float[Tensor, " C"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Upstream:
    """The gradient of the activated value: ``gradient * factor + offset``."""

    gradient: Float[Tensor, "N C H W"]
    factor: Float[Tensor, "N C"] | None = None
    offset: Float[Tensor, "N C"] | None = None


@dataclass(frozen=True, slots=True)
class Moving:
    """Moving statistics of batch norm, for kernels that change them in place."""

    mean: Float[Tensor, " C"]
    variance: Float[Tensor, " C"]
    weight: float | Tensor
    """Of the batch's statistics, whose variance is the unbiased one; kernels of our own want a number."""


def statistics(x: Float[Tensor, "N C H W"], epsilon: float) -> Statistics:
    """Return mean, biased variance and inverse deviation of each channel."""
    variance, mean = torch.var_mean(x.to(exact_dtype(x.dtype)), (0, 2, 3), correction=0)
    return Statistics(mean=mean, variance=variance, inverse_deviation=(variance + epsilon).rsqrt())


def move(
    mean: Float[Tensor, " C"], variance: Float[Tensor, " C"], moving: Moving, *, correction: float
) -> None:
    """Move statistics in place by a share of the way to those of a batch.

    Args:
        mean: Of the batch.
        variance: Of the batch, the biased one.
        moving: Changed in place.
        correction: Makes the biased variance the unbiased one.
    """
    moving.mean.lerp_(mean.to(moving.mean.dtype), moving.weight)
    moving.variance.lerp_((variance * correction).to(moving.variance.dtype), moving.weight)


def activate(
    x: Float[Tensor, "N C H W"],
    norm: Normalization,
    *,
    is_silu: bool,
    factor: Float[Tensor, "N C"] | None = None,
    identity: Float[Tensor, "N C H W"] | None = None,
) -> Float[Tensor, "N C H W"]:
    """Return ``identity + factor * activation(normalised x)``; what is None is left out."""
    value = norm.normalized(x)
    if is_silu:
        value = functional.silu(value)
    if factor is not None:
        value = value * _of_images(factor)
    if identity is not None:
        value = identity + value
    return torch.empty_like(x).copy_(value)


def pooled(x: Float[Tensor, "N C H W"], norm: Normalization) -> Float[Tensor, "N C"]:
    """Return the mean over the pixels of the activated value."""
    return functional.silu(norm.normalized(x)).mean((2, 3))


def image_sums(
    x: Float[Tensor, "N C H W"], norm: Normalization, gradient: Float[Tensor, "N C H W"]
) -> Float[Tensor, "5 N C"]:
    """Return five sums over the pixels, from which everything about a gate behind SiLU follows.

    With the slope of SiLU at the normalised value: gradient times activated value, gradient times slope,
    slope, and the last two times the whitened value.
    """
    whitened, slope = norm.whitened(x), _slope(norm.normalized(x))
    gradient = gradient.to(whitened.dtype)
    parts = (
        gradient * functional.silu(norm.normalized(x)),
        gradient * slope,
        slope,
        gradient * slope * whitened,
        slope * whitened,
    )
    return torch.stack([part.sum((2, 3)) for part in parts])


def joined_sums(
    sums: Float[Tensor, "5 N C"], factor: Float[Tensor, "N C"], offset: Float[Tensor, "N C"]
) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Return the gradients of weight and bias for an upstream gradient with these factors and offsets."""
    _, gradients, slopes, whitened_gradients, whitened_slopes = sums.unbind()
    of_weight = factor * whitened_gradients + offset * whitened_slopes
    of_bias = factor * gradients + offset * slopes
    return of_weight.sum(0), of_bias.sum(0)


def gradient_sums(
    x: Float[Tensor, "N C H W"], norm: Normalization, upstream: Upstream, *, is_silu: bool
) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Return the gradients of weight and bias; the upstream gradient has no offset."""
    gradient = _normalized_gradient(x, norm, upstream, is_silu=is_silu)
    return (gradient * norm.whitened(x)).sum((0, 2, 3)), gradient.sum((0, 2, 3))


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
    count = x.numel() // x.shape[1]
    through_variance, through_mean = (_of_channels(part / count) for part in sums)
    gradient = _normalized_gradient(x, norm, upstream, is_silu=is_silu)
    centred = gradient - through_mean - norm.whitened(x) * through_variance
    return torch.empty_like(x).copy_(centred * _of_channels(norm.weight * norm.inverse_deviation))


def _normalized_gradient(x: Tensor, norm: Normalization, upstream: Upstream, *, is_silu: bool) -> Tensor:
    gradient = upstream.gradient.to(exact_dtype(x.dtype))
    if upstream.factor is not None:
        gradient = gradient * _of_images(upstream.factor)
    if upstream.offset is not None:
        gradient = gradient + _of_images(upstream.offset)
    if not is_silu:
        return gradient
    return gradient * _slope(norm.normalized(x))


def _slope(value: Tensor) -> Tensor:
    """Return the derivative of SiLU."""
    sigmoid = value.sigmoid()
    return sigmoid * (1 + value * (1 - sigmoid))


def _of_channels(values: Tensor) -> Tensor:
    return values[:, None, None]


def _of_images(values: Tensor) -> Tensor:
    return values[:, :, None, None]
