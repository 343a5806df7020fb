"""What the programs of `effnet.kernels.norm_triton` do that sum over the pixels of an activation.

The activation is a matrix of rows and channels as in `effnet.kernels.norm_programs`. Programs that share its
rows take turns, tile by tile, from the end: there it is in the cache if it was just written, and what comes
next and begins at the start finds that there. Sums stay where they are in a tile until the last is added;
what programs have summed is added up by another program, always in the same order.
"""

from typing import no_type_check

import triton
import triton.language as tl

from effnet.kernels.norm_programs import of_channels, places_of, sigmoid_of, through_silu


@triton.jit(do_not_specialize=["rows", "units", "tiles"])
@no_type_check
def statistics_program(
    x_ptr,
    mean_ptr,
    square_ptr,
    rows,
    units,
    tiles,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    UNIT: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Mean, and sum of squares around it, of each channel's distances from its first value.

    Over this program's tiles. The distances keep their digits where the mean is large; what is squared are
    distances from the mean of the first tile (shifted data: Chan, Golub and LeVeque, 1983).
    """
    channels = units * UNIT
    part, parts = tl.program_id(0), tl.num_programs(0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    last = tiles - 1 - part
    row = last * ROWS + tl.arange(0, ROWS)
    is_inside = (row < rows)[:, None] & is_channel[None, :]
    place = places_of(row, channel, channels)
    x = tl.load(x_ptr + place, mask=is_inside, other=0.0)
    first = tl.load(x_ptr + channel, mask=is_channel, other=0.0).to(EXACT)
    distance = tl.where(is_inside, x.to(EXACT) - first[None, :], 0.0)
    base = first + tl.sum(distance, axis=0) / tl.minimum(rows - last * ROWS, ROWS)
    total = tl.zeros([ROWS, CHANNELS], dtype=EXACT)
    squares = tl.zeros([ROWS, CHANNELS], dtype=EXACT)
    for step in range(0, tl.cdiv(tiles - part, parts)):
        distance = tl.where(is_inside, x.to(EXACT) - base[None, :], 0.0)
        # The next tile is asked for while this one is worked on.
        row = (last - (step + 1) * parts) * ROWS + tl.arange(0, ROWS)
        is_inside = (row >= 0)[:, None] & is_channel[None, :]
        place = places_of(row, channel, channels)
        x = tl.load(x_ptr + place, mask=is_inside, other=0.0)
        total += distance
        squares += distance * distance
    count = rows_of_part(part, parts, tiles, rows, ROWS).to(EXACT)
    step = tl.sum(total, axis=0)
    place = part * channels + channel
    tl.store(mean_ptr + place, base - first + step / count, mask=is_channel)
    tl.store(square_ptr + place, tl.sum(squares, axis=0) - step * step / count, mask=is_channel)


@triton.jit
@no_type_check
def rows_of_part(part, parts, tiles, rows, ROWS: tl.constexpr):
    """How many rows the tiles of a program have; the first has the last tile, which may not be full."""
    missing = tl.where(part == 0, tiles * ROWS - rows, 0)
    return tl.cdiv(tiles - part, parts) * ROWS - missing


@triton.jit(do_not_specialize=["rows", "tiles", "parts"])
@no_type_check
def merge_program(
    x_ptr,
    part_mean_ptr,
    part_square_ptr,
    mean_ptr,
    variance_ptr,
    inverse_ptr,
    rows,
    channels,
    tiles,
    parts,
    EPSILON: tl.constexpr,
    ROWS: tl.constexpr,
    PARTS: tl.constexpr,
    CHANNELS: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Mean, variance and inverse deviation of each channel over all rows."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    sums = tl.zeros([PARTS, CHANNELS], dtype=EXACT)
    for start in range(0, parts, PARTS):
        part = start + tl.arange(0, PARTS)
        is_inside = (part < parts)[:, None] & is_channel[None, :]
        count = rows_of_part(part, parts, tiles, rows, ROWS).to(EXACT)
        place = part[:, None] * channels + channel[None, :]
        sums += tl.load(part_mean_ptr + place, mask=is_inside, other=0.0) * count[:, None]
    mean = tl.sum(sums, axis=0) / rows
    squares = tl.zeros([PARTS, CHANNELS], dtype=EXACT)
    for start in range(0, parts, PARTS):
        part = start + tl.arange(0, PARTS)
        is_inside = (part < parts)[:, None] & is_channel[None, :]
        count = rows_of_part(part, parts, tiles, rows, ROWS).to(EXACT)
        place = part[:, None] * channels + channel[None, :]
        distance = tl.load(part_mean_ptr + place, mask=is_inside, other=0.0) - mean[None, :]
        between = tl.where(is_inside, distance * distance * count[:, None], 0.0)
        squares += tl.load(part_square_ptr + place, mask=is_inside, other=0.0) + between
    # Rounding can leave a little less than nothing.
    variance = tl.maximum(tl.sum(squares, axis=0) / rows, 0.0)
    first = tl.load(x_ptr + channel, mask=is_channel, other=0.0).to(EXACT)
    tl.store(mean_ptr + channel, first + mean, mask=is_channel)
    tl.store(variance_ptr + channel, variance, mask=is_channel)
    tl.store(inverse_ptr + channel, 1.0 / tl.sqrt(variance + EPSILON), mask=is_channel)


@triton.jit(do_not_specialize=["weight", "correction"])
@no_type_check
def move_program(
    mean_ptr,
    variance_ptr,
    moving_mean_ptr,
    moving_variance_ptr,
    channels,
    weight,
    correction,
    CHANNELS: tl.constexpr,
):
    """Go a part of the way from the moving statistics to those of a batch, as `torch.lerp` does."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    mean = tl.load(moving_mean_ptr + channel, mask=is_channel, other=0.0)
    mean += weight * (tl.load(mean_ptr + channel, mask=is_channel, other=0.0) - mean)
    tl.store(moving_mean_ptr + channel, mean, mask=is_channel)
    variance = tl.load(moving_variance_ptr + channel, mask=is_channel, other=0.0)
    batch = tl.load(variance_ptr + channel, mask=is_channel, other=0.0) * correction
    variance += weight * (batch - variance)
    tl.store(moving_variance_ptr + channel, variance, mask=is_channel)


@triton.jit(do_not_specialize=["units", "pixels"])
@no_type_check
def pool_program(
    x_ptr,
    mean_ptr,
    inverse_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    units,
    pixels,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    UNIT: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Mean over the pixels of an image of the activated value."""
    channels = units * UNIT
    image = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    x_ptr += image * pixels * channels
    pixel = tl.arange(0, ROWS)
    is_inside = (pixel < pixels)[:, None] & is_channel[None, :]
    x = tl.load(x_ptr + pixel[:, None] * channels + channel[None, :], mask=is_inside, other=0.0)
    mean = of_channels(mean_ptr, channel, is_channel)
    inverse = tl.load(inverse_ptr + channel, mask=is_channel, other=0.0)
    scale = (inverse * tl.load(weight_ptr + channel, mask=is_channel, other=0.0))[None, :]
    bias = of_channels(bias_ptr, channel, is_channel)
    total = tl.zeros([ROWS, CHANNELS], dtype=EXACT)
    for start in range(0, pixels, ROWS):
        value, was_inside = (x.to(EXACT) - mean) * scale + bias, is_inside
        pixel = start + ROWS + tl.arange(0, ROWS)
        is_inside = (pixel < pixels)[:, None] & is_channel[None, :]
        x = tl.load(x_ptr + pixel[:, None] * channels + channel[None, :], mask=is_inside, other=0.0)
        total += tl.where(was_inside, value * sigmoid_of(value), 0.0)
    tl.store(out_ptr + image * channels + channel, tl.sum(total, axis=0) / pixels, mask=is_channel)


@triton.jit(do_not_specialize=["units", "pixels"])
@no_type_check
def image_sums_program(
    x_ptr,
    gradient_ptr,
    mean_ptr,
    inverse_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    units,
    pixels,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    UNIT: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Five sums over the pixels of an image: see `effnet.kernels.norm_plain.image_sums`."""
    channels = units * UNIT
    image = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    x_ptr += image * pixels * channels
    gradient_ptr += image * pixels * channels
    pixel = tl.arange(0, ROWS)
    is_inside = (pixel < pixels)[:, None] & is_channel[None, :]
    place = pixel[:, None] * channels + channel[None, :]
    next_x = tl.load(x_ptr + place, mask=is_inside, other=0.0)
    next_gradient = tl.load(gradient_ptr + place, mask=is_inside, other=0.0)
    mean = of_channels(mean_ptr, channel, is_channel)
    inverse = of_channels(inverse_ptr, channel, is_channel)
    weight = of_channels(weight_ptr, channel, is_channel)
    bias = of_channels(bias_ptr, channel, is_channel)
    products = tl.zeros([ROWS, CHANNELS], dtype=EXACT)
    gradients = tl.zeros([ROWS, CHANNELS], dtype=EXACT)
    slopes = tl.zeros([ROWS, CHANNELS], dtype=EXACT)
    whitened_gradients = tl.zeros([ROWS, CHANNELS], dtype=EXACT)
    whitened_slopes = tl.zeros([ROWS, CHANNELS], dtype=EXACT)
    for start in range(0, pixels, ROWS):
        x, gradient, was_inside = next_x.to(EXACT), next_gradient.to(EXACT), is_inside
        pixel = start + ROWS + tl.arange(0, ROWS)
        is_inside = (pixel < pixels)[:, None] & is_channel[None, :]
        place = pixel[:, None] * channels + channel[None, :]
        next_x = tl.load(x_ptr + place, mask=is_inside, other=0.0)
        next_gradient = tl.load(gradient_ptr + place, mask=is_inside, other=0.0)
        whitened = (x - mean) * inverse
        value = whitened * weight + bias
        sigmoid = sigmoid_of(value)
        slope = tl.where(was_inside, sigmoid * (1.0 + value * (1.0 - sigmoid)), 0.0)
        products += gradient * (value * sigmoid)
        slopes += slope
        whitened_slopes += slope * whitened
        slope = gradient * slope
        gradients += slope
        whitened_gradients += slope * whitened
    step = tl.num_programs(0).to(tl.int64) * channels
    out_ptr += image * channels
    tl.store(out_ptr + channel, tl.sum(products, axis=0), mask=is_channel)
    tl.store(out_ptr + step + channel, tl.sum(gradients, axis=0), mask=is_channel)
    tl.store(out_ptr + 2 * step + channel, tl.sum(slopes, axis=0), mask=is_channel)
    tl.store(out_ptr + 3 * step + channel, tl.sum(whitened_gradients, axis=0), mask=is_channel)
    tl.store(out_ptr + 4 * step + channel, tl.sum(whitened_slopes, axis=0), mask=is_channel)


@triton.jit(do_not_specialize=["images"])
@no_type_check
def join_program(
    sums_ptr,
    factor_ptr,
    offset_ptr,
    of_weight_ptr,
    of_bias_ptr,
    images,
    channels,
    IMAGES: tl.constexpr,
    CHANNELS: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Gradients of weight and bias from the sums of all images."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    step = images * channels
    of_weight = tl.zeros([IMAGES, CHANNELS], dtype=EXACT)
    of_bias = tl.zeros([IMAGES, CHANNELS], dtype=EXACT)
    for start in range(0, images, IMAGES):
        image = start + tl.arange(0, IMAGES)
        is_inside = (image < images)[:, None] & is_channel[None, :]
        place = image[:, None] * channels + channel[None, :]
        factor = tl.load(factor_ptr + place, mask=is_inside, other=0.0)
        offset = tl.load(offset_ptr + place, mask=is_inside, other=0.0)
        of_bias += factor * tl.load(sums_ptr + step + place, mask=is_inside, other=0.0)
        of_bias += offset * tl.load(sums_ptr + 2 * step + place, mask=is_inside, other=0.0)
        of_weight += factor * tl.load(sums_ptr + 3 * step + place, mask=is_inside, other=0.0)
        of_weight += offset * tl.load(sums_ptr + 4 * step + place, mask=is_inside, other=0.0)
    tl.store(of_weight_ptr + channel, tl.sum(of_weight, axis=0), mask=is_channel)
    tl.store(of_bias_ptr + channel, tl.sum(of_bias, axis=0), mask=is_channel)


@triton.jit(do_not_specialize=["rows", "units", "pixels", "tiles"])
@no_type_check
def gradient_sums_program(
    x_ptr,
    gradient_ptr,
    mean_ptr,
    inverse_ptr,
    weight_ptr,
    bias_ptr,
    factor_ptr,
    out_ptr,
    rows,
    units,
    pixels,
    tiles,
    HAS_FACTOR: tl.constexpr,
    IS_SILU: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    UNIT: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Gradients of weight and bias over this program's tiles."""
    channels = units * UNIT
    part, parts = tl.program_id(0), tl.num_programs(0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    last = tiles - 1 - part
    row = last * ROWS + tl.arange(0, ROWS)
    is_inside = (row < rows)[:, None] & is_channel[None, :]
    place = places_of(row, channel, channels)
    next_x = tl.load(x_ptr + place, mask=is_inside, other=0.0)
    # Where there is no row it is 0, and so is what is added.
    next_gradient = tl.load(gradient_ptr + place, mask=is_inside, other=0.0)
    mean = of_channels(mean_ptr, channel, is_channel)
    inverse = of_channels(inverse_ptr, channel, is_channel)
    weight = of_channels(weight_ptr, channel, is_channel)
    bias = of_channels(bias_ptr, channel, is_channel)
    of_weight = tl.zeros([ROWS, CHANNELS], dtype=EXACT)
    of_bias = tl.zeros([ROWS, CHANNELS], dtype=EXACT)
    for step in range(0, tl.cdiv(tiles - part, parts)):
        whitened, gradient = (next_x.to(EXACT) - mean) * inverse, next_gradient.to(EXACT)
        if HAS_FACTOR:
            factor_place = (row // pixels)[:, None] * channels + channel[None, :]
            gradient = gradient * tl.load(factor_ptr + factor_place, mask=is_inside, other=0.0)
        row = (last - (step + 1) * parts) * ROWS + tl.arange(0, ROWS)
        is_inside = (row >= 0)[:, None] & is_channel[None, :]
        place = places_of(row, channel, channels)
        next_x = tl.load(x_ptr + place, mask=is_inside, other=0.0)
        next_gradient = tl.load(gradient_ptr + place, mask=is_inside, other=0.0)
        if IS_SILU:
            gradient = through_silu(gradient, whitened * weight + bias)
        of_weight += gradient * whitened
        of_bias += gradient
    place = part * channels + channel
    tl.store(out_ptr + place, tl.sum(of_weight, axis=0), mask=is_channel)
    tl.store(out_ptr + parts * channels + place, tl.sum(of_bias, axis=0), mask=is_channel)


@triton.jit(do_not_specialize=["parts"])
@no_type_check
def add_parts_program(
    parts_ptr,
    of_weight_ptr,
    of_bias_ptr,
    parts,
    channels,
    PARTS: tl.constexpr,
    CHANNELS: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Sums of each channel over what several programs have summed."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    of_weight = tl.zeros([PARTS, CHANNELS], dtype=EXACT)
    of_bias = tl.zeros([PARTS, CHANNELS], dtype=EXACT)
    for start in range(0, parts, PARTS):
        part = start + tl.arange(0, PARTS)
        is_inside = (part < parts)[:, None] & is_channel[None, :]
        place = part[:, None] * channels + channel[None, :]
        of_weight += tl.load(parts_ptr + place, mask=is_inside, other=0.0)
        of_bias += tl.load(parts_ptr + parts * channels + place, mask=is_inside, other=0.0)
    tl.store(of_weight_ptr + channel, tl.sum(of_weight, axis=0), mask=is_channel)
    tl.store(of_bias_ptr + channel, tl.sum(of_bias, axis=0), mask=is_channel)
