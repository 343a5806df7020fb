"""Parquet files that are read where they are, over a connection: the labels at once, images by row group.

Nothing is kept on the disk: each epoch reads all images again. For what is read more often than the network
is willing to carry, ``effnet data prepare`` makes a store.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import accumulate, chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

from effnet.data.columns import (
    described_classes,
    described_features,
    image_bytes,
    image_column,
    label_column,
)
from effnet.data.fetching import RemoteFolder
from effnet.data.names import RowNames
from effnet.data.parquet import ROW_GROUPS_KEPT, read_row
from effnet.data.rows import Rows
from effnet.data.selection import Selection
from effnet.errors import UnreachableError

HELD_BYTES = 2 << 30
"""Of row groups of a split, which are held after they are read; `ROW_GROUPS_KEPT` of any size are."""
FETCHERS = 4
"""Threads that fetch row groups which will be read soon."""
_OPENERS = 16
"""Threads that read what is at the ends of files, and labels."""


class _File(NamedTuple):
    name: str
    metadata: pq.FileMetaData
    schema: pa.Schema


def read_streamed(
    folder: RemoteFolder,
    names: Sequence[str],
    selection: Selection,
    *,
    features: Mapping[str, dict[str, Any]] | None = None,
) -> Rows:
    """Open the parquet files of a split, all of which have the same columns.

    Args:
        folder: Where they are.
        names: Of the files, from there, in order.
        selection: Which columns to use.
        features: What is known of the columns; None: what the files say.

    Raises:
        UserError: They have no such columns.
        UnreachableError: They cannot be read.
    """
    with ThreadPoolExecutor(_OPENERS, thread_name_prefix="effnet-open") as pool:
        files = list(pool.map(partial(_open, folder), names))
        where, schema = f"{folder.address}/{names[0]}", files[0].schema
        features = features or described_features(schema)
        image = image_column(where, schema, features, selection.image_column)
        label = label_column(where, schema, features, selection.label_column)
        labels = list(pool.map(partial(_read_column, folder, label), files))
    groups = _StreamedGroups(folder, files, image)
    return Rows(
        class_names=described_classes(features, label),
        labels=pa.chunked_array(list(chain.from_iterable(column.chunks for column in labels))),
        names=RowNames([name.rpartition("/")[2] for name in names], [len(column) for column in labels]),
        read=groups.read,
        blocks=groups.sizes,
        expect=groups.expect,
    )


def _open(folder: RemoteFolder, name: str) -> _File:
    def get() -> _File:
        with folder.open(name) as file, pq.ParquetFile(file) as opened:
            return _File(name, opened.metadata, opened.schema_arrow)

    return folder.attempt(get, name)


def _read_column(folder: RemoteFolder, column: str, file: _File) -> pa.ChunkedArray:
    def get() -> pa.ChunkedArray:
        with folder.open(file.name) as opened, pq.ParquetFile(opened, metadata=file.metadata) as table:
            return table.read(columns=[column]).column(0)

    return folder.attempt(get, file.name)


class _StreamedGroups:
    """Reads images with their row groups, fetches those that are read next; threads may share it."""

    def __init__(self, folder: RemoteFolder, files: Sequence[_File], column: str) -> None:
        self._folder, self._column = folder, column
        self._places = [(file, group) for file in files for group in range(file.metadata.num_row_groups)]
        self.sizes = tuple(file.metadata.row_group(group).num_rows for file, group in self._places)
        self._starts = list(accumulate(self.sizes, initial=0))
        self._bytes = [file.metadata.row_group(group).total_byte_size for file, group in self._places]
        self._locks = [threading.Lock() for _ in self._places]
        self._lock = threading.Lock()
        self._held: dict[int, pa.ChunkedArray] = {}
        self._soon: set[int] = set()
        self._wanted: deque[int] = deque()
        self._fetchers = 0

    def read(self, index: int) -> bytes:
        place = bisect_right(self._starts, index) - 1
        return read_row(self._images(place), index - self._starts[place])

    def expect(self, indices: Int64[np.ndarray, " M"]) -> None:
        """Fetch row groups in the background, in this order, and forget those that were wanted before."""
        places = np.searchsorted(self._starts, indices, side="right") - 1
        soon = self._affordable(list(dict.fromkeys(places.tolist())), HELD_BYTES // 2)
        with self._lock:
            self._soon = set(soon)
            self._wanted = deque(place for place in soon if place not in self._held)
            starting = min(len(self._wanted), FETCHERS - self._fetchers)
            self._fetchers += starting
        for _ in range(starting):
            threading.Thread(target=self._fetch_wanted, name="effnet-fetch", daemon=True).start()

    def _fetch_wanted(self) -> None:
        while (place := self._next_wanted()) is not None:
            with suppress(UnreachableError):  # Whoever reads an image is told.
                self._images(place)

    def _next_wanted(self) -> int | None:
        with self._lock:
            if self._wanted:
                return self._wanted.popleft()
            self._fetchers -= 1
            return None

    def _images(self, place: int) -> pa.ChunkedArray:
        with self._locks[place]:  # Who wants the same row group waits for it, instead of reading it too.
            images = self._held.get(place)
            if images is None:
                file, group = self._places[place]
                images = self._folder.attempt(partial(self._load, file, group), file.name)
                self._keep(place, images)
            return images

    def _load(self, file: _File, group: int) -> pa.ChunkedArray:
        with (
            self._folder.open(file.name) as opened,
            pq.ParquetFile(opened, metadata=file.metadata, pre_buffer=True) as table,
        ):
            return image_bytes(table.read_row_group(group, columns=[self._column]).column(0))

    def _keep(self, place: int, images: pa.ChunkedArray) -> None:
        with self._lock:
            self._held[place] = images
            # What was fetched for later must not give way to what is done with.
            done = [held for held in self._held if held not in self._soon]
            latest_first = [*reversed([held for held in self._held if held in self._soon]), *reversed(done)]
            kept = set(self._affordable(latest_first, HELD_BYTES))
            for held in set(self._held) - kept:
                del self._held[held]

    def _affordable(self, places: list[int], most_bytes: int) -> list[int]:
        """Return the first of some row groups, so many as may be held."""
        totals = accumulate(self._bytes[place] for place in places)
        return [
            place
            for number, (place, total) in enumerate(zip(places, totals, strict=True))
            if number < ROW_GROUPS_KEPT or total <= most_bytes
        ]
