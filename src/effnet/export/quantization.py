"""What all ways to int8 share: images to choose ranges by, and which layers stay in floating point."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from effnet.export.settings import Kept


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Calibration:
    """Images as the file takes them, and what must not be quantized."""

    pixels: np.ndarray
    """One image a row."""
    keep: Kept

    @property
    def keeps_ends(self) -> bool:
        """Whether the first convolution and the classifier stay in floating point."""
        return self.keep in {"ends", "ends+se"}

    @property
    def keeps_se(self) -> bool:
        """Whether squeeze and excitation stay in floating point."""
        return self.keep in {"se", "ends+se"}

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Yield the images in batches that are all full."""
        for start in range(0, len(self.pixels) - size + 1, size):
            yield self.pixels[start : start + size]
