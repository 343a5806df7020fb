"""Where things are in the index of a JPEG file; see `effnet.native.jpeg`.

An index is numbers of 32 bits. Its head says what kind of file it is. Then it has the place in the file of
each group of blocks, in bits, and where the last one ends; and then the means of the blocks before each
group, in 16 bits. A group is some units side by side; a unit is the blocks that follow each other in the
scan, one of each kind of colour, or more of a kind where others have fewer pixels.
"""

from __future__ import annotations

TABLES = 4
"""Of means, and of the other numbers of blocks, that a file may have."""
MOST_RANGES = 8
"""Of a file's head, that a part needs as well."""

DIGEST = 0
"""Of the whole file, in 64 bits."""
LENGTH = 2
"""Of the file, in bytes."""
KINDS = 3
"""Of blocks, one a colour."""
ROWS, COLUMNS = 4, 5
"""Of units."""
GROUP = 6
"""Units in a group; the last of a row may have fewer."""
UNIT_HEIGHT, UNIT_WIDTH, HEIGHT, WIDTH = 7, 8, 9, 10
"""In pixels; the last two of the picture."""
IS_MIXED = 11
"""Whether colours have fewer pixels than others, and are mixed with their neighbours."""
SCAN_HEAD, SCAN = 12, 13
"""Where in the file the scan's head begins, and ends."""
BLOCKS, MEAN_TABLE, OTHER_TABLE = 14, 17, 20
"""Of each kind: blocks in a unit, and the numbers of its tables."""
MEAN_PLACES, OTHER_PLACES = 23, 23 + TABLES
"""Where in the file each table is; 0 where there is none."""
RANGE_COUNT, RANGES = 31, 32
"""Of the file's head: how many, and where each begins and ends; the last is the frame's head."""
ENTRIES = RANGES + 2 * MOST_RANGES


def numbers(groups: int, kinds: int) -> int:
    """Return how many numbers an index has, for so many groups of so many kinds of blocks."""
    return ENTRIES + groups + 1 + (groups * kinds + 1) // 2
