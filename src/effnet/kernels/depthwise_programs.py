"""What each program of `effnet.kernels.depthwise_triton` does.

Activations are "N H W C" in memory. A program computes a tile of pixels, flattened, by channels; what
neighbouring pixels share it reads from the cache. Weights are "taps by channels", a tap being a place of the
kernel. ``EXACT`` is the type to compute in.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def _tile_pixels(width, TILE_HEIGHT: tl.constexpr, TILE_WIDTH: tl.constexpr):
    """Row and column of each pixel of this program's tile of an image of this width."""
    across = tl.cdiv(width, TILE_WIDTH)
    tile = tl.program_id(0)
    pixel = tl.arange(0, TILE_HEIGHT * TILE_WIDTH)
    row = (tile // across) * TILE_HEIGHT + pixel // TILE_WIDTH
    return row, (tile % across) * TILE_WIDTH + pixel % TILE_WIDTH


@triton.jit
@no_type_check
def depthwise_forward_program(
    x_ptr,
    weight_ptr,
    out_ptr,
    channels,
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
    EXACT: tl.constexpr,
):
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
            tap = tl.load(weight_ptr + (i * SIZE + j) * channels + channel, mask=is_channel, other=0.0)
            total += x.to(EXACT) * tap.to(EXACT)[None, :]
    place = (row * out_width + column)[:, None] * channels + channel[None, :]
    is_inside = ((row < out_height) & (column < out_width))[:, None] & is_channel[None, :]
    out_ptr += image * out_height * out_width * channels
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), mask=is_inside)


@triton.jit
@no_type_check
def depthwise_input_gradient_program(
    gradient_ptr,
    weight_ptr,
    out_ptr,
    channels,
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
    EXACT: tl.constexpr,
):
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
            tap = tl.load(weight_ptr + (i * SIZE + j) * channels + channel, mask=is_channel, other=0.0)
            total += gradient.to(EXACT) * tap.to(EXACT)[None, :]
    place = (row * width + column)[:, None] * channels + channel[None, :]
    is_inside = ((row < height) & (column < width))[:, None] & is_channel[None, :]
    out_ptr += image * height * width * channels
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), mask=is_inside)


@triton.jit
@no_type_check
def _product(
    gradient,
    x_ptr,
    image,
    x_row,
    x_column,
    channel,
    is_channel,
    channels,
    height,
    width,
    EXACT: tl.constexpr,
):
    is_inside = (x_row >= 0) & (x_row < height) & (x_column >= 0) & (x_column < width)
    place = ((image * height + x_row) * width + x_column)[:, None] * channels + channel[None, :]
    mask = is_inside[:, None] & is_channel[None, :]
    return gradient * tl.load(x_ptr + place, mask=mask, other=0.0).to(EXACT)


@triton.jit
@no_type_check
def depthwise_weight_gradient_program(
    gradient_ptr,
    x_ptr,
    out_ptr,
    rows,
    channels,
    height,
    width,
    out_height,
    out_width,
    top,
    left,
    share,
    SIZE: tl.constexpr,
    STRIDE: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Gradients of one row of the kernel over a share of the output pixels of all images."""
    # Programs that read the same pixels are neighbours, so that all but one find them in the cache.
    i = tl.program_id(0) % SIZE
    part = tl.program_id(0) // SIZE
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    # Sums over the rows of a tile come last: they need all threads.
    tap_0 = tl.zeros([ROWS, CHANNELS], dtype=EXACT)
    tap_1 = tl.zeros([ROWS, CHANNELS], dtype=EXACT)
    tap_2 = tl.zeros([ROWS, CHANNELS], dtype=EXACT)
    tap_3 = tl.zeros([ROWS, CHANNELS], dtype=EXACT)
    tap_4 = tl.zeros([ROWS, CHANNELS], dtype=EXACT)
    for start in range(0, share, ROWS):
        row = part.to(tl.int64) * share + start + tl.arange(0, ROWS)
        mask = (row < rows)[:, None] & is_channel[None, :]
        place = row[:, None] * channels + channel[None, :]
        gradient = tl.load(gradient_ptr + place, mask=mask, other=0.0).to(EXACT)
        image = row // (out_height * out_width)
        y = row // out_width % out_height * STRIDE + i - top
        # Behind the last output pixel the gradient is 0, but there must be something to read.
        y = tl.where(row < rows, y, -1)
        x = row % out_width * STRIDE - left
        tap_0 += _product(gradient, x_ptr, image, y, x, channel, is_channel, channels, height, width, EXACT)
        tap_1 += _product(
            gradient, x_ptr, image, y, x + 1, channel, is_channel, channels, height, width, EXACT
        )
        tap_2 += _product(
            gradient, x_ptr, image, y, x + 2, channel, is_channel, channels, height, width, EXACT
        )
        if SIZE == 5:
            tap_3 += _product(
                gradient, x_ptr, image, y, x + 3, channel, is_channel, channels, height, width, EXACT
            )
            tap_4 += _product(
                gradient, x_ptr, image, y, x + 4, channel, is_channel, channels, height, width, EXACT
            )
    out_ptr += ((part * SIZE + i) * SIZE) * channels
    tl.store(out_ptr + channel, tl.sum(tap_0, axis=0), mask=is_channel)
    tl.store(out_ptr + channels + channel, tl.sum(tap_1, axis=0), mask=is_channel)
    tl.store(out_ptr + 2 * channels + channel, tl.sum(tap_2, axis=0), mask=is_channel)
    if SIZE == 5:
        tl.store(out_ptr + 3 * channels + channel, tl.sum(tap_3, axis=0), mask=is_channel)
        tl.store(out_ptr + 4 * channels + channel, tl.sum(tap_4, axis=0), mask=is_channel)
