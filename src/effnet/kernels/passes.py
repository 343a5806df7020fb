"""What the operations on batch norm share: who computes, and from what."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from effnet.kernels import norm_plain
from effnet.kernels.dispatch import exact_dtype, runs_on, runs_on_channels
from effnet.kernels.norm_plain import Normalization


def passes_for(*activations: Tensor | None) -> ModuleType:
    """Return the module whose passes work on these activations, `norm_triton` or its twin."""
    return _by_triton() if runs_on(*activations) else norm_plain


def passes_for_channels(*tensors: Tensor) -> ModuleType:
    """Return the module whose passes work on tensors with a number for each channel."""
    return _by_triton() if runs_on_channels(*tensors) else norm_plain


def _by_triton() -> ModuleType:
    from effnet.kernels import norm_triton  # noqa: PLC0415 - Triton is optional

    return norm_triton


def normalization(x: Tensor, weight: Tensor, bias: Tensor, *, mean: Tensor, inverse: Tensor) -> Normalization:
    """Return what normalises ``x``, in the type that is computed in."""
    exact = exact_dtype(x.dtype)
    return Normalization(mean=mean, inverse_deviation=inverse, weight=weight.to(exact), bias=bias.to(exact))


def laid_out_as(x: Tensor, gradient: Tensor) -> Tensor:
    """Return a gradient in the layout of an activation; it may come in any, and expanded."""
    is_last = x.is_contiguous(memory_format=torch.channels_last)
    return gradient.contiguous(memory_format=torch.channels_last if is_last else torch.contiguous_format)
