"""What the programs of `effnet.native.jpeg` do: find parts of a JPEG file's scan, and cut them out.

No number of a block is looked at but its mean; what matters is where codes end.
"""

from __future__ import annotations

from functools import cache
from typing import Any, no_type_check

import numpy as np
from numba import njit, uint64

from effnet.native.bits import copy, finish, load, open_at, position, put, refill
from effnet.native.codes import (
    END,
    OVER,
    PEEK,
    ROOM,
    STEPS,
    difference,
    lay_out,
    next_code,
    passes,
    table_length,
)
from effnet.native.jit import at, behind, function
from effnet.native.jpeg_index import (
    BLOCKS,
    COLUMNS,
    DIGEST,
    ENTRIES,
    GROUP,
    KINDS,
    LENGTH,
    MEAN_PLACES,
    MEAN_TABLE,
    OTHER_PLACES,
    OTHER_TABLE,
    RANGE_COUNT,
    RANGES,
    ROWS,
    SCAN,
    SCAN_HEAD,
    TABLES,
)

MOST_CATEGORIES = 12
"""Numbers of bits that a difference of means can have in a file of 8 bits a colour."""
OWN_CODES = 32 * TABLES
"""Numbers behind the tables, of codes that parts have."""
_MOST_READ_AHEAD = 16
"""Bytes, of which no code has been taken yet."""
_PRIME = uint64(0x9E3779B97F4A7C15)


@njit
@no_type_check
def _digest(data, length):
    a, b, c, d = _PRIME, uint64(1), uint64(2), uint64(3)
    place = 0
    while place + 32 <= length:
        a = (a ^ load(data, place)) * _PRIME
        b = (b ^ load(data, place + 8)) * _PRIME
        c = (c ^ load(data, place + 16)) * _PRIME
        d = (d ^ load(data, place + 24)) * _PRIME
        place += 32
    while place < length:
        a = (a ^ uint64(data[place])) * _PRIME
        place += 1
    for other in (b, c, d):
        a = ((a ^ (a >> uint64(29))) ^ other) * _PRIME
    return a ^ (a >> uint64(32))


@njit(inline="always")
@no_type_check
def _tables(data, index, space, with_steps):
    """Make all tables that an index names; whether they are as they should be."""
    for number in range(2 * TABLES):
        place = index[MEAN_PLACES + number]
        if place > 0:
            kind, is_other = behind(space, ROOM * (number // TABLES)), number >= TABLES
            most = 255 if is_other else 15
            if not lay_out(data, place, number % TABLES, kind, most, with_steps and is_other):
                return False
    return True


@njit(inline="always")
@no_type_check
def _pass(data, place, limit, bits, count, table, table_place, space):
    """Pass the numbers of a block behind its mean; return where that is, and whether all codes were sound."""
    steps = behind(space, STEPS + (table << PEEK))
    passed = 1
    while passed < OVER:
        place, limit, bits, count = refill(data, place, limit, bits, count)
        step = np.int64(steps[np.int64(bits >> uint64(64 - PEEK))]) & 0xFFFFFFFF
        if step == 0:
            width, value = next_code(bits, table, data, table_place, space)
            passed = passed + passes(value) if width > 0 else END
            width += value & 15
        elif passed + (step >> 5 & 63) < OVER:
            width = step & 31
            passed += step >> 11 & 255
        else:
            width = step >> 19 & 31
            passed += step >> 24
        bits <<= uint64(width)
        count -= width
    return place, limit, bits, count, passed == OVER or passed > END


@cache
def find_program() -> Any:
    """Compile the program that fills an index; it returns 1, or 0 where the scan is not as it should be."""

    @no_type_check
    def find(arguments):
        data, length = at(arguments[0], np.uint8), arguments[1]
        index, space = at(arguments[2], np.int32), at(arguments[3], np.int32)
        others = behind(space, ROOM)
        if not _tables(data, index, space, True):
            return 0
        kinds, columns, group, rows = index[KINDS], index[COLUMNS], index[GROUP], index[ROWS]
        groups = (columns + group - 1) // group
        places = at(arguments[2] + 4 * ENTRIES, np.uint32)
        means = at(arguments[2] + 4 * (ENTRIES + rows * groups + 1), np.int16)
        first, second, third = 0, 0, 0
        place, limit, bits, count = np.int64(index[SCAN]), length - 1, uint64(0), 0
        entry = 0
        for _ in range(rows):
            for column in range(columns):
                if column % group == 0:
                    if place > limit + _MOST_READ_AHEAD:
                        return 0
                    places[entry] = position(data, place, limit, count)
                    _note(means, entry, kinds, first, second, third)
                    entry += 1
                for kind in range(kinds):
                    mean_table, other_table = index[MEAN_TABLE + kind], index[OTHER_TABLE + kind]
                    mean_place = index[MEAN_PLACES + mean_table]
                    other_place = index[OTHER_PLACES + other_table]
                    mean = 0
                    for _ in range(index[BLOCKS + kind]):
                        place, limit, bits, count = refill(data, place, limit, bits, count)
                        code, width = next_code(bits, mean_table, data, mean_place, space)
                        mean += difference(bits, code, width)
                        bits <<= uint64(code + width)
                        count -= code + width
                        place, limit, bits, count, is_sound = _pass(
                            data, place, limit, bits, count, other_table, other_place, others
                        )
                        if code == 0 or width >= MOST_CATEGORIES or not is_sound:
                            return 0
                    if kind == 0:
                        first += mean
                    elif kind == 1:
                        second += mean
                    else:
                        third += mean
                if max(first, second, third) > 32767 or min(first, second, third) < -32768:
                    return 0
        place, limit, bits, count = refill(data, place, limit, bits, count)
        places[entry] = position(data, place, limit, count)
        # Behind the scan, zeros were read; before its end there are less than a byte of ones.
        left = count - 8 * (place - limit)
        digest = at(arguments[2] + 4 * DIGEST, np.uint64)
        digest[0] = _digest(data, length)
        return int(0 <= left < 8 and limit + 1 < length and data[limit] == 255 and data[limit + 1] == 0xD9)

    return function(find)


@njit(inline="always")
@no_type_check
def _note(means, entry, kinds, first, second, third):
    means[kinds * entry] = first
    if kinds > 1:
        means[kinds * entry + 1] = second
        means[kinds * entry + 2] = third


@njit
@no_type_check
def _own_codes(data, place, out, target, codes):
    """Write a table for means that has a code for all of their differences, in addition to those it has.

    Longer codes begin with the one that no value has, so that all others stay as they are.

    Args:
        data: The file.
        place: Of the table in it.
        out: Bytes.
        target: Where in ``out`` to write.
        codes: Filled with each difference's code, and at 16 places further with its length.

    Returns:
        The place behind the table; 0 where there is no room for more codes.
    """
    for category in range(32):
        codes[category] = 0
    code, values, longest = 0, 0, 0
    for length in range(1, 17):
        count = np.int64(data[place + length - 1])
        out[target + length - 1] = count
        for number in range(count):
            value = data[place + 16 + values + number]
            out[target + 16 + values + number] = value
            if value < MOST_CATEGORIES:
                codes[value], codes[16 + value] = code + number, length
        if count > 0:
            longest = length
        code, values = code + count << 1, values + count
    length = min(longest + 4, 16)
    # Behind the last of all codes, in this length; from the longest on none has been given away.
    code >>= 17 - length
    added = 0
    for category in range(MOST_CATEGORIES):
        if codes[16 + category] == 0:
            codes[category], codes[16 + category] = code + added, length
            out[target + 16 + values + added] = category
            added += 1
    if code + added >= 1 << length or values + added > 255:
        return 0
    out[target + length - 1] += added
    return target + 16 + values + added


@njit(inline="always")
@no_type_check
def _copy_bytes(data, start, end, out, place):
    for byte in range(start, end):
        out[place] = data[byte]
        place += 1
    return place


@njit
@no_type_check
def _write_head(data, index, height, width, out, codes):
    """Write all that comes before the scan; return its length, or 0 where that cannot be."""
    out[0], out[1] = 0xFF, 0xD8
    place = 2
    for number in range(index[RANGE_COUNT]):
        frame = place
        place = _copy_bytes(data, index[RANGES + 2 * number], index[RANGES + 2 * number + 1], out, place)
    # The last of them is the frame's head.
    out[frame + 5], out[frame + 6] = height >> 8, height & 255
    out[frame + 7], out[frame + 8] = width >> 8, width & 255
    for number in range(2 * TABLES):
        source = index[MEAN_PLACES + number]
        if source == 0:
            continue
        start = place
        out[start], out[start + 1] = 0xFF, 0xC4
        out[start + 4] = number // TABLES << 4 | number % TABLES
        if number < TABLES:
            place = _own_codes(data, source, out, start + 5, behind(codes, 32 * number))
            if place == 0:
                return 0
        else:
            place = _copy_bytes(data, source, source + table_length(data, source), out, start + 5)
        out[start + 2], out[start + 3] = (place - start - 2) >> 8, (place - start - 2) & 255
    return _copy_bytes(data, index[SCAN_HEAD], index[SCAN], out, place)


@njit(inline="always")
@no_type_check
def _category(difference):
    """Return how many bits a difference of means has."""
    category, rest = 0, abs(difference)
    while rest > 0:
        category += 1
        rest >>= 1
    return category


@cache
def cut_program() -> Any:
    """Compile the program that makes a file of a part; it returns its length, or 0 where that cannot be.

    Groups and rows of blocks around the part are copied. In each row, the first mean of each kind is told by
    its difference to another one than before.
    """

    @no_type_check
    def cut(arguments):
        data, length = at(arguments[0], np.uint8), arguments[1]
        index, space = at(arguments[2], np.int32), at(arguments[3], np.int32)
        others = behind(space, ROOM)
        codes, out = behind(space, 2 * ROOM), at(arguments[4], np.uint8)
        digest = at(arguments[2] + 4 * DIGEST, np.uint64)
        if length != index[LENGTH] or digest[0] != _digest(data, length):
            return 0
        first_row, last_row, first_group, last_group = arguments[5], arguments[6], arguments[7], arguments[8]
        kinds, columns, group, rows = index[KINDS], index[COLUMNS], index[GROUP], index[ROWS]
        groups = (columns + group - 1) // group
        places = at(arguments[2] + 4 * ENTRIES, np.uint32)
        means = at(arguments[2] + 4 * (ENTRIES + rows * groups + 1), np.int16)
        written = _write_head(data, index, arguments[9], arguments[10], out, codes)
        if written == 0 or not _tables(data, index, space, False):
            return 0
        limit = length - 1
        held, held_count = uint64(0), 0
        row, end_entry = first_row, np.int64(-1)
        while row < last_row:
            before = end_entry
            start_entry = row * groups + first_group
            # Rows of all groups follow each other as they did.
            if last_group - first_group == groups:
                row = last_row
                end_entry = last_row * groups
            else:
                row += 1
                end_entry = start_entry + last_group - first_group
            place, bits, count = open_at(data, np.int64(places[start_entry]))
            for kind in range(kinds):
                mean_table, other_table = index[MEAN_TABLE + kind], index[OTHER_TABLE + kind]
                mean_place, other_place = index[MEAN_PLACES + mean_table], index[OTHER_PLACES + other_table]
                place, limit, bits, count = refill(data, place, limit, bits, count)
                code, width = next_code(bits, mean_table, data, mean_place, space)
                mean = means[kinds * start_entry + kind] + difference(bits, code, width)
                bits <<= uint64(code + width)
                count -= code + width
                change = mean - (0 if before < 0 else np.int64(means[kinds * before + kind]))
                category = _category(change)
                if category >= MOST_CATEGORIES:
                    return 0
                number = np.int64(codes[32 * mean_table + category]) << category
                number |= change if change >= 0 else change + (1 << category) - 1
                width = codes[32 * mean_table + 16 + category] + category
                written, held, held_count = put(out, written, held, held_count, uint64(number), width)
                if kind == kinds - 1:
                    break
                for block in range(index[BLOCKS + kind]):
                    if block > 0:
                        place, limit, bits, count = refill(data, place, limit, bits, count)
                        code, width = next_code(bits, mean_table, data, mean_place, space)
                        width += code
                        piece = bits >> uint64(64 - width)
                        written, held, held_count = put(out, written, held, held_count, piece, width)
                        bits <<= uint64(width)
                        count -= width
                    passed = 1
                    while passed < OVER:
                        place, limit, bits, count = refill(data, place, limit, bits, count)
                        code, value = next_code(bits, other_table, data, other_place, others)
                        passed += passes(value)
                        width = code + (value & 15)
                        piece = bits >> uint64(64 - width)
                        written, held, held_count = put(out, written, held, held_count, piece, width)
                        bits <<= uint64(width)
                        count -= width
            start = position(data, place, limit, count)
            end = np.int64(places[end_entry])
            written, held, held_count = copy(data, start, end, out, written, held, held_count)
        written = finish(out, written, held, held_count)
        out[written], out[written + 1] = 0xFF, 0xD9
        return written + 2

    return function(cut)
