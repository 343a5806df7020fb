"""Batches cut into pieces that threads compute side by side.

A runtime that shares one batch among threads lets them wait for each other in every layer; pieces of a few
images also stay in the caches (measured, docs/log.md).
Dimension key: N images, C channels, S side, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from effnet.evaluation.streaming import StandIn

Answer: TypeAlias = Callable[[Float[Tensor, "N C S S"]], Float[Tensor, "N K"]]


def pieces(count: int, threads: int, sizes: tuple[int, ...]) -> list[int]:
    """Return into how many images each to cut a batch, so that all threads have the same work.

    Args:
        count: Images of the batch.
        threads: That compute.
        sizes: Which pieces there may be; 1 among them.
    """
    cut: list[int] = []
    while count:
        share = -(-count // threads)
        size = max(size for size in sizes if size <= share)
        full = min(threads, count // size)
        cut += [size] * full
        count -= size * full
    return cut


class Spread(StandIn):
    """A network that answers one image by all threads, and more by one thread each.

    Args:
        one: Answers one image, with all threads.
        piece: Answers any of ``sizes`` images with one thread; several threads may call it at a time.
        sizes: Of pieces.
        threads: That compute.
    """

    def __init__(self, one: Answer, piece: Answer, *, sizes: tuple[int, ...], threads: int) -> None:
        self.threads = threads
        self._one, self._piece, self._sizes = one, piece, sizes
        self._pool = ThreadPoolExecutor(
            threads, "effnet-engine", initializer=torch.set_num_threads, initargs=(1,)
        )

    def __call__(self, pixels: Float[Tensor, "N C S S"]) -> Float[Tensor, "N K"]:
        """Return the logits of any number of images but none, computed with all threads."""
        if len(pixels) == 1:
            return self._one(pixels)
        if self.threads == 1:
            return self.alone(pixels)
        return torch.cat(list(self._pool.map(self._piece, self._cut(pixels, self.threads))))

    def alone(self, pixels: Float[Tensor, "N C S S"]) -> Float[Tensor, "N K"]:
        """Return the same computed with one thread; several threads may call at a time."""
        return torch.cat([self._piece(piece) for piece in self._cut(pixels, 1)])

    def _cut(self, pixels: Tensor, threads: int) -> tuple[Tensor, ...]:
        return torch.split(pixels, pieces(len(pixels), threads, self._sizes))
