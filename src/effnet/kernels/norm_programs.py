"""What each program of `effnet.kernels.norm_triton` does.

An activation "N C H W" with its channels last is a matrix: a row for each pixel of each image, a column for
each channel. Every program goes over tiles of it, and reads or writes each element once. ``EXACT`` is the
type to compute in.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def _normalized(x, channel, is_channel, mean_ptr, inverse_ptr, weight_ptr, bias_ptr):
    mean = tl.load(mean_ptr + channel, mask=is_channel, other=0.0)
    inverse = tl.load(inverse_ptr + channel, mask=is_channel, other=0.0)
    weight = tl.load(weight_ptr + channel, mask=is_channel, other=0.0)
    bias = tl.load(bias_ptr + channel, mask=is_channel, other=0.0)
    whitened = (x - mean[None, :]) * inverse[None, :]
    return whitened, whitened * weight[None, :] + bias[None, :]


@triton.jit
@no_type_check
def _sigmoid(x):
    # Never the exponential of a large number.
    small = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, small) / (1.0 + small)


@triton.jit
@no_type_check
def _normalized_gradient(
    x,
    gradient,
    image,
    channel,
    is_inside,
    is_channel,
    mean_ptr,
    inverse_ptr,
    weight_ptr,
    bias_ptr,
    factor_ptr,
    offset_ptr,
    channels,
    HAS_FACTOR: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    IS_SILU: tl.constexpr,
):
    whitened, value = _normalized(x, channel, is_channel, mean_ptr, inverse_ptr, weight_ptr, bias_ptr)
    place = image[:, None] * channels + channel[None, :]
    if HAS_FACTOR:
        gradient = gradient * tl.load(factor_ptr + place, mask=is_inside, other=0.0)
    if HAS_OFFSET:
        gradient = gradient + tl.load(offset_ptr + place, mask=is_inside, other=0.0)
    if IS_SILU:
        sigmoid = _sigmoid(value)
        gradient = gradient * sigmoid * (1.0 + value * (1.0 - sigmoid))
    return whitened, gradient


@triton.jit
@no_type_check
def statistics_program(
    x_ptr,
    mean_ptr,
    square_ptr,
    rows,
    channels,
    share,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Mean and sum of squares around it, of each channel's distances from its first value.

    Over a share of the rows. The distances keep their digits where the mean is large.
    """
    part = tl.program_id(0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    first = tl.load(x_ptr + channel, mask=is_channel, other=0.0).to(EXACT)
    mean = tl.zeros([CHANNELS], dtype=EXACT)
    squares = tl.zeros([CHANNELS], dtype=EXACT)
    count = tl.zeros([CHANNELS], dtype=EXACT)
    for start in range(0, share, ROWS):
        row = part.to(tl.int64) * share + start + tl.arange(0, ROWS)
        is_inside = (row < rows)[:, None] & is_channel[None, :]
        x = tl.load(x_ptr + row[:, None] * channels + channel[None, :], mask=is_inside, other=0.0).to(EXACT)
        x = tl.where(is_inside, x - first[None, :], 0.0)
        more = tl.sum((row < rows).to(EXACT), axis=0)
        their_mean = tl.sum(x, axis=0) / tl.maximum(more, 1.0)
        distance = tl.where(is_inside, x - their_mean[None, :], 0.0)
        # Chan, Golub and LeVeque (1979): no difference of large sums.
        step = their_mean - mean
        both = tl.maximum(count + more, 1.0)
        squares += tl.sum(distance * distance, axis=0) + step * step * count * more / both
        mean += step * more / both
        count += more
    place = part * channels + channel
    tl.store(mean_ptr + place, mean, mask=is_channel)
    tl.store(square_ptr + place, squares, mask=is_channel)


@triton.jit
@no_type_check
def merge_program(
    x_ptr,
    part_mean_ptr,
    part_square_ptr,
    mean_ptr,
    variance_ptr,
    rows,
    channels,
    share,
    parts,
    PARTS: tl.constexpr,
    CHANNELS: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Mean and variance of each channel over all rows."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    total = tl.zeros([CHANNELS], dtype=EXACT)
    for start in range(0, parts, PARTS):
        part = start + tl.arange(0, PARTS)
        is_inside = (part < parts)[:, None] & is_channel[None, :]
        count = tl.minimum(rows - part.to(tl.int64) * share, share).to(EXACT)
        place = part[:, None] * channels + channel[None, :]
        total += tl.sum(tl.load(part_mean_ptr + place, mask=is_inside, other=0.0) * count[:, None], axis=0)
    mean = total / rows
    squares = tl.zeros([CHANNELS], dtype=EXACT)
    for start in range(0, parts, PARTS):
        part = start + tl.arange(0, PARTS)
        is_inside = (part < parts)[:, None] & is_channel[None, :]
        count = tl.minimum(rows - part.to(tl.int64) * share, share).to(EXACT)
        place = part[:, None] * channels + channel[None, :]
        distance = tl.load(part_mean_ptr + place, mask=is_inside, other=0.0) - mean[None, :]
        between = tl.where(is_inside, distance * distance * count[:, None], 0.0)
        squares += tl.sum(tl.load(part_square_ptr + place, mask=is_inside, other=0.0) + between, axis=0)
    first = tl.load(x_ptr + channel, mask=is_channel, other=0.0).to(EXACT)
    tl.store(mean_ptr + channel, first + mean, mask=is_channel)
    tl.store(variance_ptr + channel, squares / rows, mask=is_channel)


@triton.jit
@no_type_check
def activate_program(
    x_ptr,
    mean_ptr,
    inverse_ptr,
    weight_ptr,
    bias_ptr,
    factor_ptr,
    identity_ptr,
    out_ptr,
    rows,
    channels,
    pixels,
    HAS_FACTOR: tl.constexpr,
    HAS_IDENTITY: tl.constexpr,
    IS_SILU: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    EXACT: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    is_inside = (row < rows)[:, None] & is_channel[None, :]
    place = row[:, None] * channels + channel[None, :]
    x = tl.load(x_ptr + place, mask=is_inside, other=0.0).to(EXACT)
    _, value = _normalized(x, channel, is_channel, mean_ptr, inverse_ptr, weight_ptr, bias_ptr)
    if IS_SILU:
        value = value * _sigmoid(value)
    if HAS_FACTOR:
        image = row // pixels
        factor_place = image[:, None] * channels + channel[None, :]
        value = value * tl.load(factor_ptr + factor_place, mask=is_inside, other=0.0)
    if HAS_IDENTITY:
        value = value + tl.load(identity_ptr + place, mask=is_inside, other=0.0).to(EXACT)
    tl.store(out_ptr + place, value.to(out_ptr.dtype.element_ty), mask=is_inside)


@triton.jit
@no_type_check
def pool_program(
    x_ptr,
    gradient_ptr,
    mean_ptr,
    inverse_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    channels,
    pixels,
    HAS_GRADIENT: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Over the pixels of an image: the mean of the activated value, or the sum of gradient times value."""
    image = tl.program_id(0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    total = tl.zeros([CHANNELS], dtype=EXACT)
    for start in range(0, pixels, ROWS):
        pixel = start + tl.arange(0, ROWS)
        is_inside = (pixel < pixels)[:, None] & is_channel[None, :]
        row = image.to(tl.int64) * pixels + pixel
        place = row[:, None] * channels + channel[None, :]
        x = tl.load(x_ptr + place, mask=is_inside, other=0.0).to(EXACT)
        _, value = _normalized(x, channel, is_channel, mean_ptr, inverse_ptr, weight_ptr, bias_ptr)
        value = value * _sigmoid(value)
        if HAS_GRADIENT:
            value = value * tl.load(gradient_ptr + place, mask=is_inside, other=0.0).to(EXACT)
        total += tl.sum(tl.where(is_inside, value, 0.0), axis=0)
    if not HAS_GRADIENT:
        total = total / pixels
    tl.store(out_ptr + image.to(tl.int64) * channels + channel, total, mask=is_channel)


@triton.jit
@no_type_check
def gradient_sums_program(
    x_ptr,
    gradient_ptr,
    mean_ptr,
    inverse_ptr,
    weight_ptr,
    bias_ptr,
    factor_ptr,
    offset_ptr,
    of_weight_ptr,
    of_bias_ptr,
    rows,
    channels,
    pixels,
    share,
    HAS_FACTOR: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    IS_SILU: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Gradients of weight and bias over a share of the rows."""
    part = tl.program_id(0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    of_weight = tl.zeros([CHANNELS], dtype=EXACT)
    of_bias = tl.zeros([CHANNELS], dtype=EXACT)
    for start in range(0, share, ROWS):
        row = part.to(tl.int64) * share + start + tl.arange(0, ROWS)
        is_inside = (row < rows)[:, None] & is_channel[None, :]
        place = row[:, None] * channels + channel[None, :]
        whitened, gradient = _normalized_gradient(
            tl.load(x_ptr + place, mask=is_inside, other=0.0).to(EXACT),
            tl.load(gradient_ptr + place, mask=is_inside, other=0.0).to(EXACT),
            row // pixels,
            channel,
            is_inside,
            is_channel,
            mean_ptr,
            inverse_ptr,
            weight_ptr,
            bias_ptr,
            factor_ptr,
            offset_ptr,
            channels,
            HAS_FACTOR,
            HAS_OFFSET,
            IS_SILU,
        )
        gradient = tl.where(is_inside, gradient, 0.0)
        of_weight += tl.sum(gradient * whitened, axis=0)
        of_bias += tl.sum(gradient, axis=0)
    place = part * channels + channel
    tl.store(of_weight_ptr + place, of_weight, mask=is_channel)
    tl.store(of_bias_ptr + place, of_bias, mask=is_channel)


@triton.jit
@no_type_check
def input_gradient_program(
    x_ptr,
    gradient_ptr,
    mean_ptr,
    inverse_ptr,
    weight_ptr,
    bias_ptr,
    factor_ptr,
    offset_ptr,
    of_weight_ptr,
    of_bias_ptr,
    out_ptr,
    rows,
    channels,
    pixels,
    HAS_FACTOR: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    IS_SILU: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    EXACT: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    is_inside = (row < rows)[:, None] & is_channel[None, :]
    place = row[:, None] * channels + channel[None, :]
    whitened, gradient = _normalized_gradient(
        tl.load(x_ptr + place, mask=is_inside, other=0.0).to(EXACT),
        tl.load(gradient_ptr + place, mask=is_inside, other=0.0).to(EXACT),
        row // pixels,
        channel,
        is_inside,
        is_channel,
        mean_ptr,
        inverse_ptr,
        weight_ptr,
        bias_ptr,
        factor_ptr,
        offset_ptr,
        channels,
        HAS_FACTOR,
        HAS_OFFSET,
        IS_SILU,
    )
    through_variance = tl.load(of_weight_ptr + channel, mask=is_channel, other=0.0) / rows
    through_mean = tl.load(of_bias_ptr + channel, mask=is_channel, other=0.0) / rows
    scale = tl.load(weight_ptr + channel, mask=is_channel, other=0.0)
    scale = scale * tl.load(inverse_ptr + channel, mask=is_channel, other=0.0)
    gradient = (gradient - through_mean[None, :] - whitened * through_variance[None, :]) * scale[None, :]
    tl.store(out_ptr + place, gradient.to(out_ptr.dtype.element_ty), mask=is_inside)
