"""In which order a run reads its images: a pure function of the seed, whatever reads them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Int64

BLOCKS_AT_A_TIME = 8
"""Images of so many blocks are mixed with each other; so many are kept at hand."""

_ORDER_STREAM, _SAMPLE_STREAM, _STEP_STREAM = 0, 1, 2
_COUNTERS = [np.array([0, 0, 0, stream], np.uint64) for stream in range(3)]


def sample_order(
    seed: int, start: int, stop: int, *, images: int, blocks: tuple[int, ...] = (), repeats: int = 1
) -> Int64[np.ndarray, " N"]:
    """Return which images samples ``start`` to ``stop`` of a run are.

    Sample ``p`` is element ``p % images`` of a permutation that is drawn for epoch ``p // images``: each
    image is used exactly once an epoch. With ``repeats``, sample ``p`` is what sample ``p // repeats`` would
    be without: each image is used exactly ``repeats`` times in so many epochs, one time after the other.

    Args:
        seed: Of the run.
        start: First sample, counted from the start of the run.
        stop: Behind the last sample.
        images: Number of images.
        blocks: Lengths of the blocks in which the images lie. Where there are any, each epoch's permutation
            is of the blocks, and then of the images inside `BLOCKS_AT_A_TIME` blocks that follow each other.
        repeats: How many samples that follow each other are of the same image.
    """
    epochs, places = np.divmod(np.arange(start, stop) // repeats, images)
    order = np.empty(stop - start, np.int64)
    for epoch in np.unique(epochs).tolist():
        order[epochs == epoch] = _epoch_order(seed, epoch, images, blocks)[places[epochs == epoch]]
    return order


def sample_random(seed: int, sample: int) -> np.random.Generator:
    """Return the random numbers of one sample of a run, which no other one shares."""
    return _random(seed, sample, _SAMPLE_STREAM)


def step_random(seed: int, step: int) -> np.random.Generator:
    """Return the random numbers of all samples of one step of a run together."""
    return _random(seed, step, _STEP_STREAM)


class _Key(np.random.bit_generator.ISeedSequence):
    """A key for Philox. Given as ``Philox(key=...)``, NumPy would first ask the system for entropy."""

    def __init__(self, *words: int) -> None:
        self._words = np.array(words, np.uint64)

    def generate_state(self, n_words: int, dtype: object = np.uint32) -> np.ndarray:
        return self._words


def _random(seed: int, number: int, stream: int) -> np.random.Generator:
    key = _Key(seed % 2**64, number)
    return np.random.Generator(np.random.Philox(key, counter=_COUNTERS[stream]))  # type: ignore[arg-type]


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, images: int, blocks: tuple[int, ...]) -> Int64[np.ndarray, " n"]:
    rng = _random(seed, epoch, _ORDER_STREAM)
    if not blocks:
        return rng.permutation(images)
    ends = np.cumsum(blocks)
    block_order = rng.permutation(len(blocks))
    windows = []
    for first in range(0, len(blocks), BLOCKS_AT_A_TIME):
        mixed = block_order[first : first + BLOCKS_AT_A_TIME]
        members = np.concatenate([np.arange(ends[block] - blocks[block], ends[block]) for block in mixed])
        windows.append(rng.permutation(members))
    return np.concatenate(windows)
