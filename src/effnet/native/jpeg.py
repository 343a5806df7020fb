"""Where the parts of a JPEG file are, and small files made of them, by programs that Numba compiles.

An index is described in `effnet.native.jpeg_index`.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from effnet.native import jpeg_programs as programs
from effnet.native.codes import ROOM

_MORE_BYTES_PER_ROW = 64
"""That a part may need, for the means that are told anew."""
_HEAD_BYTES = 8192


class _Memory(threading.local):
    """A thread's own memory; where it lies is noted, for to ask costs as much as a small part."""

    def __init__(self) -> None:
        self.tables: Int32[np.ndarray, " S"] = np.zeros(2 * ROOM + programs.OWN_CODES, np.int32)
        self.tables_place: int = self.tables.ctypes.data
        self.file: UInt8[np.ndarray, " B"] = np.empty(0, np.uint8)
        self.file_place = 0

    def reserve(self, size: int) -> None:
        """Have room for a file of so many bytes."""
        if len(self.file) < size:
            self.file = np.empty(size, np.uint8)
            self.file_place = self.file.ctypes.data


_MEMORY = _Memory()


class Part(NamedTuple):
    """Which part of a file to cut out."""

    first_row: int
    last_row: int
    """Behind it."""
    first_group: int
    last_group: int
    """Behind it."""
    height: int
    """Of the part, in pixels."""
    width: int


def compile_programs() -> None:
    """Compile the programs, or load them from where they were kept, unless that is done.

    Raises:
        Exception: Numba cannot do it here.
    """
    programs.find_program()
    programs.cut_program()


def find(encoded: bytes, index: Int32[np.ndarray, " I"]) -> bool:
    """Fill in the entries of an index, whose head is there already; whether all of the scan is sound.

    Args:
        encoded: The file.
        index: Of it.
    """
    data = np.frombuffer(encoded, np.uint8)
    find_in = programs.find_program()
    return bool(find_in(data.ctypes.data, len(encoded), index.ctypes.data, _MEMORY.tables_place))


def cut(encoded: bytes, index: Int32[np.ndarray, " I"], part: Part) -> UInt8[np.ndarray, " B"] | None:
    """Make a file of a part of another.

    Returns:
        The file, as long as the same thread does not ask for another one; None where that cannot be, or where
        the index is that of another file.
    """
    data = np.frombuffer(encoded, np.uint8)
    rows = part.last_row - part.first_row
    _MEMORY.reserve(2 * len(encoded) + _MORE_BYTES_PER_ROW * rows + _HEAD_BYTES)
    cut_from = programs.cut_program()
    tables, out = _MEMORY.tables_place, _MEMORY.file_place
    length = cut_from(data.ctypes.data, len(encoded), index.ctypes.data, tables, out, *part)
    return _MEMORY.file[:length] if length else None
