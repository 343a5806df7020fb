"""What to call each of many images: made or decoded when it is needed, since there may be millions."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import overload

import pyarrow as pa


class ArrowNames(Sequence[str]):
    """Names in an Arrow array of text."""

    _AT_A_TIME = 65_536

    def __init__(self, array: pa.LargeStringArray) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), self._AT_A_TIME):
            yield from self._array.slice(start, self._AT_A_TIME).to_pylist()

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            places = range(*index.indices(len(self)))
            if places.step == 1:
                return ArrowNames(self._array.slice(places.start, len(places)))
            return ArrowNames(self._array.take(pa.array(places, pa.int64())))
        return self._array[index].as_py()


class RowNames(Sequence[str]):
    """Names of the rows of files: ``train-0.parquet[7]``.

    Args:
        files: Names of the files.
        counts: How many rows each file has.
    """

    def __init__(self, files: Sequence[str], counts: Sequence[int]) -> None:
        self._files, self._starts = files, list(accumulate(counts, initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        file = bisect_right(self._starts, row) - 1
        return f"{self._files[file]}[{row - self._starts[file]}]"
