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

_of_thread = threading.local()


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
    space = _space()
    return bool(programs.find_program()(data.ctypes.data, len(encoded), index.ctypes.data, space.ctypes.data))


def cut(encoded: bytes, index: Int32[np.ndarray, " I"], part: Part) -> UInt8[np.ndarray, " B"] | None:
    """Make a file of a part of another.

    Returns:
        The file, as long as the same thread does not ask for another one; None where that cannot be, or where
        the index is that of another file.
    """
    data = np.frombuffer(encoded, np.uint8)
    rows = part.last_row - part.first_row
    out = _out(2 * len(encoded) + _MORE_BYTES_PER_ROW * rows + _HEAD_BYTES)
    length = programs.cut_program()(
        data.ctypes.data, len(encoded), index.ctypes.data, _space().ctypes.data, out.ctypes.data, *part
    )
    return out[:length] if length else None


def _space() -> Int32[np.ndarray, " S"]:
    """Return this thread's memory for tables."""
    if not hasattr(_of_thread, "space"):
        _of_thread.space = np.zeros(2 * ROOM + programs.OWN_CODES, np.int32)
    space: Int32[np.ndarray, " S"] = _of_thread.space
    return space


def _out(size: int) -> UInt8[np.ndarray, " B"]:
    """Return this thread's memory for files, of at least so many bytes."""
    if not hasattr(_of_thread, "out") or len(_of_thread.out) < size:
        _of_thread.out = np.empty(size, np.uint8)
    out: UInt8[np.ndarray, " B"] = _of_thread.out
    return out
