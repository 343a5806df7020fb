"""Images in parquet files as the Hugging Face hub has them."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from effnet.data.columns import (
    described_classes,
    described_features,
    image_bytes,
    image_column,
    label_column,
)
from effnet.data.names import RowNames
from effnet.data.order import BLOCKS_AT_A_TIME
from effnet.data.rows import Rows
from effnet.data.selection import ALL, Selection
from effnet.errors import UserError

MOST_BYTES_IN_MEMORY = 2 << 30
"""Files of a split that are larger together are read row group by row group, when they are needed."""
ROW_GROUPS_KEPT = 2 * BLOCKS_AT_A_TIME
"""Those that are mixed with each other, and those that are mixed next."""


def read_parquet(
    files: Sequence[Path], selection: Selection = ALL, *, most_bytes: int = MOST_BYTES_IN_MEMORY
) -> Rows:
    """Read the image and label columns of parquet files, all of which have the same columns.

    The image column is the one that the hub's metadata or its name says, else the only one of binary
    values or of structs with ``bytes``; the label column likewise, of integers or strings.

    Args:
        files: Of one split, in order.
        selection: Which columns to use, where the choice is the user's.
        most_bytes: Where they have no more bytes than that, all encoded images are held in memory. Else as
            many row groups are as are mixed with each other: so many times as many bytes as a row group,
            which are some 100 MB as the hub's own library writes them.

    Raises:
        UserError: A file cannot be read, or has no such columns.
    """
    try:
        schema = pq.read_schema(files[0])
        features = described_features(schema)
        image = image_column(str(files[0]), schema, features, selection.image_column)
        label = label_column(str(files[0]), schema, features, selection.label_column)
        is_small = sum(file.stat().st_size for file in files) <= most_bytes
        tables = [pq.read_table(file, columns=[image, label] if is_small else [label]) for file in files]
        groups = None if is_small else _RowGroups(files, image)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(f"cannot read '{files[0].parent}': {error}") from error
    table = pa.concat_tables(table.replace_schema_metadata() for table in tables)
    return Rows(
        class_names=described_classes(features, label),
        labels=table.column(label),
        names=RowNames([file.name for file in files], [len(part) for part in tables]),
        read=groups.read if groups else partial(read_row, image_bytes(table.column(image))),
        blocks=groups.sizes if groups else (),
    )


class _RowGroups:
    """Reads images with their row groups, and keeps the last of these; threads may share it."""

    def __init__(self, files: Sequence[Path], column: str) -> None:
        self._column = column
        self._files = [(file, pq.read_metadata(file)) for file in files]
        self._places = [
            (number, group)
            for number, (_, metadata) in enumerate(self._files)
            for group in range(metadata.num_row_groups)
        ]
        self.sizes = tuple(self._files[number][1].row_group(group).num_rows for number, group in self._places)
        self._starts = list(accumulate(self.sizes, initial=0))
        self._locks = [threading.Lock() for _ in self._places]
        self._load = lru_cache(maxsize=ROW_GROUPS_KEPT)(self._load_group)

    def read(self, index: int) -> bytes:
        place = bisect_right(self._starts, index) - 1
        with self._locks[place]:  # Who wants the same row group waits for it, instead of reading it too.
            images = self._load(place)
        return read_row(images, index - self._starts[place])

    def _load_group(self, place: int) -> pa.ChunkedArray:
        number, group = self._places[place]
        file, metadata = self._files[number]
        try:
            with pq.ParquetFile(file, metadata=metadata) as opened:
                return image_bytes(opened.read_row_group(group, columns=[self._column]).column(0))
        except (pa.ArrowException, OSError) as error:
            raise OSError(f"row group {group} of {file.name} cannot be read: {error}") from error


def read_row(images: pa.ChunkedArray, row: int) -> bytes:
    """Return the file in a row of what `image_bytes` returns; empty where there is none."""
    return images[row].as_py() or b""
