"""What was drawn for the images of a batch, for `effnet.data.device_augment` to do.

Dimension key: N images, K operations and P patches an image.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float64, Int64

from effnet.config import AugmentConfig
from effnet.data.augment import PATCHES, DrawnView, most_operations
from effnet.data.operations import KINDS
from effnet.data.patches import Patch

KIND_PLACES = {kind: place for place, kind in enumerate(KINDS)}
"""By which number `DrawnViews` calls a kind of operation."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DrawnViews:
    """What was drawn for each image of a batch."""

    is_mirrored: Bool[np.ndarray, " N"]
    operations: Int64[np.ndarray, "N K"]
    """Places in `KINDS`; the first is none at all."""
    arguments: Float64[np.ndarray, "N K"]
    places: Int64[np.ndarray, "N K 2"]
    """Of cutout: pixels from the left and from the top."""
    patches: Int64[np.ndarray, "N P 6"]
    """Each one is a `Patch`."""

    @classmethod
    def empty(cls, images: int, augment: AugmentConfig) -> DrawnViews:
        """Return draws for so many images, to be filled in by `note`; nothing is done to them yet."""
        operations = most_operations(augment)
        return cls(
            is_mirrored=np.zeros(images, bool),
            operations=np.zeros((images, operations), np.int64),
            arguments=np.zeros((images, operations)),
            places=np.zeros((images, operations, 2), np.int64),
            patches=np.zeros((images, PATCHES, len(Patch())), np.int64),
        )

    def take(self, others: DrawnViews, rows: slice) -> None:
        """Note for all images what was drawn for some rows of others."""
        for each in fields(self):
            getattr(self, each.name)[:] = getattr(others, each.name)[rows]

    def put(self, rows: slice, others: DrawnViews) -> None:
        """Note for some rows what was drawn for others."""
        for each in fields(self):
            getattr(self, each.name)[rows] = getattr(others, each.name)

    def note(self, row: int, view: DrawnView) -> None:
        """Note what was drawn for an image."""
        self.is_mirrored[row] = view.is_mirrored
        for turn, (kind, argument, place) in enumerate(view.operations):
            self.operations[row, turn] = KIND_PLACES[kind]
            self.arguments[row, turn] = argument
            self.places[row, turn] = place
        self.patches[row] = view.patches
