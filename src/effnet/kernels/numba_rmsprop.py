"""TensorFlow's RMSprop in one pass over weights, gradients and slots, on a processor by Numba.

The operations are those of `effnet.training.optimizers.RMSpropTF` in their order, but each number is fetched
and written once. Results differ from torch's by rounding: other products and sums are one operation, and the
root is exact. They depend neither on the number of threads nor on how tensors are cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import no_type_check

import numpy as np
import torch
from torch import Tensor, nn

from effnet.kernels.numba_threads import run
from effnet.native.jit import at, behind, number, number_bits, program

_BLOCK = 16384
"""Weights of a block."""


def can_update(tensors: Sequence[Tensor]) -> bool:
    """Whether a weight, its gradient and its slots lie alike in memory of the host, without gaps."""
    # Not by their strides: those of a side of one pixel say nothing, and need not be the same.
    return any(
        all(tensor.is_contiguous(memory_format=layout) for tensor in tensors)
        for layout in (torch.contiguous_format, torch.channels_last)
    ) and all(
        type(tensor) in {Tensor, nn.Parameter}
        and tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        for tensor in tensors
    )


def update(
    tensors: Sequence[Sequence[Tensor]],
    *,
    rate: float,
    decay: float,
    momentum: float,
    epsilon: float,
    shrink: float,
    weight_decay: float,
) -> None:
    """Change weights, mean squares and momentum in place.

    Args:
        tensors: Rows of a weight, its gradient, its mean square and its momentum, as `can_update` wants them.
        rate: Learning rate.
        decay: Of the mean square.
        momentum: Of the update.
        epsilon: Added to the mean square.
        shrink: What weights are multiplied by beforehand.
        weight_decay: What weights are multiplied by before they are added to the gradient.
    """
    table = [address for row in tensors for address in _row(row)]
    starts = [0]
    for row in tensors:
        starts.append(starts[-1] + -(-row[0].numel() // _BLOCK))
    rows, blocks = torch.tensor(table), torch.tensor(starts)
    scalars = (rate, decay, 1 - decay, momentum, epsilon, shrink, weight_decay)
    run(
        _update_program(),
        starts[-1],
        (rows.data_ptr(), blocks.data_ptr(), len(tensors), *map(number_bits, scalars)),
        elements=sum(row[0].numel() for row in tensors),
    )


def _row(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    return (*(tensor.data_ptr() for tensor in tensors), tensors[0].numel())


@cache
def _update_program() -> int:
    @program
    @no_type_check
    def update(block, arguments):
        rows, starts = at(arguments[0], np.int64), at(arguments[1], np.int64)
        low, high = 0, arguments[2]
        while high - low > 1:  # The tensor that this block is a part of.
            middle = (low + high) // 2
            if starts[middle] <= block:
                low = middle
            else:
                high = middle
        row = behind(rows, 5 * low)
        first = (block - starts[low]) * _BLOCK
        count = min(row[4] - first, _BLOCK)
        weights = behind(at(row[0], np.float32), first)
        gradients = behind(at(row[1], np.float32), first)
        squares = behind(at(row[2], np.float32), first)
        updates = behind(at(row[3], np.float32), first)
        rate, decay = np.float32(number(arguments[3])), np.float32(number(arguments[4]))
        share, momentum = np.float32(number(arguments[5])), np.float32(number(arguments[6]))
        epsilon, shrink = np.float32(number(arguments[7])), np.float32(number(arguments[8]))
        weight_decay = np.float32(number(arguments[9]))
        for index in range(count):
            weight = weights[index]
            gradient = gradients[index] + weight_decay * weight
            square = squares[index] * decay + share * gradient * gradient
            change = updates[index] * momentum + rate * gradient / np.sqrt(square + epsilon)
            squares[index] = square
            updates[index] = change
            weights[index] = weight * shrink - change

    return update
