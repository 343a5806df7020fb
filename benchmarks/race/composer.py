"""Composer's progressive resizing of collated batches, in our own words, as of its version of 2026-04.

The loader always makes images of the full size; what the network sees is resized on the device. The scale is
the first one until ``delay``, then grows evenly until ``1 - finetune`` of the run, and is 1 from there on.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

FIRST_SCALE, DELAY, FINETUNE, INCREMENT = 0.5, 0.5, 0.2, 4
"""Its defaults."""


def scale_at(progress: float) -> float:
    """Return the share of the side at a share of the run that is done."""
    grown = (progress - DELAY) / (1 - FINETUNE - DELAY)
    return FIRST_SCALE + (1 - FIRST_SCALE) * min(max(grown, 0.0), 1.0)


def side(full: int, progress: float) -> int:
    """Return the side in pixels: a multiple of four."""
    return min(max(round(full * scale_at(progress) / INCREMENT) * INCREMENT, INCREMENT), full)


class Composer:
    """Counts the batches of a run.

    Args:
        full: Side of the loader's images in pixels.
        total_steps: Of the run.
    """

    def __init__(self, full: int, total_steps: int) -> None:
        self._full, self._total = full, total_steps
        self._done = 0

    def size(self, step: int) -> int:
        """Return the side of the images of a step, in pixels."""
        return side(self._full, step / self._total)

    def resized(self, images: Tensor) -> Tensor:
        """Return the next batch, its nearest pixels taken."""
        size = self.size(self._done)
        self._done += 1
        return images if size == self._full else functional.interpolate(images, size=(size, size))
