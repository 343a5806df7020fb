"""Labelled images, wherever they are: what the sources open and the loader reads. Nothing is decoded here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias, overload

import numpy as np
from jaxtyping import Int, Int64, UInt8

from effnet.data.labels import LabelSets
from effnet.errors import UserError, did_you_mean


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pyramid:
    """One image as a prepared store has it: copies of several sizes, of which a reader chooses one."""

    height: int
    """Of the original, upright, in pixels."""
    width: int
    """Of the original, upright, in pixels."""
    short_sides: tuple[int, ...]
    """Of the copies, ascending, in pixels; the last copy is the largest that there is."""
    read: Callable[[int], bytes | UInt8[np.ndarray, "H W 3"]]
    """Return the copy at a position of ``short_sides``; raises OSError."""


Encoded: TypeAlias = bytes | UInt8[np.ndarray, "H W 3"] | Pyramid
"""An image file, pixels, or the copies of an image."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelledImages:
    """Images with their classes, read one by one."""

    class_names: tuple[str, ...]
    labels: Int64[np.ndarray, " N"]
    """Indices into ``class_names``; where images have several, the first of each."""
    names: Sequence[str]
    """What to call each image in messages."""
    read: Callable[[int], Encoded]
    """Return the image at an index, undecoded; raises OSError. Other processes can read the images if it can
    be pickled, as partials of a module's functions can, and neither ``blocks`` nor ``expect`` is given."""
    label_sets: LabelSets | None = None
    """All labels of each image, where images may have several."""
    blocks: tuple[int, ...] = ()
    """How many consecutive images lie together where reading one fetches them all; empty: each is alone.
    The loader then shuffles the blocks, and the images inside some blocks at a time."""
    expect: Callable[[Int64[np.ndarray, " M"]], None] | None = None
    """Told which images will be read soon, in this order."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def labels_at(self, indices: Int[np.ndarray, " M"]) -> Int64[np.ndarray, "M ..."]:
        """Return the labels of some images: one each, or rows filled up with -1."""
        return self.labels[indices] if self.label_sets is None else self.label_sets.padded(indices)

    def class_counts(self) -> Int64[np.ndarray, " K"]:
        """Return how many images have each class."""
        labels = self.labels if self.label_sets is None else self.label_sets.values
        return np.bincount(labels, minlength=len(self.class_names))

    def subset(self, indices: Int[np.ndarray, " M"]) -> LabelledImages:
        """Return some of the images, in the order of ``indices``."""
        expect = self.expect
        return LabelledImages(
            class_names=self.class_names,
            labels=self.labels[indices],
            names=_Selection(self.names, indices),
            read=partial(_read_at, self.read, indices),
            label_sets=self.label_sets.subset(indices) if self.label_sets else None,
            blocks=self._blocks_of(indices),
            expect=(lambda soon: expect(indices[soon])) if expect else None,
        )

    def with_classes(self, class_names: tuple[str, ...]) -> LabelledImages:
        """Return the same images, with labels in the order of a network's classes.

        Raises:
            UserError: The network lacks a class that an image has.
        """
        index_of = {name: index for index, name in enumerate(class_names)}
        position = np.array([index_of.get(name, -1) for name in self.class_names], dtype=np.int64)
        lacking = np.flatnonzero((position < 0) & (self.class_counts() > 0))
        if len(lacking):
            name = self.class_names[lacking[0]]
            raise UserError(
                f"the images have class '{name}', which is none of the network's {len(class_names)} "
                f"classes{did_you_mean(name, class_names[:20])}"
            )
        return replace(
            self,
            class_names=class_names,
            labels=position[self.labels],
            label_sets=self.label_sets.renumbered(position) if self.label_sets else None,
        )

    def _blocks_of(self, indices: Int[np.ndarray, " M"]) -> tuple[int, ...]:
        if not self.blocks or (np.diff(indices) < 0).any():
            return ()
        ends = np.searchsorted(indices, np.cumsum(self.blocks))
        return tuple(int(count) for count in np.diff(ends, prepend=0) if count)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DataSplit:
    """Images to train on, and others of the same classes to validate on."""

    train: LabelledImages
    val: LabelledImages
    is_drawn: bool
    """Whether the data had no validation split, so that it was drawn from the training images."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the labels."""
        return self.train.class_names


def _read_at(read: Callable[[int], Encoded], indices: Int[np.ndarray, " M"], index: int) -> Encoded:
    return read(int(indices[index]))


class _Selection(Sequence[str]):
    """Some of the names, looked up when they are needed; there may be millions."""

    def __init__(self, names: Sequence[str], indices: Int[np.ndarray, " M"]) -> None:
        self._names, self._indices = names, indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return _Selection(self._names, self._indices[index])
        return self._names[int(self._indices[index])]
