"""Tables of the codes in a scan of a JPEG file, for Numba's programs.

Each block of 8 x 8 numbers has one code for its mean, as the difference to the mean of the block before, and
then some for the other 63 numbers: so many zeros, and the bits of the one behind them. A code has up to 16
bits, and stands for one byte: how many zeros there are (its high half) and how many bits follow. Source:
ITU-T T.81, annexes C and F.

A space has all tables of a kind, `ROOM` numbers of 32 bits. In the file a table has 16 counts, one for each
length of codes, and then the values.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from numba import njit, uint64

from effnet.native.jit import behind
from effnet.native.jpeg_index import TABLES

PEEK = 11
"""Bits by which codes are looked up; longer ones are searched for."""
_CODES, _LIMITS, STEPS = 0, TABLES << PEEK, (TABLES << PEEK) + TABLES * 32
"""Where in a space the codes are, what comes behind those of each length, and steps."""
_LAID_OUT, _MOST_BYTES = STEPS + (TABLES << PEEK), 16 + 256
"""For each table: whether codes are laid out (1), and steps as well (2); then what the file says of it."""
ROOM = _LAID_OUT + (1 + _MOST_BYTES) * TABLES
OVER = 64
"""Numbers of a block."""
END = 128
"""What the code for a block's end passes."""


@njit
@no_type_check
def lay_out(data, place, table, space, most, with_steps):
    """Make tables of what is in the file at a place, unless they are there; whether all is sound.

    Args:
        data: The file.
        place: Of the table in it.
        table: Its number.
        space: Of its kind; 0 in the beginning.
        most: Largest value that a code may have.
        with_steps: Whether also to lay out how far several codes lead.
    """
    laid_out = behind(space, _LAID_OUT + (1 + _MOST_BYTES) * table)
    if laid_out[0] == 0 or not _is_the_same(data, place, behind(laid_out, 1)):
        laid_out[0] = 0
        if not _lay_out_codes(data, place, table, space, most):
            return False
        for byte in range(table_length(data, place)):
            laid_out[1 + byte] = data[place + byte]
        laid_out[0] = 1
    if with_steps and laid_out[0] == 1:
        _lay_out_steps(table, space)
        laid_out[0] = 2
    return True


@njit
@no_type_check
def table_length(data, place):
    """Return how many bytes a table has in the file: its counts, and as many values."""
    length = 16
    for byte in range(16):
        length += data[place + byte]
    return length


@njit
@no_type_check
def _is_the_same(data, place, kept):
    """Whether a table says what another one said; a length is a part of what it says."""
    length, same = table_length(data, place), 0
    while same < length and data[place + same] == kept[same]:
        same += 1
    return same == length


@njit
@no_type_check
def _lay_out_codes(data, place, table, space, most):
    """Make tables of the codes; whether none is all ones in its length, nor any value too large."""
    codes = behind(space, _CODES + (table << PEEK))
    limits = behind(space, _LIMITS + 32 * table)
    for peek in range(1 << PEEK):
        codes[peek] = 0
    code, values = 0, 0
    for length in range(1, 17):
        count = data[place + length - 1]
        # By adding this to a code, its place among the values is found.
        limits[16 + length - 1] = values - code
        if count > 0 and code + count >= 1 << length:
            return False
        for number in range(count):
            if data[place + 16 + values + number] > most:
                return False
        if length <= PEEK:
            shift = PEEK - length
            for number in range(count):
                entry = length << 8 | data[place + 16 + values + number]
                for peek in range((code + number) << shift, (code + number + 1) << shift):
                    codes[peek] = entry
        code += count
        values += count
        limits[length - 1] = code
        code <<= 1
    return True


@njit
@no_type_check
def _lay_out_steps(table, space):
    """Make a table of how far several codes at once lead, or one: in bits, and in the block's numbers.

    An entry has the bits of all (5 bits of it), how many numbers all but the last of them pass (6), and all
    (8), and then the first one's bits (5) and numbers (8). A block's end passes `END` numbers.
    """
    codes = behind(space, _CODES + (table << PEEK))
    steps = behind(space, STEPS + (table << PEEK))
    for peek in range(1 << PEEK):
        bits, before, passed, first_bits, first_passed = 0, 0, 0, 0, 0
        while bits < PEEK and passed < OVER:
            entry = codes[(peek << bits) & ((1 << PEEK) - 1)]
            width, more = (entry >> 8) + (entry & 15), passes(entry & 255)
            # The first may be followed by bits that are not seen here; of a further one, all has to be.
            if entry == 0 or (bits > 0 and bits + width > PEEK):
                break
            bits, before, passed = bits + width, passed, passed + more
            if first_bits == 0:
                first_bits, first_passed = width, more
        steps[peek] = np.int32(bits | before << 5 | passed << 11 | first_bits << 19 | first_passed << 24)


@njit(inline="always")
@no_type_check
def passes(value):
    """Return how many numbers of a block a code passes."""
    if value & 15:
        return (value >> 4) + 1
    return 16 if value >> 4 == 15 else END


@njit(inline="always")
@no_type_check
def next_code(bits, table, data, place, space):
    """Return length and value of the next code; a length of 0 where there is no such code."""
    entry = space[_CODES + (table << PEEK) + np.int64(bits >> uint64(64 - PEEK))]
    if entry:
        return np.int64(entry >> 8), np.int64(entry & 255)
    for length in range(PEEK + 1, 17):
        code = np.int64(bits >> uint64(64 - length))
        if code < space[_LIMITS + 32 * table + length - 1]:
            return length, np.int64(data[place + 16 + code + space[_LIMITS + 32 * table + 16 + length - 1]])
    return 0, 0


@njit(inline="always")
@no_type_check
def difference(bits, length, width):
    """Return the number behind a code, which has ``width`` bits."""
    if width == 0:
        return 0
    value = np.int64((bits << uint64(length)) >> uint64(64 - width))
    return value if value >> (width - 1) else value - (1 << width) + 1
