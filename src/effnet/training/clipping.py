"""Gradients that are too long are shortened, as a whole or unit by unit."""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor, nn

from effnet.config import TrainConfig
from effnet.training.optimizers import CLASSIFIER

_SMALLEST_WEIGHT = 1e-3
"""Length that a unit of weights is given at least, so that zeros can move."""
_SMALLEST_GRADIENT = 1e-6


def clip_gradients(model: nn.Module, config: TrainConfig) -> None:
    """Change the gradients of a network in place, unit by unit first.

    Args:
        model: The network; its classifier is the module ``classifier``, which is clipped as a whole only.
        config: ``adaptive_clip`` and ``gradient_clip``.
    """
    if config.adaptive_clip:
        clip_adaptively(
            [param for name, param in model.named_parameters() if not name.startswith(CLASSIFIER)],
            config.adaptive_clip,
        )
    if config.gradient_clip:
        nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)


@torch.no_grad()
def clip_adaptively(params: list[nn.Parameter], factor: float) -> None:
    """Let no unit's gradient be longer than ``factor`` times the unit's weights (2102.06171, equation 3).

    Args:
        params: Those without gradient are left alone. A unit is an output channel of a weight, and the whole
            of a vector, as in the authors' code.
        factor: Above 0.
    """
    with_gradient = sorted((param for param in params if param.grad is not None), key=_unit_size)
    for _, group in groupby(with_gradient, key=_unit_size):
        weights = list(group)
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        limits = _unit_lengths(weights).clamp_(min=_SMALLEST_WEIGHT).mul_(factor)
        lengths = _unit_lengths(gradients).clamp_(min=_SMALLEST_GRADIENT)
        scales = torch.split((limits / lengths).clamp_(max=1), [_units(weight) for weight in weights])
        torch._foreach_mul_(
            gradients,
            [
                scale.reshape(scale.shape[: weight.ndim] + (1,) * (weight.ndim - 1))
                for scale, weight in zip(scales, weights, strict=True)
            ],
        )


def _units(weight: Tensor) -> int:
    return 1 if weight.ndim <= 1 else len(weight)


def _unit_size(weight: Tensor) -> int:
    return weight.numel() // _units(weight)


def _unit_lengths(tensors: list[Tensor] | list[nn.Parameter]) -> Tensor:
    """Return the lengths of all units, which have the same size, of all tensors behind one another."""
    # Channels last, as the weights lie in memory: these rows are no copies.
    rows = [
        tensor.reshape(1, -1) if tensor.ndim <= 1 else tensor.movedim(1, -1).reshape(len(tensor), -1)
        for tensor in tensors
    ]
    return torch.linalg.vector_norm(torch.cat(rows), dim=1)
