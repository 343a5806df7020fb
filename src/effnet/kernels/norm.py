"""Batch norm of training, its activation, and the residual sum behind it, as one operation.

Only the input, its statistics and the parameters are kept for the backward pass, which computes the
normalised and activated values anew: what a convolution wrote is kept once and not three times.
Dimension key: N images, C channels, H and W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from effnet.kernels.dispatch import exact_dtype
from effnet.kernels.norm_plain import Moving, Statistics, Upstream
from effnet.kernels.passes import laid_out_as, normalization, passes_for, passes_for_channels


def batch_norm_act(
    x: Float[Tensor, "N C H W"],
    weight: Float[Tensor, " C"],
    bias: Float[Tensor, " C"],
    *,
    epsilon: float,
    is_silu: bool,
    keep: Float[Tensor, " N"] | None = None,
    identity: Float[Tensor, "N C H W"] | None = None,
) -> tuple[Float[Tensor, "N C H W"], Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Normalise with the statistics of ``x``, then return ``identity + keep * activation``.

    Args:
        x: Output of a convolution.
        weight: Of batch norm.
        bias: Of batch norm.
        epsilon: Added to the variance.
        is_silu: Whether SiLU follows.
        keep: Factor of each image, as stochastic depth draws it (1603.09382); no gradient flows to it.
        identity: What is added, of the type of ``x``.

    Returns:
        The result, and mean and biased variance of each channel in at least single precision. No gradient
        flows through those: that through the statistics is part of the gradient of ``x``.
    """
    out, mean, variance, _ = _norm_act(x, weight, bias, keep, identity, is_silu, epsilon)
    return out, mean, variance


def _factor(x: Tensor, keep: Tensor | None) -> Tensor | None:
    """Return a factor for each image and channel."""
    return None if keep is None else keep.to(exact_dtype(x.dtype))[:, None].expand(x.shape[:2]).contiguous()


@torch.library.custom_op(
    "effnet::norm_act",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor bias, Tensor? keep, Tensor? identity, bool is_silu, "
    "float epsilon) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _norm_act(  # noqa: PLR0917 - as operators are called
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    keep: Tensor | None,
    identity: Tensor | None,
    is_silu: bool,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    passes = passes_for(x, identity)
    found: Statistics = passes.statistics(x, epsilon)
    norm = normalization(x, weight, bias, mean=found.mean, inverse=found.inverse_deviation)
    out = passes.activate(x, norm, is_silu=is_silu, factor=_factor(x, keep), identity=identity)
    return out, found.mean, found.variance, found.inverse_deviation


@_norm_act.register_fake
def _(x: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean = x.new_empty(x.shape[1], dtype=exact_dtype(x.dtype))
    return torch.empty_like(x), mean, torch.empty_like(mean), torch.empty_like(mean)


@torch.library.custom_op(
    "effnet::norm_act_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor inverse, "
    "Tensor? keep, bool is_silu) -> (Tensor, Tensor, Tensor)",
)
def _norm_act_backward(  # noqa: PLR0917 - as operators are called
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    inverse: Tensor,
    keep: Tensor | None,
    is_silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    gradient = laid_out_as(x, gradient)
    passes = passes_for(x, gradient)
    norm = normalization(x, weight, bias, mean=mean, inverse=inverse)
    upstream = Upstream(gradient=gradient, factor=_factor(x, keep))
    sums = passes.gradient_sums(x, norm, upstream, is_silu=is_silu)
    of_x = passes.input_gradient(x, norm, upstream, sums, is_silu=is_silu)
    return of_x, sums[0].to(weight.dtype), sums[1].to(bias.dtype)


@_norm_act_backward.register_fake
def _(gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401
    x, weight, bias, keep, identity, ctx.is_silu, _ = inputs
    _, mean, variance, inverse = output
    ctx.save_for_backward(x, weight, bias, mean, inverse, keep)
    ctx.has_identity = identity is not None
    ctx.mark_non_differentiable(mean, variance, inverse)
    ctx.set_materialize_grads(False)  # Or each of those gets a gradient of zeros.


def _backward(ctx: Any, gradient: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
    if gradient is None:
        return (None,) * 7
    gradients = _norm_act_backward(gradient, *ctx.saved_tensors, ctx.is_silu)
    return *gradients, None, gradient if ctx.has_identity else None, None, None


_norm_act.register_autograd(_backward, setup_context=_save)


@torch.library.custom_op(
    "effnet::move_statistics",
    mutates_args=("moving_mean", "moving_variance"),
    schema="(Tensor(a!) moving_mean, Tensor(b!) moving_variance, Tensor mean, Tensor variance, float weight, "
    "float correction) -> ()",
)
def move_statistics(  # noqa: PLR0917 - as operators are called
    moving_mean: Tensor,
    moving_variance: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: float,
    correction: float,
) -> None:
    """Do to the moving statistics of a norm, in place, what `nn.BatchNorm2d` does.

    Args:
        moving_mean: "C".
        moving_variance: "C", of unbiased variances.
        mean: Of a batch, as `batch_norm_act` returns it.
        variance: Of the batch, biased.
        weight: Of the batch, 0 to 1.
        correction: Makes a biased variance unbiased.
    """
    moving = Moving(moving_mean, moving_variance, weight)
    passes_for_channels(moving_mean, moving_variance, mean, variance).move(
        mean, variance, moving, correction=correction
    )


@move_statistics.register_fake
def _(*_: object) -> None:
    return None
