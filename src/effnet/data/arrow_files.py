"""The Arrow files of a prepared store: its index, and the images of one level of a shard.

Dimension key: N images, H height, W width, B bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import pyarrow as pa
from jaxtyping import Int32, Int64, UInt8

from effnet.data.labels import LabelSets
from effnet.errors import UserError

INDEX_SCHEMA = pa.schema(
    [
        pa.field("label", pa.int32(), nullable=False),
        pa.field("name", pa.large_string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
    ]
)
"""One row an image; height and width are the original's, upright, in pixels."""
SETS_INDEX_SCHEMA = INDEX_SCHEMA.set(
    0, pa.field("label", pa.list_(pa.field("item", pa.int32(), nullable=False)), nullable=False)
)
"""The same where an image may have several labels."""
_INDEX_SCHEMAS = (INDEX_SCHEMA, SETS_INDEX_SCHEMA)
INDEX_ROWS = 65_536
"""Of each record batch of an index but for the last."""
IMAGE_SCHEMA = pa.schema([pa.field("image", pa.large_binary())])
"""One record batch, one row an image: a JPEG file or RGB bytes; null where the level has no copy of it."""


class StoreIndex(NamedTuple):
    """The numbers in an index."""

    labels: Int64[np.ndarray, " N"]
    """Where images may have several, the first of each."""
    heights: Int32[np.ndarray, " N"]
    widths: Int32[np.ndarray, " N"]
    label_sets: LabelSets | None = None


def read_index(path: Path, images: int, classes: int) -> StoreIndex:
    """Read all of an index but for the names.

    Raises:
        UserError: It cannot be read, or has not so many images, or labels of other classes.
    """
    labels, heights, widths = (
        np.empty(images, np.int64),
        np.empty(images, np.int32),
        np.empty(images, np.int32),
    )
    counts, values = list[Int32[np.ndarray, " M"]](), list[Int32[np.ndarray, " V"]]()
    try:
        for number, start in enumerate(range(0, images, INDEX_ROWS)):
            # Opened for each batch, so that what is done with does not stay mapped.
            with _open_table(path, *_INDEX_SCHEMAS) as (table, _):
                batch = table.get_batch(number)
                if len(batch) != min(INDEX_ROWS, images - start):
                    raise OSError(f"'{path}' is damaged: it has not {images} rows")
                part = slice(start, start + INDEX_ROWS)
                heights[part], widths[part] = (batch.column(name).to_numpy() for name in ("height", "width"))
                found = batch.column("label")
                if pa.types.is_list(found.type):
                    counts.append(found.value_lengths().to_numpy())
                    values.append(np.array(found.flatten()))
                else:
                    labels[part] = found.to_numpy()
        sets = _label_sets(np.concatenate(counts), np.concatenate(values)) if values else None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the index of a prepared store: {error}") from None
    numbers = labels if sets is None else sets.values
    if numbers.min() < 0 or numbers.max() >= classes:
        raise UserError(f"'{path}' is damaged: it has labels beyond its {classes} classes")
    return StoreIndex(sets.first if sets else labels, heights, widths, sets)


def _label_sets(counts: Int32[np.ndarray, " N"], values: Int32[np.ndarray, " V"]) -> LabelSets:
    if counts.min() < 1:
        raise ValueError("it is damaged: an image has no label")
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return LabelSets(starts=starts, values=values)


class IndexNames(Sequence[str]):
    """The names in an index. There may be millions, so that only one batch of them is held at a time.

    Args:
        locate: Returns the index file, which need not stay at its place.
        count: Number of names.
    """

    def __init__(self, locate: Callable[[], Path], count: int) -> None:
        self._locate, self._count = locate, count
        self._held: tuple[int, pa.LargeStringArray] = (-1, pa.array([], pa.large_string()))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        for number in range(-(-self._count // INDEX_ROWS)):
            yield from self._batch(number).to_pylist()

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self._count))]
        number, row = divmod(range(self._count)[index], INDEX_ROWS)
        return self._batch(number)[row].as_py()

    def _batch(self, number: int) -> pa.LargeStringArray:
        held, names = self._held
        if held != number:
            with _open_table(self._locate(), *_INDEX_SCHEMAS) as (table, _):
                names = table.get_batch(number).column("name")
            self._held = number, names
        return names


class Descriptor:
    """A file that is open for reading while this object lives.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class JpegColumn:
    """The JPEG files of a level of a shard.

    They are read, not mapped: of a file that is not in memory, the system reads several times as much for a
    map, with the interpreter's lock held; and it ends the process if the file has become shorter.

    Args:
        path: The Arrow file.
        images: How many rows it must have.
        opened: Returns its descriptor, perhaps one that is open already.

    Raises:
        OSError: It cannot be read, or is not such a file.
    """

    def __init__(self, path: Path, images: int, opened: Callable[[str], Descriptor]) -> None:
        column = _image_column(path, images)
        self._path, self._opened = str(path), opened
        self._offsets = column.offsets.astype(np.uint32)
        self._first_byte = column.first_byte

    def read(self, row: int) -> bytes:
        """Return a JPEG file; raises OSError."""
        start, end = self._offsets[row : row + 2].tolist()
        # Held while it is read from, for another thread may make the cache let go of it.
        descriptor = self._opened(self._path)
        data = os.pread(descriptor.number, end - start, self._first_byte + start)
        if len(data) != end - start:
            raise OSError(f"'{self._path}' has become shorter")
        return data


class RawColumn:
    """The pixels of a level of a shard, mapped.

    Args:
        path: The Arrow file.
        images: How many rows it must have.

    Raises:
        OSError: It cannot be read, or is not such a file.
    """

    def __init__(self, path: Path, images: int) -> None:
        self._path, self._column = path, _image_column(path, images)

    def read(self, row: int, height: int, width: int) -> UInt8[np.ndarray, "H W 3"]:
        """Return pixels, not to be written to; raises OSError."""
        start, end = self._column.offsets[row : row + 2].tolist()
        if end - start != height * width * 3:
            raise OSError(f"'{self._path}' is damaged: row {row} has not {width} x {height} pixels")
        return self._column.values[start:end].reshape(height, width, 3)


class _ImageColumn(NamedTuple):
    offsets: Int64[np.ndarray, " N+1"]
    values: UInt8[np.ndarray, " B"]
    first_byte: int
    """Where the values begin in the file."""


def _image_column(path: Path, images: int) -> _ImageColumn:
    with _open_table(path, IMAGE_SCHEMA) as (table, address):
        column = table.get_batch(0).column("image")
    if len(column) != images:
        raise OSError(f"'{path}' is damaged: it has {len(column)} rows, not {images}")
    _, offsets, values = column.buffers()
    if not values:
        return _ImageColumn(np.zeros(images + 1, np.int64), np.empty(0, np.uint8), 0)
    return _ImageColumn(
        np.frombuffer(offsets, np.int64), np.frombuffer(values, np.uint8), values.address - address
    )


@contextmanager
def _open_table(path: Path, *schemas: pa.Schema) -> Iterator[tuple[pa.RecordBatchFileReader, int]]:
    """Map an Arrow file; what is taken of it stays mapped, and no descriptor stays open.

    Yields:
        The table, and where the file begins in memory.
    """
    try:
        with pa.memory_map(str(path)) as file:
            memory = file.read_buffer()
        with pa.ipc.open_file(memory) as table:
            if table.schema not in schemas:
                raise OSError(f"'{path}' is damaged: its columns are not {', '.join(schemas[0].names)}")
            yield table, memory.address
    except pa.ArrowException as error:
        raise OSError(f"'{path}' is damaged: {error}") from error
