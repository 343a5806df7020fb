"""Which images are to train on, and which are to validate on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, UInt64

from effnet.data.images import LabelledImages
from effnet.data.selection import ALL, VAL_NAMES, Selection
from effnet.errors import UserError

_HASHED_AT_A_TIME = 1 << 16


def split_files(
    source: str, files: Sequence[Path], selection: Selection = ALL
) -> tuple[list[Path], list[Path]]:
    """Sort files into training and validation by a word of their names.

    Files without such a word are all to train on, if none of the others are. To who chooses splits by name,
    they are splits as well: ``extra-0.tar`` and ``extra-1.tar`` are the split ``extra``.

    Args:
        source: What the user gave, for the message.
        files: With names such as ``train-00000-of-00001.parquet`` or ``flowers-validation-03.tar``.
        selection: Which splits to use.

    Raises:
        UserError: There are files to validate on, but none to train on; or a split that is
            named is not there.
    """
    by_split: dict[str, list[Path]] = {}
    for file in files:
        words = re.split(r"[-_.]", file.stem)
        other = "-".join(word for word in words if not word.isdecimal() and word != "of")
        split = next((word for word in words if word in ("train", *VAL_NAMES)), "")
        by_split.setdefault(split or (other if selection.has_splits else ""), []).append(file)
    if selection.has_splits:
        train_names, val_names = selection.splits(source, by_split)
        return [file for name in train_names for file in by_split[name]], [
            file for name in val_names for file in by_split[name]
        ]
    val = next((by_split[name] for name in VAL_NAMES if name in by_split), [])
    train = by_split.get("train", [] if val else by_split.get("", []))
    if not train:
        kind = files[0].suffix
        raise UserError(
            f"'{source}' has {kind[1:]} files to validate on ({val[0].name}) but none to train on, such as "
            f"train-00000-of-00001{kind}"
        )
    return train, val


def stratified_split(images: LabelledImages, *, val_fraction: float, seed: int) -> Bool[np.ndarray, " N"]:
    """Return a mask of the images to hold out: of each class the share, at least one, but not all.

    Where images have several labels, the first one counts, and what a single image has is trained on.

    An image's place in the draw is a hash of its name and the seed, so that the split depends neither on
    the order of the files nor on where the folder lies, and images that are added later move few others.

    Raises:
        UserError: A class has a single image.
    """
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    if images.label_sets is None and (counts == 1).any():
        label = int(np.argmax(counts == 1))
        name = images.names[int(np.argmax(images.labels == label))]
        raise UserError(
            f"class '{images.class_names[label]}' has a single image, {name}; it needs two, one to train on "
            "and one to validate on, or the data a validation split of its own"
        )
    held_out_counts = np.minimum(np.maximum(np.rint(val_fraction * counts), 1), counts - 1)
    return _drawn(images, held_out_counts, seed)


def stratified_subset(images: LabelledImages, count: int, *, seed: int) -> LabelledImages:
    """Return about ``count`` of the images: of each class its share, at least one; all where there are fewer.

    The draw is that of `stratified_split`, and a larger subset holds the smaller ones.
    """
    if count >= len(images):
        return images
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    wanted = np.minimum(np.maximum(np.rint(count / len(images) * counts), 1), counts)
    return images.subset(np.flatnonzero(_drawn(images, wanted, seed)))


def _drawn(images: LabelledImages, wanted: Float64[np.ndarray, " K"], seed: int) -> Bool[np.ndarray, " N"]:
    """Return a mask of as many images of each class as are wanted."""
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    by_class = np.lexsort((_hashes(images.names, seed), images.labels))
    place_in_class = np.arange(len(images)) - np.repeat(np.cumsum(counts) - counts, counts)
    drawn = np.zeros(len(images), dtype=bool)
    drawn[by_class[place_in_class < np.repeat(wanted, counts)]] = True
    return drawn


def _hashes(names: Sequence[str], seed: int) -> UInt64[np.ndarray, " N"]:
    hashes = np.empty(len(names), np.uint64)
    for start in range(0, len(names), _HASHED_AT_A_TIME):
        part = names[start : start + _HASHED_AT_A_TIME]
        digests = b"".join(hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in part)
        hashes[start : start + len(part)] = np.frombuffer(digests, ">u8")[::4]  # Of 32 bytes, the first 8.
    return hashes
