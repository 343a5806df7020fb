"""What the programs of `effnet.kernels.norm_triton` do that go over an activation and write another one.

An activation "N C H W" with its channels last is a matrix: a row for each pixel of each image, a column for
each channel. Every program goes over tiles of it, and reads or writes each element once. There are ``units``
times ``UNIT`` channels, so that the compiler knows how far rows are aligned. ``EXACT`` is the type to compute
in. Programs are not made anew for other numbers of pixels, as image sizes change in a run.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def sigmoid_of(x):
    """The sigmoid; never the exponential of a large number."""
    return 1.0 / (1.0 + tl.exp(tl.minimum(-x, 80.0)))


@triton.jit
@no_type_check
def through_silu(gradient, value):
    """The gradient in front of SiLU, of one behind it."""
    sigmoid = sigmoid_of(value)
    return gradient * sigmoid * (1.0 + value * (1.0 - sigmoid))


@triton.jit
@no_type_check
def of_channels(ptr, channel, is_channel):
    """A number for each channel, beside rows."""
    return tl.load(ptr + channel, mask=is_channel, other=0.0)[None, :]


@triton.jit
@no_type_check
def places_of(row, channel, channels):
    """Where rows and channels meet; there may be more places than 32 bits count."""
    return row.to(tl.int64)[:, None] * channels + channel[None, :]


@triton.jit(do_not_specialize=["rows", "units", "pixels"])
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
    units,
    pixels,
    HAS_FACTOR: tl.constexpr,
    HAS_IDENTITY: tl.constexpr,
    IS_SILU: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    UNIT: tl.constexpr,
    EXACT: tl.constexpr,
):
    channels = units * UNIT
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    is_inside = (row < rows)[:, None] & is_channel[None, :]
    place = places_of(row, channel, channels)
    x = tl.load(x_ptr + place, mask=is_inside, other=0.0).to(EXACT)
    mean = of_channels(mean_ptr, channel, is_channel)
    inverse = tl.load(inverse_ptr + channel, mask=is_channel, other=0.0)
    scale = (inverse * tl.load(weight_ptr + channel, mask=is_channel, other=0.0))[None, :]
    bias = of_channels(bias_ptr, channel, is_channel)
    # Not as x * scale + shift, which cancels where the mean is large.
    value = (x - mean) * scale + bias
    if IS_SILU:
        value = value * sigmoid_of(value)
    if HAS_FACTOR:
        factor_place = (row // pixels)[:, None] * channels + channel[None, :]
        value = value * tl.load(factor_ptr + factor_place, mask=is_inside, other=0.0)
    if HAS_IDENTITY:
        value = value + tl.load(identity_ptr + place, mask=is_inside, other=0.0).to(EXACT)
    tl.store(out_ptr + place, value.to(out_ptr.dtype.element_ty), mask=is_inside)


@triton.jit(do_not_specialize=["rows", "units", "pixels"])
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
    units,
    pixels,
    HAS_FACTOR: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    IS_SILU: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    UNIT: tl.constexpr,
    EXACT: tl.constexpr,
):
    channels = units * UNIT
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    is_inside = (row < rows)[:, None] & is_channel[None, :]
    place = places_of(row, channel, channels)
    x = tl.load(x_ptr + place, mask=is_inside, other=0.0).to(EXACT)
    gradient = tl.load(gradient_ptr + place, mask=is_inside, other=0.0).to(EXACT)
    mean = of_channels(mean_ptr, channel, is_channel)
    inverse = of_channels(inverse_ptr, channel, is_channel)
    weight = of_channels(weight_ptr, channel, is_channel)
    through_variance = (tl.load(of_weight_ptr + channel, mask=is_channel, other=0.0) / rows)[None, :]
    through_mean = (tl.load(of_bias_ptr + channel, mask=is_channel, other=0.0) / rows)[None, :]
    whitened = (x - mean) * inverse
    factor_place = (row // pixels)[:, None] * channels + channel[None, :]
    if HAS_FACTOR:
        gradient = gradient * tl.load(factor_ptr + factor_place, mask=is_inside, other=0.0)
    if HAS_OFFSET:
        gradient = gradient + tl.load(offset_ptr + factor_place, mask=is_inside, other=0.0)
    if IS_SILU:
        gradient = through_silu(gradient, whitened * weight + of_channels(bias_ptr, channel, is_channel))
    gradient = (gradient - through_mean - whitened * through_variance) * (weight * inverse)
    tl.store(out_ptr + place, gradient.to(out_ptr.dtype.element_ty), mask=is_inside)
