"""Making copies of many images in threads, and predicting what it takes.

Nothing is written here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from effnet.data.bad_images import bad_reason
from effnet.data.copies import Copies, CopySettings, make_copies
from effnet.data.images import LabelledImages
from effnet.data.pillow import BadImageError
from effnet.data.threads import chunks, run_ahead
from effnet.errors import UserError

_IMAGES_AHEAD = 64
"""That the threads are given at a time."""
_EXPECTED_IMAGES = 8192
"""How far ahead a source that fetches images in blocks is told what will be read."""
_SAMPLE_RUNS, _SAMPLE_RUN = 8, 16
"""Images tried for a prediction: so many runs of so many, for neighbours may have to be fetched together."""


def copy_images(
    images: LabelledImages, indices: Sequence[int], settings: CopySettings, workers: int
) -> Generator[Copies | str, None, None]:
    """Make the copies of images in threads.

    Args:
        images: The originals.
        indices: Which of them.
        settings: Copies to make.
        workers: Threads; 0: one for each processor.

    Yields:
        The copies of each image, or why it cannot be read, in order. Closing the generator stops its threads.
    """

    def plan() -> Iterator[tuple[None, list[Callable[[], list[Copies | str]]]]]:
        for start in range(0, len(indices), _IMAGES_AHEAD):
            if images.expect is not None:
                images.expect(np.array(indices[start : start + _EXPECTED_IMAGES], np.int64))
            batch = indices[start : start + _IMAGES_AHEAD]
            yield (
                None,
                [
                    partial(_make_some, images, batch[rows.start : rows.stop], settings)
                    for rows in chunks(len(batch), workers)
                ],
            )

    with closing(run_ahead(plan(), workers)) as results:
        for _, made in results:
            yield from chain.from_iterable(made)


def _make_some(images: LabelledImages, indices: Sequence[int], settings: CopySettings) -> list[Copies | str]:
    made: list[Copies | str] = []
    for index in indices:
        try:
            made.append(make_copies(images.read(index), settings))
        except (BadImageError, OSError) as error:
            made.append(bad_reason(error))
    return made


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What preparing takes from beginning to end, judged by some of the images."""

    images: int
    level_bytes: dict[int, int]
    """By short side."""
    seconds: float

    @property
    def bytes(self) -> int:
        """Of the whole store."""
        return sum(self.level_bytes.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction under its names."""
        return asdict(self) | {"bytes": self.bytes}


def predict(splits: Sequence[LabelledImages], settings: CopySettings, workers: int) -> Prediction:
    """Predict a store's size and the time that it takes to prepare, by copies of some images of every split.

    Args:
        splits: The originals.
        settings: Copies to make.
        workers: Threads; 0: one for each processor.

    Raises:
        UserError: None of the images that were tried can be read.
    """
    total = sum(map(len, splits))
    seconds, sizes = 0.0, np.zeros(len(settings.short_sides))
    for images in splits:
        starts = np.linspace(0, max(len(images) - _SAMPLE_RUN, 0), _SAMPLE_RUNS).astype(int)
        tried = sorted({i for start in starts for i in range(start, min(start + _SAMPLE_RUN, len(images)))})
        started = time.perf_counter()
        made = list(copy_images(images, tried, settings, workers))
        factor = len(images) / len(made)
        seconds += factor * (time.perf_counter() - started)
        for copies in made:
            if isinstance(copies, Copies):
                sizes += [factor * len(file or b"") for file in copies.files]
    if not sizes.any():
        raise UserError("none of the images that were tried can be read")
    by_side = dict(zip(settings.short_sides, sizes.astype(int).tolist(), strict=True))
    return Prediction(images=total, level_bytes=by_side, seconds=seconds)
