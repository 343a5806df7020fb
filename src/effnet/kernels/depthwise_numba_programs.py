"""What each program of `effnet.kernels.depthwise_numba` does.

Activations are "N H W C" in memory, with a multiple of `LANES` channels. A program copies the rows that it is
about to read into a buffer that the cache holds, in the type that it computes in, with zeros around them: so
there are no edges in the loops that count, and each number comes from memory once. Weights and sums are
"groups by taps by lanes", a group being `LANES` channels.
"""

from __future__ import annotations

from functools import cache
from typing import Any, no_type_check

from llvmlite.binding import get_host_cpu_features
from numba import njit

from effnet.kernels.numba_vectors import (
    LANES,
    add_products,
    convolve_cells,
    copy_cells,
)
from effnet.native.jit import at, behind, program, scratch

BUFFER = 32768
"""Numbers of a buffer; 128 KiB of the stack in single precision."""
_SUMS = 28 if get_host_cpu_features().get("avx512f") else 5
"""Cells that are summed up at a time, as many as there are registers for."""


@njit(inline="always")
@no_type_check
def _sizes(arguments):
    """Return channels, height, width, those of the output, top, left, kernel size, stride, groups, rows."""
    channels, height, width = arguments[0], arguments[1], arguments[2]
    out_height, out_width, top, left = arguments[3], arguments[4], arguments[5], arguments[6]
    size, stride, groups, share = arguments[7], arguments[8], arguments[9], arguments[10]
    return channels, height, width, out_height, out_width, top, left, size, stride, groups, share


@njit(inline="always")
@no_type_check
def _clear(target, cells):
    for index in range(cells * LANES):
        target[index] = 0


@njit(inline="always")
@no_type_check
def _fill(target, x, height, width, channels, groups, first, rows, left, columns):
    """Copy rows of an image from ``first`` on, some of which may lie outside, behind ``left`` empty cells."""
    inside = min(width, columns - left)
    for row in range(rows):
        y = first + row
        for group in range(groups):
            line = behind(target, (group * rows + row) * columns * LANES)
            if y < 0 or y >= height:
                _clear(line, columns)
            else:
                _clear(line, left)
                source = behind(x, y * width * channels + group * LANES)
                copy_cells(behind(line, left * LANES), source, channels, inside)
                _clear(behind(line, (left + inside) * LANES), columns - left - inside)


@njit(inline="always")
@no_type_check
def _convolve_row(out, out_step, count, x, x_row, x_step, taps, tap_row, tap_step, rows, columns):
    full = count // 8
    convolve_cells(out, out_step, full, x, x_row, x_step, taps, tap_row, tap_step, rows, columns, 8)
    done = full * 8
    if count - done >= 4:
        out_rest, x_rest = behind(out, done * out_step), behind(x, done * x_step)
        convolve_cells(
            out_rest, out_step, 1, x_rest, x_row, x_step, taps, tap_row, tap_step, rows, columns, 4
        )
        done += 4
    out_rest, x_rest = behind(out, done * out_step), behind(x, done * x_step)
    convolve_cells(
        out_rest, out_step, count - done, x_rest, x_row, x_step, taps, tap_row, tap_step, rows, columns, 1
    )


@cache
def convolve_program(real: Any, exact: Any) -> int:
    """Some rows of an image's output; ``real`` is the type of activations, ``exact`` that of the rest."""

    @program
    @no_type_check
    def convolve(block, arguments):
        channels, height, width, out_height, out_width, top, left, size, stride, groups, share = _sizes(
            arguments
        )
        x, taps, out = at(arguments[11], real), at(arguments[12], exact), at(arguments[13], real)
        buffer = scratch(BUFFER, exact)
        shares = (out_height + share - 1) // share
        image, first = block // shares, block % shares * share
        last, columns = min(first + share, out_height), (out_width - 1) * stride + size
        rows = (last - first - 1) * stride + size
        for start in range(0, channels // LANES, groups):
            some = min(groups, channels // LANES - start)
            source = behind(x, image * height * width * channels + start * LANES)
            _fill(buffer, source, height, width, channels, some, first * stride - top, rows, left, columns)
            for group in range(some):
                for p in range(first, last):
                    place = (image * out_height + p) * out_width * channels + (start + group) * LANES
                    row = group * rows + (p - first) * stride
                    _convolve_row(
                        behind(out, place),
                        channels,
                        out_width,
                        behind(buffer, row * columns * LANES),
                        columns * LANES,
                        stride * LANES,
                        behind(taps, (start + group) * size * size * LANES),
                        size * LANES,
                        LANES,
                        size,
                        size,
                    )

    return convolve


@cache
def input_gradient_program(real: Any, exact: Any) -> int:
    """Some rows of the gradient of an image.

    With a stride, the taps that reach a pixel depend on whether its row and its column are odd, so that there
    are four convolutions without a stride. Taps are taken from the last to the first.
    """

    @program
    @no_type_check
    def input_gradient(block, arguments):
        channels, height, width, out_height, out_width, top, left, size, stride, groups, share = _sizes(
            arguments
        )
        gradient, taps, out = at(arguments[11], real), at(arguments[12], exact), at(arguments[13], real)
        buffer = scratch(BUFFER, exact)
        shares = (height + share - 1) // share
        image, first = block // shares, block % shares * share
        last, before = min(first + share, height), (size - 1) // stride
        columns = before + (width - 1 + left) // stride + 1
        lowest = (first + top) // stride - before
        rows = (last - 1 + top) // stride - lowest + 1
        for start in range(0, channels // LANES, groups):
            some = min(groups, channels // LANES - start)
            source = behind(gradient, image * out_height * out_width * channels + start * LANES)
            _fill(buffer, source, out_height, out_width, channels, some, lowest, rows, before, columns)
            for group in range(some):
                weights = behind(taps, (start + group) * size * size * LANES)
                for y in range(first, last):
                    above = (y + top) % stride
                    tap_rows = (size - above + stride - 1) // stride
                    row = group * rows + (y + top) // stride - tap_rows + 1 - lowest
                    for x in range(min(stride, width)):
                        beside = (x + left) % stride
                        tap_columns = (size - beside + stride - 1) // stride
                        column = (x + left) // stride - tap_columns + 1 + before
                        tap = (above + stride * (tap_rows - 1)) * size + beside + stride * (tap_columns - 1)
                        place = ((image * height + y) * width + x) * channels + (start + group) * LANES
                        _convolve_row(
                            behind(out, place),
                            stride * channels,
                            (width - x + stride - 1) // stride,
                            behind(buffer, (row * columns + column) * LANES),
                            columns * LANES,
                            LANES,
                            behind(weights, tap * LANES),
                            -stride * size * LANES,
                            -stride * LANES,
                            tap_rows,
                            tap_columns,
                        )

    return input_gradient


@cache
def weight_gradient_program(real: Any, exact: Any, size: int, stride: int) -> int:
    """The sums of some groups over some images."""
    height_at_once = min(size, max(_SUMS // size, 1))
    rest = size % height_at_once

    @program
    @no_type_check
    def weight_gradient(block, arguments):
        channels, height, width, out_height, out_width, top, left, _, _, groups, share = _sizes(arguments)
        images, images_of_block = arguments[14], arguments[15]
        gradient, x, sums = at(arguments[11], real), at(arguments[12], real), at(arguments[13], exact)
        buffer = scratch(BUFFER, exact)
        all_groups = channels // LANES
        chunks = (all_groups + groups - 1) // groups
        part, start = block // chunks, block % chunks * groups
        some, columns = min(groups, all_groups - start), (out_width - 1) * stride + size
        totals = behind(sums, (part * all_groups + start) * size * size * LANES)
        _clear(totals, some * size * size)
        for image in range(part * images_of_block, min((part + 1) * images_of_block, images)):
            source = behind(x, image * height * width * channels + start * LANES)
            for first in range(0, out_height, share):
                last = min(first + share, out_height)
                rows = (last - first - 1) * stride + size
                _fill(
                    buffer, source, height, width, channels, some, first * stride - top, rows, left, columns
                )
                for group in range(some):
                    place = (image * out_height + first) * out_width * channels + (start + group) * LANES
                    upstream = behind(gradient, place)
                    for i in range(0, size - height_at_once + 1, height_at_once):
                        add_products(
                            behind(totals, (group * size + i) * size * LANES),
                            upstream,
                            out_width * channels,
                            channels,
                            behind(buffer, (group * rows + i) * columns * LANES),
                            columns * LANES,
                            last - first,
                            out_width,
                            size,
                            height_at_once,
                            stride,
                        )
                    if rest:
                        i = size - rest
                        add_products(
                            behind(totals, (group * size + i) * size * LANES),
                            upstream,
                            out_width * channels,
                            channels,
                            behind(buffer, (group * rows + i) * columns * LANES),
                            columns * LANES,
                            last - first,
                            out_width,
                            size,
                            rest,
                            stride,
                        )

    return weight_gradient
