"""Random access to JPEG files: a part is decoded alone, at the cost of that part, once a file is known.

A file's scan is one stream of bits, in which nothing can be found but by reading all before it. That is done
once, at twice the speed of decoding, and finds all damage. The place of every few blocks is remembered. From
then on the stretches that a crop touches are joined to a file of their own, which libjpeg-turbo decodes to
the same pixels, bit for bit, as the whole.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cache, lru_cache
from threading import Event, Lock, Thread
from typing import NamedTuple, TypeAlias

import numpy as np
import simplejpeg
from jaxtyping import Int32, UInt8

from effnet.data.jpeg import JpegHeader, segments
from effnet.native import has_numba
from effnet.native import jpeg_index as at

_LOGGER = logging.getLogger(__name__)
_COMPILING, _TRIED = Lock(), Event()

GROUP_WIDTH = 32
"""Pixels between places that are remembered, at the least."""

_MOST_BYTES = 1 << 28  # Of a file; places are counted in bits, in 32 of them.
_QUANTIZATION, _HUFFMAN, _FRAMES, _SCAN, _COLORS = 0xDB, 0xC4, (0xC0, 0xC1), 0xDA, (0xE0, 0xEE)
_MARKER_BYTES, _TABLE_BYTES = 4, 17  # With a segment's length; before a table's values.
_ALL_NUMBERS = b"\x00\x3f\x00"  # Of a block, at once and with all their bits.
_MOST_RANGE_BYTES = 4096
_LEAST_SAVED_SHARE, _LEAST_SAVED_BYTES = 1 / 8, 4_000

ScanIndex: TypeAlias = Int32[np.ndarray, " I"]
"""What is to be known of a file; see `effnet.native.jpeg`."""
KnownScans: TypeAlias = dict[int, dict[int, ScanIndex | None]]
"""Of images by their number, and of their copies; None: it was tried, and the file has none."""


class _Scan(NamedTuple):
    """What a file says of its scan before it begins; places are those in the file."""

    ranges: tuple[tuple[int, int], ...]
    """What a part needs as well; the last is the frame's head."""
    kinds: tuple[tuple[int, int], ...]
    """How many blocks a unit has side by side, and how many one below the other, for each kind."""
    tables: tuple[tuple[int, int], ...]
    """Numbers of the tables for means and for the rest, for each kind."""
    places: dict[int, int]
    """Of tables, by their number; those for the rest from 16 on."""
    head: int


def index_scan(encoded: bytes, header: JpegHeader) -> ScanIndex | None:
    """Find where the parts of a file's scan are.

    Args:
        encoded: The file.
        header: Of it.

    Returns:
        None where the file is damaged or of a kind that is not cut: progressive, with restarts, of four
        colours. None where Numba is not installed, or cannot compile, as well.
    """
    if header.height_place is None or len(encoded) > _MOST_BYTES or not can_cut():
        return None
    head = _index_head(encoded[: header.scan], header)
    if head is None:
        return None
    from effnet.native import jpeg as jpeg_programs  # noqa: PLC0415 - Numba is optional

    index = np.empty(head.numbers, np.int32)
    index[: at.ENTRIES] = head.content
    index[at.LENGTH] = len(encoded)
    return index if jpeg_programs.find(encoded, index) else None


class _Head(NamedTuple):
    """What files of the same head have in common."""

    content: Int32[np.ndarray, " H"]
    """Of their indices, before the entries."""
    numbers: int
    """Of an index."""


@lru_cache(maxsize=256)
def _index_head(start: bytes, header: JpegHeader) -> _Head | None:
    """Return the head of the index of a file that begins so; many files of a store share one."""
    scan = _read_scan(start)
    if scan is None:
        return None
    across, down = (max(sizes) for sizes in zip(*scan.kinds, strict=True))
    rows, columns = -(-header.height // (8 * down)), -(-header.width // (8 * across))
    group = max(GROUP_WIDTH // (8 * across), 1)
    head = np.zeros(at.ENTRIES, np.int32)
    head[at.KINDS : at.BLOCKS] = (
        *(len(scan.kinds), rows, columns, group, 8 * down, 8 * across),
        *(header.height, header.width, (across, down) != (1, 1), scan.head, header.scan),
    )
    for kind, ((width, height), (means, others)) in enumerate(zip(scan.kinds, scan.tables, strict=True)):
        head[at.BLOCKS + kind] = width * height
        head[at.MEAN_TABLE + kind], head[at.OTHER_TABLE + kind] = means, others
        head[at.MEAN_PLACES + means] = scan.places[means]
        head[at.OTHER_PLACES + others] = scan.places[16 + others]
    head[at.RANGE_COUNT] = len(scan.ranges)
    head[at.RANGES : at.RANGES + 2 * len(scan.ranges)] = np.ravel(scan.ranges)
    return _Head(head, at.numbers(rows * -(-columns // group), len(scan.kinds)))


def can_cut() -> bool:
    """Whether Numba is installed and compiles what is needed; where it does not, that is told once."""
    return has_numba() and _compiles()


def can_cut_by_now() -> bool:
    """Whether what is needed is compiled; where nobody does that yet, another thread begins to."""
    if not _TRIED.is_set() and has_numba():
        _begin_to_compile()
        return False
    return can_cut()


@cache
def _begin_to_compile() -> None:
    # No daemon: a library in the middle of compiling cannot be stopped safely.
    Thread(target=_compiles, name="effnet-compile", daemon=False).start()


@cache
def _compiles() -> bool:
    with _COMPILING:  # One thread does it, the others wait; and from then on nobody asks here.
        return _compile()


@cache
def _compile() -> bool:
    try:
        from effnet.native import jpeg as jpeg_programs  # noqa: PLC0415 - Numba is optional

        jpeg_programs.compile_programs()
    except Exception as error:  # Whatever is wrong with Numba here: only speed is lost.
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        _LOGGER.warning("JPEG files are decoded whole, because Numba cannot compile here: %s", reason)
        return False
    finally:
        _TRIED.set()
    return True


class Part(NamedTuple):
    """Pixels of a part of a file."""

    pixels: UInt8[np.ndarray, "H W 3"]
    top: int
    """Where it begins in the whole, in pixels of the whole."""
    left: int


def saves_enough(header: JpegHeader, length: int, rows: slice, columns: slice) -> bool:
    """Whether to decode a part of a file of so many bytes rather than all of it."""
    part = (rows.stop - rows.start) * (columns.stop - columns.start)
    saved = 1 - part / (header.height * header.width)
    return saved >= _LEAST_SAVED_SHARE and saved * length >= _LEAST_SAVED_BYTES


def decode_part(
    encoded: bytes, index: ScanIndex, rows: slice, columns: slice, *, shrink: int = 1
) -> Part | None:
    """Decode what is around some rows and columns of a file, strictly.

    Args:
        encoded: The file.
        index: Of it.
        rows: Inside the picture as stored, not empty.
        columns: Likewise.
        shrink: As of `effnet.data.jpeg.decode_jpeg`.

    Returns:
        The same pixels as those of the whole, for ``rows`` and ``columns`` at least; None where the file has
        changed since the index was made, or the part cannot be cut out.
    """
    if not can_cut():  # The index may be another process's.
        return None
    from effnet.native import jpeg as jpeg_programs  # noqa: PLC0415 - Numba is optional

    unit_rows, unit_columns, group, down, across, height, width, is_mixed = index[
        at.ROWS : at.SCAN_HEAD
    ].tolist()
    # Colours of fewer pixels are mixed with their neighbours.
    margin = shrink if is_mixed else 0
    step, groups = across * group, -(-unit_columns // group)
    first_row, last_row = (
        max(rows.start - margin, 0) // down,
        min(-(-(rows.stop + margin) // down), unit_rows),
    )
    first_group = max(columns.start - margin, 0) // step
    last_group = min(-(-(columns.stop + margin) // step), groups)
    # A picture of a few pixels is decoded in another way, or at another share of its size.
    if width - first_group * step < 8 * shrink:
        first_group = max(first_group - 1, 0)
    if height - first_row * down < 8:
        first_row = max(first_row - 1, 0)
    top, left = first_row * down, first_group * step
    bottom, right = min(last_row * down, height), min(last_group * step, width)
    part = jpeg_programs.cut(
        encoded,
        index,
        jpeg_programs.Part(first_row, last_row, first_group, last_group, bottom - top, right - left),
    )
    if part is None:
        return None
    smaller = (-(-(bottom - top) // shrink), -(-(right - left) // shrink))
    try:
        pixels = simplejpeg.decode_jpeg(part, "RGB", min_height=smaller[0], min_width=smaller[1])
    except ValueError:  # The whole file says what is wrong.
        return None
    return Part(pixels, top, left)


class ScanMemory:
    """The indices of the files of a data set, made when they are first needed; threads share it.

    Args:
        most_bytes: Of all indices; from then on no more are made.
        known: Which do not count.
    """

    def __init__(self, most_bytes: int, known: KnownScans | None = None) -> None:
        self.bytes_left = most_bytes
        """For further ones."""
        self._lock = Lock()
        self._known = {image: dict(indices) for image, indices in (known or {}).items()}

    def of_image(self, image: int) -> ImageScans:
        """Return what is remembered of an image of the data set."""
        return ImageScans(self, image)

    def find(self, image: int, copy: int, encoded: bytes, header: JpegHeader) -> ScanIndex | None:
        """Return the index of a file, if it has one, and if Numba is done with compiling.

        Args:
            image: Which of the data set.
            copy: Which of the image's.
            encoded: The file.
            header: Of it.
        """
        known = self._known.get(image, {})
        if copy not in known and self.bytes_left > 0 and can_cut_by_now():
            self.add({image: {copy: index_scan(encoded, header)}})
            known = self._known[image]
        return known.get(copy)

    def of_images(self, images: Iterable[int], beyond: KnownScans | None = None) -> KnownScans:
        """Return what is known of some images, but for what is in ``beyond``."""
        known = {}
        with self._lock:
            for image in self._known.keys() & set(images):
                there = (beyond or {}).get(image, {})
                mine = self._known[image].items()
                known[image] = {copy: index for copy, index in mine if copy not in there}
        return known

    def add(self, known: KnownScans) -> None:
        """Take over what somebody else has found."""
        with self._lock:
            for image, indices in known.items():
                mine = self._known.setdefault(image, {})
                for copy, index in indices.items():
                    self.bytes_left -= 0 if index is None or copy in mine else index.nbytes
                    mine[copy] = index


class ImageScans(NamedTuple):
    """What is remembered of an image of a data set."""

    memory: ScanMemory
    image: int
    copy: int = 0

    def of_copy(self, copy: int) -> ImageScans:
        """Return what is remembered of a copy of the image."""
        return self._replace(copy=copy)

    def find(self, encoded: bytes, header: JpegHeader) -> ScanIndex | None:
        """Return the index of this image's file; see `ScanMemory.find`."""
        return self.memory.find(self.image, self.copy, encoded, header)


def _read_scan(encoded: bytes) -> _Scan | None:
    """Read what a file says of its scan; None where its parts are not cut."""
    ranges: list[tuple[int, int]] = []
    places: dict[int, int] = {}
    steps: set[int] = set()
    frame = start = end = 0
    for marker, start, end in segments(encoded):
        if marker in (_QUANTIZATION, *_COLORS):
            ranges.append((start - _MARKER_BYTES, end))
            steps |= _step_numbers(encoded[start:end]) if marker == _QUANTIZATION else set()
        elif marker in _FRAMES:
            frame, frame_end = start, end
        elif marker == _HUFFMAN:
            places |= _table_places(encoded, start, end)
    bits, count, named = encoded[frame], encoded[frame + 5], encoded[start + 1 : end - len(_ALL_NUMBERS)]
    components = encoded[frame + 6 : frame + 6 + 3 * count]
    if (
        bits != 8
        or count not in (1, 3)
        or components[::3] != named[::2]
        or encoded[end - 3 : end] != _ALL_NUMBERS
    ):
        return None
    ranges.append((frame - _MARKER_BYTES, frame_end))
    tables = [(both >> 4, both & 15) for both in named[1::2]]
    if not all({means, 16 + others} <= places.keys() for means, others in tables):
        return None
    if not steps.issuperset(components[2::3]):
        return None
    if len(ranges) > at.MOST_RANGES or sum(last - first for first, last in ranges) > _MOST_RANGE_BYTES:
        return None
    # What is not mixed with others comes block by block, whatever it says.
    sides = [(both >> 4, both & 15) for both in components[1::3]] if count > 1 else [(1, 1)]
    return _Scan(tuple(ranges), tuple(sides), tuple(tables), places, start - _MARKER_BYTES)


def _step_numbers(segment: bytes) -> set[int]:
    """Return the numbers of a segment's quantization tables."""
    numbers, place = set(), 0
    while place < len(segment):
        numbers.add(segment[place] & 15)
        place += 129 if segment[place] >> 4 else 65
    return numbers


def _table_places(encoded: bytes, start: int, end: int) -> dict[int, int]:
    """Return where the tables of a segment are, by their number."""
    places = {}
    while start + _TABLE_BYTES <= end:
        number, place = encoded[start], start + 1
        start += _TABLE_BYTES + sum(encoded[place : start + _TABLE_BYTES])
        if start <= end and number & 15 < 4:
            places[number] = place
    return places
