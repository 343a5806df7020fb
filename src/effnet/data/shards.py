"""Writing a prepared store: shard by shard, each noted in a journal, so that the work can be continued."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import pyarrow as pa
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from effnet.arch.io import to_dict
from effnet.arch.spec import SPEC_CONFIG
from effnet.data.arrow_files import IMAGE_SCHEMA
from effnet.data.copies import Copies, CopySettings
from effnet.data.store import JOURNAL, Count, SplitName, StoreFile
from effnet.errors import UserError
from effnet.files import whole_file

MOST_IMAGES = 2048
"""Of a shard."""
MOST_BYTES = 128 << 20
"""A shard ends with the image that makes a file of it as large."""

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class StorePlan:
    """What a store will hold; the first line of its journal."""

    format: Literal[1] = 1
    source: str
    settings: CopySettings
    class_names: tuple[str, ...]
    images: dict[SplitName, Count]
    """How many the source has."""
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the names and labels of all images."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class ShardRecord:
    """A shard that was written; a line of the journal."""

    split: SplitName
    number: Count
    """Of the split's shards, from 0."""
    start: Count
    """The first image of the source."""
    stop: Count
    """Behind the last image of the source."""
    levels: dict[int, StoreFile]
    """By short side; empty where no image could be read."""
    sizes: str
    """Height and width of each image that could be read, upright; text, for there may be millions."""
    bad: dict[int, str]
    """By its place in the source, why an image could not be read."""

    @property
    def good(self) -> list[int]:
        """The places in the source of the images that could be read, in order."""
        return [index for index in range(self.start, self.stop) if index not in self.bad]


@plain_dataclass(kw_only=True, slots=True)
class Shard:
    """Copies of consecutive images of a source, in memory."""

    start: int
    stop: int
    short_sides: tuple[int, ...]
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """Height and width of each image that could be read."""
    bad: dict[int, str] = field(default_factory=dict)
    columns: list[list[bytes | None]] = field(default_factory=list)
    level_bytes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.columns = [[] for _ in self.short_sides]
        self.level_bytes = [0] * len(self.short_sides)

    def add(self, copies: Copies | str) -> None:
        """Add the next image of the source, or why it cannot be read."""
        if isinstance(copies, str):
            self.bad[self.stop] = copies
        else:
            self.sizes.append((copies.height, copies.width))
            for level, file in enumerate(copies.files):
                self.columns[level].append(file)
                self.level_bytes[level] += len(file or b"")
        self.stop += 1

    @property
    def is_full(self) -> bool:
        """Whether the next image belongs to the next shard."""
        return len(self.sizes) >= MOST_IMAGES or max(self.level_bytes) >= MOST_BYTES


def pack(made: Iterable[Copies | str], start: int, short_sides: tuple[int, ...]) -> Iterator[Shard]:
    """Divide consecutive images among shards; where one ends depends on the images alone.

    Args:
        made: Copies of each image from ``start`` on, or why it cannot be read.
        start: Place of the first image in the source.
        short_sides: Of the copies.
    """
    shard = Shard(start=start, stop=start, short_sides=short_sides)
    for copies in made:
        shard.add(copies)
        if shard.is_full:
            yield shard
            shard = Shard(start=shard.stop, stop=shard.stop, short_sides=short_sides)
    if shard.stop > shard.start:
        yield shard


def write_shard(out: Path, split: SplitName, number: int, shard: Shard) -> ShardRecord:
    """Write a shard's files, and read them back to compare their checksums.

    Raises:
        OSError: The disk is full, or does not give back what was written.
    """
    files = {
        side: write_table(
            out / f"{split}-{number:05}-{side}.arrow",
            [pa.record_batch([pa.array(column, pa.large_binary())], schema=IMAGE_SCHEMA)],
        )
        for side, column in zip(shard.short_sides, shard.columns, strict=True)
        if shard.sizes
    }
    return ShardRecord(
        split=split,
        number=number,
        start=shard.start,
        stop=shard.stop,
        levels=files,
        sizes=" ".join(f"{height} {width}" for height, width in shard.sizes),
        bad=shard.bad,
    )


def write_table(path: Path, batches: Sequence[pa.RecordBatch]) -> StoreFile:
    """Write an Arrow file, and read it back to compare its checksum.

    Raises:
        OSError: The disk is full, or does not give back what was written.
    """
    with whole_file(path) as temporary:
        with temporary.open("wb") as file:
            sink = _HashedFile(file.write)
            with pa.ipc.new_file(pa.PythonFile(sink, "w"), batches[0].schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
        written = sink.sha256.hexdigest()
    if file_sha256(path) != written:
        raise OSError(f"'{path}' reads differently from what was written; check the disk, and begin again")
    return StoreFile(file=path.name, bytes=path.stat().st_size, sha256=written)


def file_sha256(path: Path) -> str:
    """Return a file's checksum, of what is on the disk where the system can be told to forget its copy."""
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.file_digest(file, "sha256").hexdigest()


class _HashedFile:
    """What pyarrow writes to: passes on and hashes."""

    closed = False

    def __init__(self, write: Callable[[bytes], int]) -> None:
        self._write = write
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes | pa.Buffer) -> int:
        self.sha256.update(data)
        return self._write(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class ShardJournal:
    """Notes which shards of a store are written; a line that was cut off by a crash is written again.

    Args:
        path: The store's folder, which exists.
        plan: What the store will hold.

    Raises:
        UserError: The store was begun with another plan, or the journal is damaged.
    """

    def __init__(self, path: Path, plan: StorePlan) -> None:
        self.plan = plan
        self._path = path / JOURNAL
        begun, self.records = _read_journal(self._path)
        if not self.records:
            for leftover in path.glob("*.arrow"):
                leftover.unlink()
            with whole_file(self._path) as temporary:
                temporary.write_bytes(_line(plan))
        elif begun != plan:
            raise UserError(
                f"'{path}' was begun {_difference(begun, plan)}; choose another folder with --out"
            )
        else:
            os.truncate(self._path, self._path.read_bytes().rfind(b"\n") + 1)

    def of(self, split: SplitName) -> list[ShardRecord]:
        """Return the shards of a split, in order."""
        return [record for record in self.records if record.split == split]

    def add(self, record: ShardRecord) -> None:
        """Note a shard whose files are all written."""
        with self._path.open("ab") as file:
            file.write(_line(record))
            file.flush()
            os.fsync(file.fileno())
        self.records.append(record)


def begun_plan(path: Path) -> StorePlan | None:
    """Return what a store in a folder was begun to hold; None where none was.

    Raises:
        UserError: The journal is damaged.
    """
    return _read_journal(path / JOURNAL)[0]


def _read_journal(path: Path) -> tuple[StorePlan | None, list[ShardRecord]]:
    if not path.is_file():
        return None, []
    first, *lines = path.read_bytes().split(b"\n")[:-1]
    return _parse(StorePlan, first, path), [_parse(ShardRecord, line, path) for line in lines]


def _line(value: StorePlan | ShardRecord) -> bytes:
    return TypeAdapter(type(value)).dump_json(value) + b"\n"


def _parse(kind: type[_T], line: bytes, path: Path) -> _T:
    try:
        return TypeAdapter(kind).validate_json(line)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise UserError(
            f"'{path}' is damaged ({problem['msg']}); delete the store and prepare it again"
        ) from None


def _difference(begun: StorePlan | None, now: StorePlan) -> str:
    if begun is None or begun.source != now.source:
        return f"from '{begun.source if begun else ''}', not '{now.source}'"
    for name, before in to_dict(begun.settings).items():
        if before != (given := to_dict(now.settings)[name]):
            return f"with {name} {before}, not {given}"
    return f"when '{now.source}' had other images"
