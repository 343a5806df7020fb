"""What each program of `effnet.kernels.depthwise_triton` does.

Activations are "N H W C" in memory. Weights are "C by taps", a tap being a place of the kernel. There are
``units`` times ``UNIT`` channels, so that the compiler knows how far pixels are aligned. ``EXACT`` is the
type to compute in.

The first program is for kernels of 3 x 3 that move by one pixel, as most are. It goes down the rows of an
image and reads each of them once for each column of the kernel: what a row adds to its neighbours is kept.
The columns of all images lie side by side, so that narrow images fill a tile as well. The other programs
compute a tile of pixels, flattened, and read for each tap; what neighbouring pixels share they find in the
cache.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def _tap(weight_ptr, channel, is_channel, TAP: tl.constexpr, TAPS: tl.constexpr, EXACT: tl.constexpr):
    return tl.load(weight_ptr + channel * TAPS + TAP, mask=is_channel, other=0.0).to(EXACT)[None, :]


@triton.jit(
    do_not_specialize=[
        "images",
        "units",
        "height",
        "width",
        "out_height",
        "out_width",
        "top",
        "left",
        "segment",
    ]
)
@no_type_check
def depthwise_rows_program(
    x_ptr,
    weight_ptr,
    out_ptr,
    images,
    units,
    height,
    width,
    out_height,
    out_width,
    top,
    left,
    segment,
    IS_FLIPPED: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
    UNIT: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Output of a segment of rows; with a flipped kernel the gradient of the input."""
    channels = units * UNIT
    place = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    start = tl.program_id(2) * segment
    is_channel = channel < channels
    is_column = place < images * out_width
    image = (place // out_width).to(tl.int64)
    column = place % out_width
    last: tl.constexpr = 8 if IS_FLIPPED else 0
    way: tl.constexpr = -1 if IS_FLIPPED else 1
    tap_0 = _tap(weight_ptr, channel, is_channel, last, 9, EXACT)
    tap_1 = _tap(weight_ptr, channel, is_channel, last + way, 9, EXACT)
    tap_2 = _tap(weight_ptr, channel, is_channel, last + 2 * way, 9, EXACT)
    tap_3 = _tap(weight_ptr, channel, is_channel, last + 3 * way, 9, EXACT)
    tap_4 = _tap(weight_ptr, channel, is_channel, last + 4 * way, 9, EXACT)
    tap_5 = _tap(weight_ptr, channel, is_channel, last + 5 * way, 9, EXACT)
    tap_6 = _tap(weight_ptr, channel, is_channel, last + 6 * way, 9, EXACT)
    tap_7 = _tap(weight_ptr, channel, is_channel, last + 7 * way, 9, EXACT)
    tap_8 = _tap(weight_ptr, channel, is_channel, last + 8 * way, 9, EXACT)
    x_column = column - left
    is_0 = (is_column & (x_column >= 0) & (x_column < width))[:, None] & is_channel[None, :]
    is_1 = (is_column & (x_column >= -1) & (x_column < width - 1))[:, None] & is_channel[None, :]
    is_2 = (is_column & (x_column >= -2) & (x_column < width - 2))[:, None] & is_channel[None, :]
    is_out = is_column[:, None] & is_channel[None, :]
    x_ptr += (image * height * width + x_column)[:, None] * channels + channel[None, :]
    out_ptr += (image * out_height * out_width + column)[:, None] * channels + channel[None, :]
    ending = tl.zeros([COLUMNS, CHANNELS], dtype=EXACT)
    going = tl.zeros([COLUMNS, CHANNELS], dtype=EXACT)
    is_row = (start >= top) & (start - top < height)
    here = x_ptr + (start - top) * width * channels
    next_0 = tl.load(here, mask=is_0 & is_row, other=0.0)
    next_1 = tl.load(here + channels, mask=is_1 & is_row, other=0.0)
    next_2 = tl.load(here + 2 * channels, mask=is_2 & is_row, other=0.0)
    for step in range(0, segment + 2):
        x_0, x_1, x_2 = next_0.to(EXACT), next_1.to(EXACT), next_2.to(EXACT)
        # Asked for while this row is worked on: waiting for memory is most of the time.
        row = start + step + 1 - top
        is_row = (row >= 0) & (row < height) & (step <= segment)
        here = x_ptr + row * width * channels
        next_0 = tl.load(here, mask=is_0 & is_row, other=0.0)
        next_1 = tl.load(here + channels, mask=is_1 & is_row, other=0.0)
        next_2 = tl.load(here + 2 * channels, mask=is_2 & is_row, other=0.0)
        done = ending + x_0 * tap_6 + x_1 * tap_7 + x_2 * tap_8
        ending = going + x_0 * tap_3 + x_1 * tap_4 + x_2 * tap_5
        going = x_0 * tap_0 + x_1 * tap_1 + x_2 * tap_2
        out_row = start + step - 2
        is_done = (step >= 2) & (out_row < out_height)
        there = out_ptr + out_row * out_width * channels
        tl.store(there, done.to(out_ptr.dtype.element_ty), mask=is_out & is_done)


@triton.jit
@no_type_check
def _tile_pixels(width, TILE_HEIGHT: tl.constexpr, TILE_WIDTH: tl.constexpr):
    """Row and column of each pixel of this program's tile of an image of this width."""
    across = tl.cdiv(width, TILE_WIDTH)
    tile = tl.program_id(0)
    pixel = tl.arange(0, TILE_HEIGHT * TILE_WIDTH)
    row = (tile // across) * TILE_HEIGHT + pixel // TILE_WIDTH
    return row, (tile % across) * TILE_WIDTH + pixel % TILE_WIDTH


@triton.jit(do_not_specialize=["units", "height", "width", "out_height", "out_width", "top", "left"])
@no_type_check
def depthwise_forward_program(
    x_ptr,
    weight_ptr,
    out_ptr,
    units,
    height,
    width,
    out_height,
    out_width,
    top,
    left,
    SIZE: tl.constexpr,
    STRIDE: tl.constexpr,
    TILE_HEIGHT: tl.constexpr,
    TILE_WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    UNIT: tl.constexpr,
    EXACT: tl.constexpr,
):
    channels = units * UNIT
    row, column = _tile_pixels(out_width, TILE_HEIGHT, TILE_WIDTH)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    image = tl.program_id(2).to(tl.int64)
    is_channel = channel < channels
    x_ptr += image * height * width * channels
    total = tl.zeros([TILE_HEIGHT * TILE_WIDTH, CHANNELS], dtype=EXACT)
    for i in tl.static_range(SIZE):
        for j in tl.static_range(SIZE):
            x_row = row * STRIDE + i - top
            x_column = column * STRIDE + j - left
            is_inside = (x_row >= 0) & (x_row < height) & (x_column >= 0) & (x_column < width)
            place = (x_row * width + x_column)[:, None] * channels + channel[None, :]
            x = tl.load(x_ptr + place, mask=is_inside[:, None] & is_channel[None, :], other=0.0)
            tap = _tap(weight_ptr, channel, is_channel, i * SIZE + j, SIZE * SIZE, EXACT)
            total += x.to(EXACT) * tap
    place = (row * out_width + column)[:, None] * channels + channel[None, :]
    is_inside = ((row < out_height) & (column < out_width))[:, None] & is_channel[None, :]
    out_ptr += image * out_height * out_width * channels
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), mask=is_inside)


@triton.jit(do_not_specialize=["units", "height", "width", "out_height", "out_width", "top", "left"])
@no_type_check
def depthwise_input_gradient_program(
    gradient_ptr,
    weight_ptr,
    out_ptr,
    units,
    height,
    width,
    out_height,
    out_width,
    top,
    left,
    SIZE: tl.constexpr,
    STRIDE: tl.constexpr,
    TILE_HEIGHT: tl.constexpr,
    TILE_WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    UNIT: tl.constexpr,
    EXACT: tl.constexpr,
):
    channels = units * UNIT
    row, column = _tile_pixels(width, TILE_HEIGHT, TILE_WIDTH)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    image = tl.program_id(2).to(tl.int64)
    is_channel = channel < channels
    gradient_ptr += image * out_height * out_width * channels
    total = tl.zeros([TILE_HEIGHT * TILE_WIDTH, CHANNELS], dtype=EXACT)
    for i in tl.static_range(SIZE):
        for j in tl.static_range(SIZE):
            # The output pixel that reads this input pixel through this tap; with a stride there may be none.
            y = row + top - i
            x = column + left - j
            is_inside = (y >= 0) & (y < out_height * STRIDE) & (x >= 0) & (x < out_width * STRIDE)
            if STRIDE > 1:
                is_inside = is_inside & (y % STRIDE == 0) & (x % STRIDE == 0)
            place = (y // STRIDE * out_width + x // STRIDE)[:, None] * channels + channel[None, :]
            mask = is_inside[:, None] & is_channel[None, :]
            gradient = tl.load(gradient_ptr + place, mask=mask, other=0.0)
            tap = _tap(weight_ptr, channel, is_channel, i * SIZE + j, SIZE * SIZE, EXACT)
            total += gradient.to(EXACT) * tap
    place = (row * width + column)[:, None] * channels + channel[None, :]
    is_inside = ((row < height) & (column < width))[:, None] & is_channel[None, :]
    out_ptr += image * height * width * channels
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), mask=is_inside)
