"""What each program of `effnet.kernels.norm_numba` does.

Activations are "rows by channels" in memory, a row being a pixel. A block is some rows of one image and,
where there are very many, a part of their channels. A program takes as many rows side by side as make a few
hundred numbers, so that vectors are full whatever the number of channels; what channels have is repeated
as often. ``real`` is the type of the activations; sums over blocks are in double precision.

The first arguments of all programs are channels, parts of the channels, rows of a block, blocks of an image
and rows of an image; an address of 0 stands for what is not there.
"""

from __future__ import annotations

from functools import cache
from typing import Any, no_type_check

import numpy as np
from numba import njit

from effnet.kernels.numba_math import sigmoid
from effnet.native.jit import at, behind, fetch, number, program, scratch

WIDTH = 1024
"""Most numbers side by side, and most channels of a part."""
ROOM = WIDTH + 112
"""For one number for each; several arrays of 4096 bytes would compete for the same places of the cache."""
_VECTOR, _SIDE_BY_SIDE = 64, 256
"""Numbers that are computed at once, at the most, and numbers side by side, at the least."""
_SHIFT_ROWS = 8
"""Whose mean is close enough to that of all for squares not to cancel."""


@njit(inline="always")
@no_type_check
def place_of(work, geometry):
    """Return first channel, their number, rows side by side, image, first row, row behind the last, slot."""
    channels, parts, rows, blocks_of_image = geometry[0], geometry[1], geometry[2], geometry[3]
    slot, part = work // parts, work % parts
    size = (channels + parts - 1) // parts
    image = slot // blocks_of_image
    first = image * geometry[4] + slot % blocks_of_image * rows
    last = min(first + rows, (image + 1) * geometry[4])
    # So many rows that no vector is left half empty, or nearly so.
    copies = _VECTOR // min(_VECTOR, channels & -channels)
    copies *= max(1, _SIDE_BY_SIDE // (copies * channels))
    copies = min(copies, max(1, WIDTH // channels))
    return part * size, min(size, channels - part * size), copies, image, first, last, slot


@njit(inline="always")
@no_type_check
def spread(source, count, copies, target):
    for copy in range(copies):
        for channel in range(count):
            target[copy * count + channel] = source[channel]


@njit(inline="always")
@no_type_check
def spread_norm(arguments, place, start, count, copies, mean, inverse, weight, bias, real):
    """What batch norm has for each channel; its four addresses begin at a place of the arguments."""
    spread(behind(at(arguments[place], real), start), count, copies, mean)
    spread(behind(at(arguments[place + 1], real), start), count, copies, inverse)
    spread(behind(at(arguments[place + 2], real), start), count, copies, weight)
    spread(behind(at(arguments[place + 3], real), start), count, copies, bias)


@njit(inline="always")
@no_type_check
def spread_or(value, address, place, count, copies, target, real):
    """The same of what may not be there."""
    if address == 0:
        for index in range(copies * count):
            target[index] = value
    else:
        spread(behind(at(address, real), place), count, copies, target)


@njit(inline="always")
@no_type_check
def clear(count, target):
    for index in range(count):
        target[index] = 0


@njit(inline="always")
@no_type_check
def fold(sums, count, copies, target):
    for channel in range(count):
        total = np.float64(sums[channel])
        for copy in range(1, copies):
            total += np.float64(sums[copy * count + channel])
        target[channel] = total


@cache
def statistics_program(real: Any) -> int:
    """Mean of each block and its sum of squared differences from it."""

    @program
    @no_type_check
    def statistics(block, arguments):
        start, count, copies, _, first, last, slot = place_of(block, arguments)
        channels = arguments[0]
        x = behind(at(arguments[5], real), start)
        mean = behind(at(arguments[6], np.float64), slot * channels + start)
        squares = behind(at(arguments[7], np.float64), slot * channels + start)
        shift, total, square = scratch(ROOM, real), scratch(ROOM, real), scratch(ROOM, real)
        clear(count, shift)
        some = min(last - first, _SHIFT_ROWS)
        for row in range(first, first + some):
            for channel in range(count):
                shift[channel] += x[row * channels + channel]
        for channel in range(count):
            shift[channel] /= real(some)
        spread(shift, count, copies, shift)
        clear(copies * count, total)
        clear(copies * count, square)
        step = copies * channels
        row = first
        while row + 4 * copies <= last:
            line = behind(x, row * channels)
            for index in range(copies * count):
                a = line[index] - shift[index]
                b = line[step + index] - shift[index]
                c = line[2 * step + index] - shift[index]
                d = line[3 * step + index] - shift[index]
                total[index] += (a + b) + (c + d)
                square[index] += (a * a + b * b) + (c * c + d * d)
            row += 4 * copies
        while row < last:
            line = behind(x, row * channels)
            for index in range(min(copies, last - row) * count):
                a = line[index] - shift[index]
                total[index] += a
                square[index] += a * a
            row += copies
        fold(total, count, copies, mean)
        fold(square, count, copies, squares)
        for channel in range(count):
            difference = mean[channel] / np.float64(last - first)
            squares[channel] = max(squares[channel] - difference * mean[channel], 0.0)
            mean[channel] = difference + shift[channel]

    return statistics


@cache
def merge_program(real: Any) -> int:
    """Mean, biased variance and inverse deviation from those of all blocks; moving statistics move, too."""

    @program
    @no_type_check
    def merge(block, arguments):
        channels, rows, blocks, all_rows = arguments[0], arguments[2], arguments[3], arguments[4]
        mean, squares = at(arguments[5], np.float64), at(arguments[6], np.float64)
        out_mean, out_variance = at(arguments[7], real), at(arguments[8], real)
        out_inverse, epsilon = at(arguments[9], real), number(arguments[10])
        for other in range(1, blocks):
            before = np.float64(other * rows)
            more = np.float64(min(rows, all_rows - other * rows))
            share = more / (before + more)
            for channel in range(channels):
                difference = mean[other * channels + channel] - mean[channel]
                mean[channel] += difference * share
                squares[channel] += (
                    squares[other * channels + channel] + difference * difference * before * share
                )
        for channel in range(channels):
            variance = squares[channel] / np.float64(all_rows)
            out_mean[channel] = mean[channel]
            out_variance[channel] = variance
            out_inverse[channel] = 1 / np.sqrt(variance + epsilon)
        if arguments[11] != 0:
            moving_mean, moving_variance = at(arguments[11], real), at(arguments[12], real)
            weight = number(arguments[13])
            for channel in range(channels):
                unbiased = squares[channel] / np.float64(all_rows - 1)
                moving_mean[channel] += weight * (mean[channel] - moving_mean[channel])
                moving_variance[channel] += weight * (unbiased - moving_variance[channel])

    return merge


@cache
def activate_program(real: Any) -> int:
    """``identity + factor * activation(normalised x)``."""

    @program
    @no_type_check
    def activate(block, arguments):
        start, count, copies, image, first, last, _ = place_of(block, arguments)
        channels, is_silu = arguments[0], arguments[12]
        x = behind(at(arguments[5], real), start)
        center, scale, bias = scratch(ROOM, real), scratch(ROOM, real), scratch(ROOM, real)
        factor = scratch(ROOM, real)
        spread_norm(arguments, 6, start, count, copies, center, scale, factor, bias, real)
        for index in range(copies * count):
            scale[index] *= factor[index]
        spread_or(real(1), arguments[10], image * channels + start, count, copies, factor, real)
        out = behind(at(arguments[13], real), start)
        has_identity = arguments[11] != 0
        identity = behind(at(arguments[11], real), start)
        row = first
        while row < last:
            place, width = row * channels, min(copies, last - row) * count
            line, target, added = behind(x, place), behind(out, place), behind(identity, place)
            fetch(behind(line, copies * channels), copies * count)
            if has_identity:
                fetch(behind(added, copies * channels), copies * count)
            if is_silu and not has_identity:
                for index in range(width):
                    value = (line[index] - center[index]) * scale[index] + bias[index]
                    target[index] = value * sigmoid(value) * factor[index]
            elif is_silu:
                for index in range(width):
                    value = (line[index] - center[index]) * scale[index] + bias[index]
                    target[index] = added[index] + value * sigmoid(value) * factor[index]
            elif has_identity:
                for index in range(width):
                    value = (line[index] - center[index]) * scale[index] + bias[index]
                    target[index] = added[index] + value * factor[index]
            else:
                for index in range(width):
                    value = (line[index] - center[index]) * scale[index] + bias[index]
                    target[index] = value * factor[index]
            row += copies

    return activate


@cache
def pool_program(real: Any) -> int:
    """Sum of the activated value over a block."""

    @program
    @no_type_check
    def pool(block, arguments):
        start, count, copies, _, first, last, slot = place_of(block, arguments)
        channels = arguments[0]
        x = behind(at(arguments[5], real), start)
        center, scale, bias = scratch(ROOM, real), scratch(ROOM, real), scratch(ROOM, real)
        total = scratch(ROOM, real)
        spread_norm(arguments, 6, start, count, copies, center, scale, total, bias, real)
        for index in range(copies * count):
            scale[index] *= total[index]
        clear(copies * count, total)
        row = first
        while row < last:
            line = behind(x, row * channels)
            fetch(behind(line, copies * channels), copies * count)
            for index in range(min(copies, last - row) * count):
                value = (line[index] - center[index]) * scale[index] + bias[index]
                total[index] += value * sigmoid(value)
            row += copies
        fold(total, count, copies, behind(at(arguments[10], np.float64), slot * channels + start))

    return pool


@cache
def images_program(real: Any) -> int:
    """Sum over an image, divided by a number; as many blocks of work as images."""

    @program
    @no_type_check
    def images(image, arguments):
        channels, blocks = arguments[0], arguments[3]
        sums = behind(at(arguments[5], np.float64), image * blocks * channels)
        out = behind(at(arguments[6], real), image * channels)
        for channel in range(channels):
            total = 0.0
            for block in range(blocks):
                total += sums[block * channels + channel]
            out[channel] = total / np.float64(arguments[7])

    return images
