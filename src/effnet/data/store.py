"""A prepared store: a folder with copies of images in several sizes, in Arrow files.

An image's row lies at the same place of the files of all sizes of its shard. `effnet.data.prepare` writes
stores; nothing is decoded here.
Dimension key: N images, H height, W width.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from jaxtyping import UInt8
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from effnet.arch.io import from_dict
from effnet.arch.spec import SPEC_CONFIG
from effnet.data.arrow_files import Descriptor, IndexNames, JpegColumn, RawColumn, read_index
from effnet.data.images import LabelledImages, Pyramid
from effnet.errors import UserError

MANIFEST = "store.json"
"""Written last: a folder with this file is a store."""
JOURNAL = "prepared.jsonl"
"""Of what is written so far; a folder with this file alone is a store that is not finished."""
MOST_OPEN = 16_384
"""Files of a split of which the tables are at hand, or the pixels mapped; systems allow some 65,000 maps."""
MOST_DESCRIPTORS = 256
"""Files of a split that are open at a time; systems allow some 1,000 for a process."""


def _ascending(sides: tuple[int, ...]) -> tuple[int, ...]:
    if list(sides) != sorted(set(sides)):
        raise ValueError(f"must ascend, got {list(sides)}")
    return sides


Encoding: TypeAlias = Literal["jpeg", "raw"]
Chroma: TypeAlias = Literal["444", "422", "420"]
SplitName: TypeAlias = Literal["train", "val"]
Count = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=1)]
ShortSides = Annotated[tuple[Side, ...], Field(min_length=1), AfterValidator(_ascending)]
Quality = Annotated[int, Field(ge=1, le=100)]


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class StoreFile:
    """A file of a store, and how to know that it is whole."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Its name; all files lie in the store's folder itself."""
    bytes: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class StoreShard:
    """Some consecutive images of a split."""

    images: Side
    levels: dict[int, StoreFile]
    """By the copies' short side, in pixels."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class StoreSplit:
    """The images to train on, or those to validate on."""

    images: Side
    index: StoreFile
    shards: Annotated[tuple[StoreShard, ...], Field(min_length=1)]

    def __post_init__(self) -> None:
        if (total := sum(shard.images for shard in self.shards)) != self.images:
            raise ValueError(f"the shards have {total} images, not {self.images}")

    @property
    def files(self) -> Iterator[StoreFile]:
        """All files of the split, the index first."""
        yield self.index
        for shard in self.shards:
            yield from shard.levels.values()


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class StoreManifest:
    """What is in a store and how it was made: ``store.json``."""

    format: Literal[1] = 1
    encoding: Encoding
    quality: Quality
    """Of JPEG files."""
    chroma: Chroma
    """Of JPEG files: 4:4:4, 4:2:2 or 4:2:0."""
    short_sides: ShortSides
    """Of the copies, ascending, in pixels."""
    class_names: Annotated[tuple[str, ...], Field(min_length=1)]
    source: str
    """What the store was prepared from."""
    splits: dict[SplitName, StoreSplit]

    def __post_init__(self) -> None:
        if "train" not in self.splits:
            raise ValueError("splits must have 'train'")
        sides = set(self.short_sides)
        for name, split in self.splits.items():
            if any(shard.levels.keys() != sides for shard in split.shards):
                raise ValueError(f"every shard of '{name}' must have the levels {list(self.short_sides)}")

    @property
    def files(self) -> Iterator[StoreFile]:
        """All files of the store but for the manifest."""
        for split in self.splits.values():
            yield from split.files


Locate: TypeAlias = Callable[[StoreFile], Path]
"""Answers where a file of a store lies on this machine, having fetched it where need be; raises OSError."""


def is_store(path: Path) -> bool:
    """Whether a folder is a store, perhaps not prepared to its end."""
    return (path / MANIFEST).is_file() or (path / JOURNAL).is_file()


def level_shape(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return the height and width of an image's copy; images are never enlarged."""
    scale = min(short_side / min(height, width), 1.0)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def copy_levels(height: int, width: int, short_sides: tuple[int, ...]) -> tuple[int, ...]:
    """Return the levels that hold a copy of an image: those below its own size and the next."""
    return short_sides[: bisect_left(short_sides, min(height, width)) + 1]


def read_manifest(path: Path) -> StoreManifest:
    """Read the manifest of a store in a folder.

    Raises:
        UserError: There is none, or it is not valid.
    """
    if not (path / MANIFEST).exists():
        raise UserError(f"'{path}' is not prepared to its end; give the command that began it again")
    try:
        text = (path / MANIFEST).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the prepared store '{path}': {error}") from None
    return parse_manifest(text, str(path / MANIFEST))


def parse_manifest(text: str, where: str) -> StoreManifest:
    """Read a manifest from JSON.

    Args:
        text: What ``store.json`` holds.
        where: Where the text came from, for the message.

    Raises:
        UserError: It is no JSON, or not valid.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON: {error}; prepare the store again") from None
    if not isinstance(data, dict) or data.get("format") != 1:
        raise UserError(f"{where} is no manifest of format 1, the only one that this version reads")
    return from_dict(StoreManifest, data, where)


def open_store(path: Path) -> tuple[LabelledImages, LabelledImages | None]:
    """Open the training and the validation images of a store in a local folder.

    Raises:
        UserError: A file is missing, has not its size, or is not what it should be.
    """
    manifest = read_manifest(path)
    for file in manifest.files:
        _check_file(path / file.file, file.bytes)
    return open_splits(manifest, partial(_beside, path))


def _beside(folder: Path, file: StoreFile) -> Path:
    return folder / file.file


def _check_file(path: Path, expected_bytes: int) -> None:
    mend = "to complete the store, give the command that prepared it again"
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}; {mend}") from None
    if size != expected_bytes:
        raise UserError(f"'{path}' is damaged: it has {size} of {expected_bytes} bytes; {mend}")


def open_splits(
    manifest: StoreManifest, locate: Locate, *, most_open: int = MOST_OPEN
) -> tuple[LabelledImages, LabelledImages | None]:
    """Open the training and the validation images of a store wherever its files are.

    Args:
        manifest: Of the store.
        locate: Asked for the index at once, and for each file of a shard when it is first read, by several
            threads at a time.
        most_open: Files of a split of which the tables are at hand, or the pixels mapped.

    Raises:
        UserError: An index is not what it should be.
    """

    def open_split(split: StoreSplit) -> LabelledImages:
        return StoredSplit(manifest, split, locate, most_open=most_open).images()

    val = manifest.splits.get("val")
    return open_split(manifest.splits["train"]), open_split(val) if val else None


class StoredSplit:
    """Reads the images of a split; threads may share it.

    Args:
        manifest: Of the store.
        split: Part of the manifest.
        locate: See `open_splits`.
        most_open: See `open_splits`.

    Raises:
        UserError: The index is not what it should be.
    """

    def __init__(
        self, manifest: StoreManifest, split: StoreSplit, locate: Locate, *, most_open: int = MOST_OPEN
    ) -> None:
        self._manifest, self._split, self._locate = manifest, split, locate
        self._starts = list(accumulate((shard.images for shard in split.shards), initial=0))
        self._index = read_index(locate(split.index), split.images, len(manifest.class_names))
        self.names: Sequence[str] = IndexNames(partial(locate, split.index), split.images)
        self._most_open = most_open
        self._hold_nothing()

    def _hold_nothing(self) -> None:
        self._raw_column = lru_cache(self._most_open)(self._open_raw)
        self._jpeg_column = lru_cache(self._most_open)(self._open_jpeg)
        self._descriptor = lru_cache(min(MOST_DESCRIPTORS, 2 * self._most_open))(Descriptor)

    def __getstate__(self) -> dict[str, Any]:
        """Return all but what is open, for another process to open it again."""
        open_files = ("_raw_column", "_jpeg_column", "_descriptor")
        return {name: value for name, value in vars(self).items() if name not in open_files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin where another process has left."""
        vars(self).update(state)
        self._hold_nothing()

    def images(self) -> LabelledImages:
        """Return the split as the loader reads it."""
        return LabelledImages(
            class_names=self._manifest.class_names,
            labels=self._index.labels,
            names=self.names,
            read=self.pyramid,
            label_sets=self._index.label_sets,
        )

    def pyramid(self, index: int) -> Pyramid:
        """Return the copies of an image; none is read yet."""
        height, width = int(self._index.heights[index]), int(self._index.widths[index])
        levels = copy_levels(height, width, self._manifest.short_sides)
        return Pyramid(
            height=height,
            width=width,
            short_sides=(*levels[:-1], min(levels[-1], height, width)),
            read=partial(self._copy, index, height, width),
        )

    def _copy(self, index: int, height: int, width: int, place: int) -> bytes | UInt8[np.ndarray, "H W 3"]:
        short_side = self._manifest.short_sides[place]
        shard = bisect_right(self._starts, index) - 1
        row = index - self._starts[shard]
        if self._manifest.encoding == "jpeg":
            return self._jpeg_column(shard, short_side).read(row)
        return self._raw_column(shard, short_side).read(row, *level_shape(height, width, short_side))

    def _open_jpeg(self, shard: int, short_side: int) -> JpegColumn:
        stored = self._split.shards[shard]
        return JpegColumn(self._locate(stored.levels[short_side]), stored.images, self._descriptor)

    def _open_raw(self, shard: int, short_side: int) -> RawColumn:
        stored = self._split.shards[shard]
        return RawColumn(self._locate(stored.levels[short_side]), stored.images)
