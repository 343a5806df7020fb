"""What all ways to int8 share: images to choose ranges by, and which layers stay in floating point."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from effnet.export.settings import Kept


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Calibration:
    """Images as the file takes them, and what must not be quantized."""

    pixels: np.ndarray
    """One image a row."""
    keep: Kept

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Yield the images in batches that are all full."""
        for start in range(0, len(self.pixels) - size + 1, size):
            yield self.pixels[start : start + size]


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """An operation of a graph, whatever the form calls it."""

    name: str
    kind: str
    """``layer``: with weights; ``mean``: over the image; ``product``; or anything else."""
    inputs: frozenset[str]
    """What it takes that is computed: names of operations."""


def kept_operations(operations: Sequence[Operation], keep: Kept) -> list[str]:
    """Return the names of operations that stay in floating point.

    Args:
        operations: In the order in which they are computed.
        keep: What to keep.
    """
    layers = [operation.name for operation in operations if operation.kind == "layer"]
    kept = [layers[0], layers[-1]] if keep in {"ends", "ends+se"} else []
    return [*kept, *_gates(operations)] if keep in {"se", "ends+se"} else kept


def _gates(operations: Iterable[Operation]) -> list[str]:
    """Return what computes on means over the image, up to where they meet the features again as a product.

    The last mean meets no features: it is the classifier's.
    """
    gates: list[str] = []
    pooled: list[str] = []
    for operation in operations:
        if operation.kind == "mean":
            pooled = [operation.name]
        elif operation.inputs.intersection(pooled):
            pooled.append(operation.name)
            if operation.kind == "product" and operation.inputs.difference(pooled):
                gates += pooled
                pooled = []
    return gates
