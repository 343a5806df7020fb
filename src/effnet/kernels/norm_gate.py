"""Batch norm of training, SiLU and the squeeze-excite gate, as one operation.

Kept for the backward pass: input, statistics, parameters, and the mean over the pixels.
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
from effnet.kernels.norm_plain import Upstream
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
    out, mean, variance, _ = _norm_act_gate(
        x, weight, bias, reduce_weight, reduce_bias, expand_weight, expand_bias, epsilon
    )
    return out, mean, variance


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """The two layers between the mean over the pixels and the gate, and what they compute."""

    reduce_weight: Tensor
    expand_weight: Tensor
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
            value = functional.linear(functional.silu(reduced), expand_weight, expand_bias).sigmoid()
        return cls(
            reduce_weight=reduce_weight,
            expand_weight=expand_weight,
            pooled=pooled,
            reduced=reduced,
            value=value,
        )

    def gradients(self, of_value: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Return the gradients of the mean over the pixels and of the four parameters."""
        of_expanded = of_value * self.value * (1 - self.value)
        sigmoid = self.reduced.sigmoid()
        with torch.autocast(of_value.device.type, enabled=False):
            of_reduced = of_expanded @ self.expand_weight
            of_reduced = of_reduced * sigmoid * (1 + self.reduced * (1 - sigmoid))
            parameters = (
                of_reduced.T @ self.pooled,
                of_reduced.sum(0),
                of_expanded.T @ functional.silu(self.reduced),
                of_expanded.sum(0),
            )
            return of_reduced @ self.reduce_weight, parameters


@torch.library.custom_op(
    "effnet::norm_act_gate",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor bias, Tensor reduce_weight, Tensor reduce_bias, "
    "Tensor expand_weight, Tensor expand_bias, float epsilon) -> (Tensor, Tensor, Tensor, Tensor)",
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    passes = passes_for(x)
    mean, variance = passes.statistics(x)
    norm = normalization(x, weight, bias, mean=mean, variance=variance, epsilon=epsilon)
    pooled = passes.pooled(x, norm)
    gate = Gate.of(pooled, (reduce_weight, reduce_bias, expand_weight, expand_bias))
    return passes.activate(x, norm, is_silu=True, factor=gate.value), mean, variance, pooled


@_norm_act_gate.register_fake
def _(x: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean = x.new_empty(x.shape[1], dtype=exact_dtype(x.dtype))
    return torch.empty_like(x), mean, torch.empty_like(mean), mean.new_empty(x.shape[:2])


@torch.library.custom_op(
    "effnet::norm_act_gate_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor x, Tensor weight, Tensor bias, Tensor reduce_weight, "
    "Tensor reduce_bias, Tensor expand_weight, Tensor expand_bias, Tensor mean, Tensor variance, "
    "Tensor pooled, float epsilon) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
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
    variance: Tensor,
    pooled: Tensor,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    gradient = laid_out_as(x, gradient)
    passes = passes_for(x, gradient)
    norm = normalization(x, weight, bias, mean=mean, variance=variance, epsilon=epsilon)
    layers = (reduce_weight, reduce_bias, expand_weight, expand_bias)
    gate = Gate.of(pooled, layers)
    of_pooled, of_layers = gate.gradients(passes.pooled_product(x, norm, gradient))
    offset = of_pooled / (x.shape[2] * x.shape[3])
    upstream = Upstream(gradient=gradient, factor=gate.value, offset=offset)
    sums = passes.gradient_sums(x, norm, upstream, is_silu=True)
    of_x = passes.input_gradient(x, norm, upstream, sums, is_silu=True)
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
    *tensors, ctx.epsilon = inputs
    _, mean, variance, pooled = output
    ctx.save_for_backward(*tensors, mean, variance, pooled)
    ctx.mark_non_differentiable(mean, variance, pooled)


def _backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
    return *_norm_act_gate_backward(gradient, *ctx.saved_tensors, ctx.epsilon), None


_norm_act_gate.register_autograd(_backward, setup_context=_save)
