"""Where the kernels in Triton and in Numba run, and where plain PyTorch has to."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Container
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import Tensor

from effnet.native import has_numba

_DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
SMALLEST_FOR_NUMBA = 65536
"""Numbers of an activation from which on Numba's kernels save more than it costs to call them."""
EXACT_DTYPES = frozenset({torch.float32, torch.float64})


@cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def suits_numba(x: Tensor, dtypes: Container[torch.dtype]) -> bool:
    """Whether programs by Numba can read an activation: on a processor, channels last, of one of these types.

    Not so while a network is compiled or exported, which sees layers and chooses itself.
    """
    return (
        not torch.compiler.is_compiling()
        and type(x) is Tensor
        and x.device.type == "cpu"
        and x.dtype in dtypes
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def runs_by_numba(*tensors: Tensor | None) -> bool:
    """Whether Numba's kernels on batch norm take these tensors: of one exact type, large; see `suits_numba`.

    Args:
        tensors: Activations "N C H W", all that a layer has.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    return (
        has_numba()
        and given[0].numel() >= SMALLEST_FOR_NUMBA
        and all(suits_numba(tensor, EXACT_DTYPES) for tensor in given)
        and len({tensor.dtype for tensor in given}) == 1
    )


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


def runs_on_channels(*tensors: Tensor) -> bool:
    """Whether Triton's kernels work on these tensors: on a GPU, all of one exact type, without gaps."""
    return (
        has_triton()
        and all(tensor.is_cuda or is_interpreted() for tensor in tensors)
        and len({(tensor.device, tensor.dtype) for tensor in tensors}) == 1
        and tensors[0].dtype in EXACT_DTYPES
        and all(tensor.is_contiguous() for tensor in tensors)
    )


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Launch kernels on the GPU that a tensor is on; Triton takes the current one."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def exact_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type to compute in: at least single precision."""
    return torch.promote_types(dtype, torch.float32)
