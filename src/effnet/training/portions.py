"""Lists of tensors in portions that a processor's cache holds, for chains of element-wise operations.

A chain of operations on all weights fetches everything from memory once for each operation; portion by
portion it is fetched once. Element-wise results do not depend on how the elements are grouped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

PORTION = 1 << 16
"""Elements of one list; with half a dozen lists of float32, 1.5 MB. Measured, see docs/log.md."""


def in_portions(*lists: Sequence[Tensor], elements: int = PORTION) -> Iterator[list[list[Tensor]]]:
    """Yield the same part of each list until all have been yielded: tensors, and pieces of large ones.

    On other devices than a processor, everything is one portion: launching costs more than fetching.

    Args:
        lists: Of equal length; tensors at the same place have the same shape.
        elements: Of a list in a portion, about.

    Yields:
        For each list a list; pieces are flat views of the memory.
    """
    portion: list[list[Tensor]] = [[] for _ in lists]
    if not lists[0] or lists[0][0].device.type != "cpu":
        yield [list(tensors) for tensors in lists]
        return
    count = 0
    for tensors in zip(*lists, strict=True):
        for pieces in zip(*_pieces(tensors, elements), strict=True):
            for part, piece in zip(portion, pieces, strict=True):
                part.append(piece)
            count += pieces[0].numel()
            if count >= elements:
                yield portion
                portion, count = [[] for _ in lists], 0
    if count:
        yield portion


def _pieces(tensors: Sequence[Tensor], elements: int) -> list[Sequence[Tensor]]:
    if tensors[0].numel() <= elements or not all(map(_is_plain, tensors)) or not _are_alike(tensors):
        return [[tensor] for tensor in tensors]
    return [torch.split(tensor.as_strided((tensor.numel(),), (1,)), elements) for tensor in tensors]


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is its own memory, without gaps; not so the parts of sharded ones."""
    return type(tensor) in {Tensor, nn.Parameter} and (
        tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)
    )


def _are_alike(tensors: Sequence[Tensor]) -> bool:
    return all(first.stride() == second.stride() for first, second in pairwise(tensors))
