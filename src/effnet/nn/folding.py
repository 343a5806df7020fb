"""Batch norm that is part of the convolution before it: fewer layers, the same function up to rounding."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from effnet.nn.layers import ConvNorm

_Module = TypeVar("_Module", bound=nn.Module)


def fold_norms(model: _Module) -> _Module:
    """Return a copy whose convolutions do what the batch norms behind them did; good for evaluation only.

    Args:
        model: In evaluation mode; it stays as it is. Layers other than `ConvNorm`, such as those of timm,
            are copied.

    Raises:
        ValueError: The network is in training mode, where batch norm depends on the batch.
    """
    if model.training:
        raise ValueError("batch norm is folded in evaluation mode only; call model.eval() first")
    folded = deepcopy(model)
    for module in folded.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()  # type: ignore[assignment]
    return folded
