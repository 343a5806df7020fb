"""What is measured: photos as files, and what a method has to make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Int64

from effnet.bench.measure import Pass
from effnet.data.images import LabelledImages
from effnet.data.sources import open_splits
from effnet.data.store import Encoding, is_store, read_manifest
from effnet.errors import UserError

CROP_AREA = (0.08, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)
OPERATIONS, MAGNITUDE = 2, 10
"""Of RandAugment."""
BATCH_SIZE = 50
_JPEG_START = b"\xff\xd8"


class UnavailableError(Exception):
    """A method cannot be measured.

    Args:
        reason: Why, in a few words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Photos:
    """Some photos of a data set: JPEG files in class folders."""

    folder: Path
    files: tuple[Path, ...]
    labels: Int64[np.ndarray, " N"]
    names: tuple[str, ...]
    """In the data set that they are from."""

    @property
    def mean_bytes(self) -> float:
        """Mean size of a file."""
        return sum(file.stat().st_size for file in self.files) / len(self.files)

    def batches(self) -> Iterator[tuple[Path, ...]]:
        """Yield the files in the order in which they lie."""
        for start in range(0, len(self.files), BATCH_SIZE):
            yield self.files[start : start + BATCH_SIZE]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Workload:
    """Of each photo a random crop of `CROP_AREA` and `CROP_ASPECT`, resized to a square, mirrored or not."""

    photos: Photos
    stored: Mapping[Encoding, LabelledImages]
    """The photos' copies in prepared stores, if there are any."""
    size: int
    """Side of the result in pixels."""
    randaugment: bool
    """Whether RandAugment follows, with `OPERATIONS` and `MAGNITUDE`."""
    scratch: Path
    """An existing folder for files of a method's own; anything in it may be written over."""


Open: TypeAlias = Callable[[Workload], AbstractContextManager[Pass]]
"""Get ready for a workload, untimed; raises `UnavailableError`."""


def lay_out(source: str, images: int, folder: Path) -> Photos:
    """Copy some of the training images of a data set into class folders.

    Args:
        source: See `effnet.data.sources.open_data`.
        images: How many, at most; they are evenly spaced.
        folder: Where to; it must exist.

    Raises:
        UserError: There is no such data, or it has no JPEG files.
    """
    train, _ = open_splits(source)
    files, chosen = [], []
    for index in range(0, len(train), max(len(train) // images, 1))[:images]:
        encoded = train.read(index)
        if isinstance(encoded, bytes) and encoded.startswith(_JPEG_START):
            file = folder / f"class-{train.labels[index]:05}" / f"{index:08}.jpg"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(encoded)
            files.append(file)
            chosen.append(index)
    if not files:
        raise UserError(f"'{source}' has no JPEG files to train on; give the original photos")
    return Photos(
        folder=folder,
        files=tuple(files),
        labels=train.labels[chosen],
        names=tuple(train.names[index] for index in chosen),
    )


def open_stored(store: Path, names: Sequence[str]) -> dict[Encoding, LabelledImages]:
    """Open the copies of some images in a prepared store; return them under their encoding.

    Args:
        store: Its folder.
        names: Of the images, as in the data that it was prepared from.

    Raises:
        UserError: It is no prepared store, or lacks an image.
    """
    if not is_store(store):
        raise UserError(f"'{store}' is no prepared store; write one with effnet data prepare")
    train, _ = open_splits(str(store))
    place_of = {name: place for place, name in enumerate(train.names)}
    missing = next((name for name in names if name not in place_of), None)
    if missing is not None:
        raise UserError(
            f"the store '{store}' lacks {missing}; give the one that was prepared from these photos"
        )
    return {read_manifest(store).encoding: train.subset(np.array([place_of[name] for name in names]))}
