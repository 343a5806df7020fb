"""What each program of `effnet.kernels.norm_numba` does in the backward pass; see `norm_numba_programs`."""

from __future__ import annotations

from functools import cache
from typing import Any, no_type_check

import numpy as np

from effnet.kernels.norm_numba_programs import (
    ROOM,
    clear,
    fold,
    place_of,
    spread,
    spread_norm,
    spread_or,
)
from effnet.kernels.numba_math import sigmoid
from effnet.native.jit import at, behind, fetch, program, scratch


@cache
def sums_program(real: Any) -> int:
    """Sums over a block that the gradients of weight, bias and gate consist of.

    With g the gradient, w the whitened input and a' the activation's slope: of g a' and g a' w; and, where
    there is a gate, of a', a' w, and g times the activated value.
    """

    @program
    @no_type_check
    def sums(block, arguments):
        start, count, copies, _, first, last, slot = place_of(block, arguments)
        channels, is_silu, has_gate = arguments[0], arguments[11], arguments[12]
        x, gradient = behind(at(arguments[5], real), start), behind(at(arguments[6], real), start)
        center, inverse = scratch(ROOM, real), scratch(ROOM, real)
        weight, bias = scratch(ROOM, real), scratch(ROOM, real)
        slope_sum, white_sum = scratch(ROOM, real), scratch(ROOM, real)
        slopes, whites, values = scratch(ROOM, real), scratch(ROOM, real), scratch(ROOM, real)
        spread_norm(arguments, 7, start, count, copies, center, inverse, weight, bias, real)
        clear(copies * count, slope_sum)
        clear(copies * count, white_sum)
        clear(copies * count, slopes)
        clear(copies * count, whites)
        clear(copies * count, values)
        row = first
        while row < last:
            place, width = row * channels, min(copies, last - row) * count
            line, upstream = behind(x, place), behind(gradient, place)
            fetch(behind(line, copies * channels), copies * count)
            fetch(behind(upstream, copies * channels), copies * count)
            if has_gate:
                for index in range(width):
                    white = (line[index] - center[index]) * inverse[index]
                    value = white * weight[index] + bias[index]
                    gate = sigmoid(value)
                    activated = value * gate
                    slope = gate + activated * (real(1) - gate)
                    change = upstream[index] * slope
                    slope_sum[index] += change
                    white_sum[index] += change * white
                    slopes[index] += slope
                    whites[index] += slope * white
                    values[index] += upstream[index] * activated
            elif is_silu:
                for index in range(width):
                    white = (line[index] - center[index]) * inverse[index]
                    value = white * weight[index] + bias[index]
                    gate = sigmoid(value)
                    change = upstream[index] * (gate + value * gate * (real(1) - gate))
                    slope_sum[index] += change
                    white_sum[index] += change * white
            else:
                for index in range(width):
                    white = (line[index] - center[index]) * inverse[index]
                    slope_sum[index] += upstream[index]
                    white_sum[index] += upstream[index] * white
            row += copies
        size = arguments[14]
        out = behind(at(arguments[13], np.float64), slot * channels + start)
        fold(slope_sum, count, copies, out)
        fold(white_sum, count, copies, behind(out, size))
        if has_gate:
            fold(slopes, count, copies, behind(out, 2 * size))
            fold(whites, count, copies, behind(out, 3 * size))
            fold(values, count, copies, behind(out, 4 * size))

    return sums


@cache
def parameters_program(real: Any) -> int:
    """Gradients of weight and bias, from the sums of all blocks; one block of work."""

    @program
    @no_type_check
    def parameters(block, arguments):
        channels, blocks, blocks_of_image = arguments[0], arguments[2], arguments[3]
        sums, size = at(arguments[5], np.float64), arguments[6]
        of_weight, of_bias = at(arguments[9], real), at(arguments[10], real)
        weight, bias = at(arguments[11], np.float64), at(arguments[12], np.float64)
        clear(channels, weight)
        clear(channels, bias)
        factor, offset = at(arguments[7], real), at(arguments[8], real)
        for slot in range(blocks):
            place = slot * channels
            image = slot // blocks_of_image * channels
            line = behind(sums, place)
            if arguments[8] != 0:
                for channel in range(channels):
                    a, b = np.float64(factor[image + channel]), np.float64(offset[image + channel])
                    bias[channel] += line[channel] * a + line[2 * size + channel] * b
                    weight[channel] += line[size + channel] * a + line[3 * size + channel] * b
            elif arguments[7] != 0:
                for channel in range(channels):
                    a = np.float64(factor[image + channel])
                    bias[channel] += line[channel] * a
                    weight[channel] += line[size + channel] * a
            else:
                for channel in range(channels):
                    bias[channel] += line[channel]
                    weight[channel] += line[size + channel]
        for channel in range(channels):
            of_weight[channel] = weight[channel]
            of_bias[channel] = bias[channel]

    return parameters


@cache
def input_gradient_program(real: Any) -> int:
    """Gradient of the input; its upstream is ``gradient * factor + offset``."""

    @program
    @no_type_check
    def input_gradient(block, arguments):
        start, count, copies, image, first, last, _ = place_of(block, arguments)
        channels, is_silu, has_offset = arguments[0], arguments[15], arguments[12] != 0
        x, gradient = behind(at(arguments[5], real), start), behind(at(arguments[6], real), start)
        center, inverse = scratch(ROOM, real), scratch(ROOM, real)
        weight, bias = scratch(ROOM, real), scratch(ROOM, real)
        factor, offset = scratch(ROOM, real), scratch(ROOM, real)
        scale, fixed, slanted = scratch(ROOM, real), scratch(ROOM, real), scratch(ROOM, real)
        spread_norm(arguments, 7, start, count, copies, center, inverse, weight, bias, real)
        there = image * channels + start
        spread_or(real(1), arguments[11], there, count, copies, factor, real)
        spread_or(real(0), arguments[12], there, count, copies, offset, real)
        spread(behind(at(arguments[13], real), start), count, copies, slanted)
        spread(behind(at(arguments[14], real), start), count, copies, fixed)
        rows = real(arguments[17])
        for index in range(copies * count):
            scale[index] = weight[index] * inverse[index]
            fixed[index] *= scale[index] / rows
            slanted[index] *= scale[index] / rows
            if not has_offset:
                scale[index] *= factor[index]
        out = behind(at(arguments[16], real), start)
        row = first
        while row < last:
            place, width = row * channels, min(copies, last - row) * count
            line, upstream, target = behind(x, place), behind(gradient, place), behind(out, place)
            fetch(behind(line, copies * channels), copies * count)
            fetch(behind(upstream, copies * channels), copies * count)
            if has_offset:
                for index in range(width):
                    white = (line[index] - center[index]) * inverse[index]
                    value = white * weight[index] + bias[index]
                    gate = sigmoid(value)
                    slope = gate + value * gate * (real(1) - gate)
                    change = (upstream[index] * factor[index] + offset[index]) * slope
                    target[index] = change * scale[index] - fixed[index] - white * slanted[index]
            elif is_silu:
                for index in range(width):
                    white = (line[index] - center[index]) * inverse[index]
                    value = white * weight[index] + bias[index]
                    gate = sigmoid(value)
                    change = upstream[index] * (gate + value * gate * (real(1) - gate))
                    target[index] = change * scale[index] - fixed[index] - white * slanted[index]
            else:
                for index in range(width):
                    white = (line[index] - center[index]) * inverse[index]
                    change = upstream[index] * scale[index]
                    target[index] = change - fixed[index] - white * slanted[index]
            row += copies

    return input_gradient
