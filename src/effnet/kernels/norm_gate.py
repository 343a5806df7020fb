"""Batch norm of training, SiLU and the squeeze-excite gate, as one operation.

Kept for the backward pass: input, statistics, parameters, and the numbers of the gate, one for each image and
channel.
Dimension key: N images, C channels, S squeezed channels, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from effnet.kernels.dispatch import exact_dtype
from effnet.kernels.norm_plain import Statistics, Upstream
from effnet.kernels.passes import laid_out_as, normalization, passes_for


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
) -> tuple[Float[Tensor, "N C H W"], Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Normalise with the statistics of ``x``, apply SiLU, and multiply with a gate for each channel.

    The gate is ``sigmoid(expand(silu(reduce(mean over the pixels))))`` (1709.01507), computed in at least
    single precision.

    Args:
        x: Output of a convolution.
        weight: Of batch norm.
        bias: Of batch norm.
        reduce_weight: Of the first of the gate's two layers.
        reduce_bias: The same.
        expand_weight: Of the second.
        expand_bias: The same.
        epsilon: Added to the variance.

    Returns:
        The result, and mean and biased variance of each channel, as `effnet.kernels.batch_norm_act` does.
    """
    out, mean, variance, *_ = _norm_act_gate(
        x, weight, bias, reduce_weight, reduce_bias, expand_weight, expand_bias, epsilon
    )
    return out, mean, variance


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """The mean over the pixels, and what the two layers compute of it."""

    pooled: Tensor
    reduced: Tensor
    value: Tensor

    @classmethod
    def of(cls, pooled: Tensor, layers: tuple[Tensor, Tensor, Tensor, Tensor]) -> Gate:
        """Compute the gate; the layers are weights and biases of the first, then of the second."""
        reduce_weight, reduce_bias, expand_weight, expand_bias = (
            parameter.to(pooled.dtype) for parameter in layers
        )
        # Autocast reaches into operators, and these matrices are too small to save anything.
        with torch.autocast(pooled.device.type, enabled=False):
            reduced = functional.linear(pooled, reduce_weight, reduce_bias)
            value = functional.linear(functional.silu(reduced), expand_weight, expand_bias).sigmoid_()
        return cls(pooled=pooled, reduced=reduced, value=value)

    def gradients(
        self, of_value: Tensor, reduce_weight: Tensor, expand_weight: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Return the gradients of the mean over the pixels and of the four parameters."""
        dtype = self.pooled.dtype
        with torch.autocast(of_value.device.type, enabled=False):
            of_expanded = torch.ops.aten.sigmoid_backward(of_value, self.value)
            of_reduced = of_expanded @ expand_weight.to(dtype)
            of_reduced = torch.ops.aten.silu_backward(of_reduced, self.reduced)
            parameters = (
                of_reduced.T @ self.pooled,
                of_reduced.sum(0),
                of_expanded.T @ functional.silu(self.reduced),
                of_expanded.sum(0),
            )
            return of_reduced @ reduce_weight.to(dtype), parameters


@torch.library.custom_op(
    "effnet::norm_act_gate",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor bias, Tensor reduce_weight, Tensor reduce_bias, "
    "Tensor expand_weight, Tensor expand_bias, float epsilon) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _norm_act_gate(  # noqa: PLR0917 - as operators are called
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    reduce_weight: Tensor,
    reduce_bias: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    passes = passes_for(x)
    found: Statistics = passes.statistics(x, epsilon)
    norm = normalization(x, weight, bias, mean=found.mean, inverse=found.inverse_deviation)
    gate = Gate.of(passes.pooled(x, norm), (reduce_weight, reduce_bias, expand_weight, expand_bias))
    out = passes.activate(x, norm, is_silu=True, factor=gate.value)
    return out, found.mean, found.variance, found.inverse_deviation, gate.pooled, gate.reduced, gate.value


@_norm_act_gate.register_fake
def _(x: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # noqa: ANN401
    reduce_weight = others[2]
    mean = x.new_empty(x.shape[1], dtype=exact_dtype(x.dtype))
    pooled = mean.new_empty(x.shape[:2])
    reduced = mean.new_empty((x.shape[0], reduce_weight.shape[0]))
    return (
        torch.empty_like(x),
        mean,
        torch.empty_like(mean),
        torch.empty_like(mean),
        pooled,
        reduced,
        torch.empty_like(pooled),
    )


@torch.library.custom_op(
    "effnet::norm_act_gate_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor x, Tensor weight, Tensor bias, Tensor reduce_weight, "
    "Tensor reduce_bias, Tensor expand_weight, Tensor expand_bias, Tensor mean, Tensor inverse, "
    "Tensor pooled, Tensor reduced, Tensor value) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _norm_act_gate_backward(  # noqa: PLR0917 - as operators are called
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    reduce_weight: Tensor,
    reduce_bias: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    mean: Tensor,
    inverse: Tensor,
    pooled: Tensor,
    reduced: Tensor,
    value: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    gradient = laid_out_as(x, gradient)
    passes = passes_for(x, gradient)
    norm = normalization(x, weight, bias, mean=mean, inverse=inverse)
    gate = Gate(pooled=pooled, reduced=reduced, value=value)
    of_images = passes.image_sums(x, norm, gradient)
    of_pooled, of_layers = gate.gradients(of_images[0], reduce_weight, expand_weight)
    offset = of_pooled.div_(x.shape[2] * x.shape[3])
    sums = passes.joined_sums(of_images, value, offset)
    upstream = Upstream(gradient=gradient, factor=value, offset=offset)
    of_x = passes.input_gradient(x, norm, upstream, sums, is_silu=True)
    layers = (reduce_weight, reduce_bias, expand_weight, expand_bias)
    a, b, c, d = (part.to(layer.dtype) for part, layer in zip(of_layers, layers, strict=True))
    return of_x, sums[0].to(weight.dtype), sums[1].to(bias.dtype), a, b, c, d


@_norm_act_gate_backward.register_fake
def _(
    gradient: Tensor,
    x: Tensor,
    *others: Any,  # noqa: ANN401
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    weight, bias, reduce_weight, reduce_bias, expand_weight, expand_bias, *_ = others
    return (
        torch.empty_like(x),
        torch.empty_like(weight),
        torch.empty_like(bias),
        torch.empty_like(reduce_weight),
        torch.empty_like(reduce_bias),
        torch.empty_like(expand_weight),
        torch.empty_like(expand_bias),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401
    *tensors, _ = inputs
    _, mean, variance, inverse, *gate = output
    ctx.save_for_backward(*tensors, mean, inverse, *gate)
    ctx.mark_non_differentiable(mean, variance, inverse, *gate)
    ctx.set_materialize_grads(False)  # Or each of those gets a gradient of zeros.


def _backward(ctx: Any, gradient: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
    if gradient is None:
        return (None,) * 8
    return *_norm_act_gate_backward(gradient, *ctx.saved_tensors), None


_norm_act_gate.register_autograd(_backward, setup_context=_save)
