"""What all programs in Triton are compiled for: how channels are aligned, and in what is computed."""

from __future__ import annotations

import torch
import triton.language as tl

from effnet.kernels.dispatch import exact_dtype


def unit_of(channels: int) -> int:
    """Return what the channels are known to be a multiple of: 16 bytes in bf16."""
    return 8 if channels % 8 == 0 else 1


def exact_type(dtype: torch.dtype) -> object:
    """Return Triton's name of the type to compute in."""
    return tl.float64 if exact_dtype(dtype) == torch.float64 else tl.float32
