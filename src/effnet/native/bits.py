"""Streams of bits as JPEG files have them, for Numba's programs: read, and written.

The first bit of a byte is its highest. A byte of 255 is followed by one of 0, which is no part of the stream;
anything else behind it is a marker, where the stream ends. Bits that were read and not taken yet, or not
written yet, are the highest of a number of 64 bits, and those below them are 0.
"""

from __future__ import annotations

from typing import no_type_check

from llvmlite import ir
from numba import njit, types, uint8, uint64
from numba.extending import intrinsic

_WORD = ir.IntType(64)
_ONES, _HIGHS = uint64(0x0101010101010101), uint64(0x8080808080808080)


def _swapped(builder: ir.IRBuilder, word: ir.Value) -> ir.Value:
    return builder.call(builder.module.declare_intrinsic("llvm.bswap", [_WORD]), [word])


@intrinsic
@no_type_check
def load(typing_context, pointer, place):
    """Return eight bytes, of which the first is the highest."""

    def generate(context, builder, signature, arguments):
        address = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), _WORD.as_pointer())
        return _swapped(builder, builder.load(address, align=1))

    return types.uint64(pointer, types.int64), generate


@intrinsic
@no_type_check
def _store(typing_context, pointer, place, word):
    def generate(context, builder, signature, arguments):
        address = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), _WORD.as_pointer())
        builder.store(_swapped(builder, arguments[2]), address, align=1)
        return context.get_dummy_value()

    return types.void(pointer, types.int64, types.uint64), generate


@njit(inline="always")
@no_type_check
def has_255(word):
    """Whether one of eight bytes is 255."""
    return ((~word - _ONES) & word & _HIGHS) != uint64(0)


@njit(inline="always")
@no_type_check
def refill(data, place, limit, bits, count):
    """Read on until there are more than 56 bits, or 32 of which none had to be looked at one by one.

    Args:
        data: Bytes.
        place: Of the next byte to read; behind ``limit`` there are zeros.
        limit: Where the stream ends at the latest, before the last byte there is.
        bits: Read and not taken.
        count: How many these are.

    Returns:
        The last four, as they are now: the limit is where a marker was found.
    """
    if count < 32:
        word = load(data, place) if place + 8 <= limit else ~uint64(0)
        if not has_255(word):
            bits |= word >> uint64(count)
            taken = (63 - count) >> 3
            place += taken
            count += 8 * taken
        else:
            while count <= 56:
                byte = uint64(0)
                if place < limit:
                    byte = uint64(data[place])
                    if byte == uint64(255):
                        if data[place + 1] == 0:
                            place += 1
                        else:
                            limit = place
                            byte = uint64(0)
                place += 1
                bits |= byte << uint64(56 - count)
                count += 8
    return place, limit, bits, count


@njit(inline="always")
@no_type_check
def position(data, place, limit, count):
    """Return where in the file, in bits, the next bit to be taken stands; arguments as of `refill`."""
    back = count
    while back > 0:
        place -= 1
        if place < limit and data[place] == 0 and data[place - 1] == 255:
            place -= 1
        back -= 8
    return 8 * place - back


@njit(inline="always")
@no_type_check
def open_at(data, start):
    """Return the next place to read, the bits up to it, and how many they are, for a stream from a bit on."""
    place, count = start >> 3, 8 - (start & 7)
    byte = uint64(data[place])
    return place + (2 if byte == uint64(255) else 1), byte << uint64(64 - count), count


@njit(inline="always")
@no_type_check
def _put_byte(out, place, byte):
    """Write a byte, and the 0 that follows one of 255; return the place behind."""
    out[place] = uint8(byte)
    if byte == uint64(255):
        out[place + 1] = uint8(0)
        place += 1
    return place + 1


@njit(inline="always")
@no_type_check
def put(out, place, bits, count, value, width):
    """Write up to 32 bits.

    Args:
        out: Bytes.
        place: Of the next one to write.
        bits: Not written yet.
        count: How many these are, below 32.
        value: The new ones, as a number.
        width: How many of them; at least one.

    Returns:
        The second to fourth, as they are now.
    """
    bits |= (value << uint64(64 - width)) >> uint64(count)
    count += width
    if count >= 32:
        for shift in (56, 48, 40, 32):
            place = _put_byte(out, place, (bits >> uint64(shift)) & uint64(255))
        bits <<= uint64(32)
        count -= 32
    return place, bits, count


@njit
@no_type_check
def copy(data, start, end, out, place, bits, count):
    """Write a stretch of a stream, between two bits of ``data``, to another; the rest is as of `put`."""
    source, last = start >> 3, end >> 3
    width = min(8 - (start & 7), end - start) if source == last else 8 - (start & 7)
    while source < last:
        # The rest of a byte, or what is around bytes of 255.
        byte = uint64(data[source]) & uint64((1 << width) - 1)
        place, bits, count = put(out, place, bits, count, byte, width)
        source += 2 if data[source] == 255 else 1
        width = 8
        while source + 8 <= last:
            word = load(data, source)
            if has_255(word):
                break
            joined = bits | word >> uint64(count)
            if has_255(joined):
                break
            _store(out, place, joined)
            bits = (word << uint64(63 - count)) << uint64(1)
            source += 8
            place += 8
    width = end & 7 if start >> 3 < last else end - start
    if width > 0:
        byte = (uint64(data[last]) >> uint64(8 - (end & 7))) & uint64((1 << width) - 1)
        place, bits, count = put(out, place, bits, count, byte, width)
    return place, bits, count


@njit
@no_type_check
def finish(out, place, bits, count):
    """Fill the last byte up with ones and write what is left; return the place behind it."""
    bits |= ~uint64(0) >> uint64(count)
    while count > 0:
        place = _put_byte(out, place, bits >> uint64(56))
        bits <<= uint64(8)
        count -= 8
    return place
