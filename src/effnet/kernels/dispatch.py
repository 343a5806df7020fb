"""Where the kernels in Triton run, and where their plain twins have to."""

from __future__ import annotations

import importlib.util
import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import Tensor

_DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})


@cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def is_interpreted() -> bool:
    """Whether ``TRITON_INTERPRET=1`` is set: Triton then runs on tensors of a processor, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def runs_on(*tensors: Tensor | None) -> bool:
    """Whether Triton's kernels work on these tensors: on a GPU, channels last, floating point of one type.

    Args:
        tensors: Activations "N C H W", all that an operation has.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    return (
        has_triton()
        and all(tensor.is_cuda or is_interpreted() for tensor in given)
        and len({(tensor.device, tensor.dtype) for tensor in given}) == 1
        and given[0].dtype in _DTYPES
        and all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in given)
    )


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Launch kernels on the GPU that a tensor is on; Triton takes the current one."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def exact_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type to compute in: at least single precision."""
    return torch.promote_types(dtype, torch.float32)
