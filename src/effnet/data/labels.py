"""Several labels for each of many images, kept compactly: 12.7 million images take some 150 MB.

Dimension key: N images, M some of them, V labels of all images together, L most labels of an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32, Int64


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelSets:
    """The labels of each image, all in one array. No image has a label twice."""

    starts: Int64[np.ndarray, " N_and_1"]
    """Where in ``values`` the labels of each image begin, and where the last one's end."""
    values: Int32[np.ndarray, " V"]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.starts) - 1

    def of(self, index: int) -> Int32[np.ndarray, " L"]:
        """Return the labels of one image."""
        return self.values[self.starts[index] : self.starts[index + 1]]

    @property
    def first(self) -> Int64[np.ndarray, " N"]:
        """The first label of each image; each must have one."""
        return self.values[self.starts[:-1]].astype(np.int64)

    def subset(self, indices: Int[np.ndarray, " M"]) -> LabelSets:
        """Return the labels of some images, in the order of ``indices``."""
        counts = self.starts[indices + 1] - self.starts[indices]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        places = np.repeat(self.starts[indices] - starts[:-1], counts) + np.arange(starts[-1])
        return LabelSets(starts=starts, values=self.values[places])

    def padded(self, indices: Int[np.ndarray, " M"]) -> Int64[np.ndarray, "M L"]:
        """Return the labels of some images in rows that are filled up with -1."""
        counts = self.starts[indices + 1] - self.starts[indices]
        places = np.arange(max(counts.max(initial=0), 1))
        is_label = places < counts[:, None]
        rows = np.full(is_label.shape, -1, np.int64)
        rows[is_label] = self.values[(self.starts[indices][:, None] + places)[is_label]]
        return rows

    def renumbered(self, position: Int64[np.ndarray, " K"]) -> LabelSets:
        """Return the same labels under other numbers: label ``k`` becomes ``position[k]``."""
        return LabelSets(starts=self.starts, values=position[self.values].astype(np.int32))


def without_repeats(starts: Int64[np.ndarray, " N_and_1"], values: Int32[np.ndarray, " V"]) -> LabelSets:
    """Return label sets from labels that may be repeated; of repeated ones the first stays."""
    owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    order = np.lexsort((values, owner))  # Stable: of equal labels the first comes first.
    is_repeat = np.zeros(len(values), bool)
    is_repeat[order[1:]] = (np.diff(owner[order]) == 0) & (np.diff(values[order]) == 0)
    if is_repeat.any():
        counts = np.bincount(owner[~is_repeat], minlength=len(starts) - 1)
        starts, values = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), values[~is_repeat]
    return LabelSets(starts=starts, values=values)
