"""Tensors of which every process has a part, and the same tensors whole.

Files hold whole tensors, whatever number of processes wrote them: any other number can continue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_cut(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether this process has but a part of the tensor."""
    # Half a second, which only training has to spend, and has spent already.
    from torch.distributed.tensor import DTensor  # noqa: PLC0415

    return isinstance(tensor, DTensor)


def whole(tensors: Mapping[str, Tensor], *, is_kept: bool) -> dict[str, Tensor]:
    """Put tensors together from the parts of all processes, one after the other.

    Args:
        tensors: Under the same names in all processes, which must all make the call.
        is_kept: Whether this process wants them; else it only gives its parts.

    Returns:
        What is cut, whole and in the memory of the processor; what is not, as it was. Nothing where it is
        not wanted.
    """
    result = {}
    for name, tensor in tensors.items():
        together = tensor.full_tensor().cpu() if is_cut(tensor) else tensor
        if is_kept:
            result[name] = together
    return result


def cut_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this process's part of a tensor.

    Args:
        tensor: The whole one, the same in all processes.
        like: How it is cut, and on which device; a tensor that is not cut leaves it as it is.
    """
    if not is_cut(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415 - see `is_cut`

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def own_part(tensor: Tensor) -> Tensor:
    """Return the memory in which this process has its part; a tensor that is not cut is its own part."""
    return tensor.to_local() if is_cut(tensor) else tensor
