"""Look at every image of a data set once, in threads, and keep what has to be known of all of them at a time.

Dimension key: N images, the training images before those to validate on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8, UInt64

from effnet.data.filling import EXPECTED_SAMPLES
from effnet.data.images import DataSplit, Encoded
from effnet.data.pillow import BadImageError
from effnet.data.store import SplitName
from effnet.data.threads import chunks, run_ahead
from effnet.inspection.fingerprint import Fingerprint, fingerprint

Announce = Callable[[int, int], None]
"""Called with the number of images that have been looked at, and of all."""

_READ_AT_A_TIME = 256


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Survey:
    """What is known of every image; rows of images that cannot be read are 0."""

    data: DataSplit
    heights: Int32[np.ndarray, " N"]
    widths: Int32[np.ndarray, " N"]
    digests: UInt8[np.ndarray, "N 32"]
    hashes: UInt64[np.ndarray, "N 4"]
    is_readable: Bool[np.ndarray, " N"]
    is_comparable: Bool[np.ndarray, " N"]
    """Whether there is a perceptual hash."""
    labels: Int64[np.ndarray, " N"]
    unreadable: dict[int, str]
    """Why which images cannot be read."""
    formats: Counter[str]
    colors: Counter[str]

    def __len__(self) -> int:
        """Return the number of images in both splits."""
        return len(self.labels)

    @property
    def is_val(self) -> Bool[np.ndarray, " N"]:
        """Which images are those to validate on."""
        return np.arange(len(self)) >= len(self.data.train)

    def split(self, index: int) -> SplitName:
        """Return the split of an image."""
        return "train" if index < len(self.data.train) else "val"

    def name(self, index: int) -> str:
        """Return the name of an image."""
        train = self.data.train
        return train.names[index] if index < len(train) else self.data.val.names[index - len(train)]


def read_image(data: DataSplit, index: int) -> Encoded:
    """Return the image of that number in both splits, undecoded; raises OSError."""
    train = data.train
    return train.read(index) if index < len(train) else data.val.read(index - len(train))


def survey(data: DataSplit, *, workers: int = 0, announce: Announce | None = None) -> Survey:
    """Read, decode and describe all images of a data set.

    Args:
        data: The images.
        workers: Threads; 0: one for each processor.
        announce: Told how far it is.
    """
    count = len(data.train) + len(data.val)
    result = Survey(
        data=data,
        heights=np.zeros(count, np.int32),
        widths=np.zeros(count, np.int32),
        digests=np.zeros((count, 32), np.uint8),
        hashes=np.zeros((count, 4), np.uint64),
        is_readable=np.zeros(count, bool),
        is_comparable=np.zeros(count, bool),
        labels=np.concatenate([data.train.labels, data.val.labels]),
        unreadable={},
        formats=Counter(),
        colors=Counter(),
    )
    with closing(run_ahead(_plan(data, workers), workers)) as done:
        for batch, parts in done:
            prints = [found for part in parts for found in part]
            for index, found in zip(batch, prints, strict=True):
                _note(result, index, found)
            if announce:
                announce(batch.stop, count)
    return result


def _plan(
    data: DataSplit, workers: int
) -> Iterator[tuple[range, list[Callable[[], list[Fingerprint | str]]]]]:
    offset = 0
    for images in (data.train, data.val):
        for start in range(0, len(images), _READ_AT_A_TIME):
            stop = min(start + _READ_AT_A_TIME, len(images))
            if images.expect:
                images.expect(np.arange(start, min(start + EXPECTED_SAMPLES, len(images))))
            batch = range(offset + start, offset + stop)
            parts = chunks(len(batch), workers)
            yield batch, [partial(_look, data, batch[part.start : part.stop]) for part in parts]
        offset += len(images)


def _look(data: DataSplit, indices: range) -> list[Fingerprint | str]:
    return [_look_at(data, index) for index in indices]


def _look_at(data: DataSplit, index: int) -> Fingerprint | str:
    """Describe an image, or say why it cannot be read."""
    try:
        return fingerprint(read_image(data, index))
    except BadImageError as error:
        return error.reason
    except OSError as error:
        return error.strerror or str(error)


def _note(result: Survey, index: int, found: Fingerprint | str) -> None:
    if isinstance(found, str):
        result.unreadable[index] = found
        return
    result.is_readable[index] = True
    result.heights[index], result.widths[index] = found.height, found.width
    result.digests[index] = np.frombuffer(found.digest, np.uint8)
    result.formats[found.format] += 1
    result.colors[found.color] += 1
    if found.hash is not None:
        result.is_comparable[index] = True
        result.hashes[index] = found.hash
