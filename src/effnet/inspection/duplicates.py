"""Images that a data set has more than once: the same file, or a changed copy of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from effnet.inspection.neighbours import find_neighbours
from effnet.inspection.survey import Survey


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicates:
    """Images that show the same: each is a copy of another one of them."""

    images: tuple[int, ...]
    """In the order of the data, training images first."""
    is_identical: bool
    """Whether all are the same file, byte for byte."""
    has_mirrored: bool
    """Whether some are known as copies only by their mirror images."""
    is_leak: bool
    """Whether some are to train on and others to validate on."""
    is_conflict: bool
    """Whether they are of different classes."""


def find_duplicates(found: Survey, *, workers: int = 0) -> tuple[Duplicates, ...]:
    """Find all images that are there more than once, in whatever split and class.

    Args:
        found: What is known of the images.
        workers: Threads; 0: one for each processor.

    Returns:
        Sets of two or more images without an image in common, in the order of their first images.
    """
    readable = np.flatnonzero(found.is_readable)
    files = np.ascontiguousarray(found.digests[readable]).view("S32").reshape(-1)
    same_file, content = _equal(readable, files)

    distinct = readable[np.unique(content, return_index=True)[1]]
    distinct = distinct[found.is_comparable[distinct]]
    same_hash, _ = _equal(distinct, np.ascontiguousarray(found.hashes[distinct]).view("S32").reshape(-1))

    unlike = distinct[~np.isin(distinct, same_hash[:, 1])]
    near = find_neighbours(found.hashes[unlike], workers=workers)
    mirrored = unlike[near[near[:, 2] == 1, :2]]
    links = np.concatenate([same_file, same_hash, unlike[near[:, :2]]])

    is_mirrored = np.zeros(len(found), bool)
    is_mirrored[mirrored] = True
    content_of = np.full(len(found), -1)
    content_of[readable] = content
    is_val = found.is_val
    return tuple(
        Duplicates(
            images=tuple(images.tolist()),
            is_identical=len(np.unique(content_of[images])) == 1,
            has_mirrored=bool(is_mirrored[images].any()),
            is_leak=len(np.unique(is_val[images])) > 1,
            is_conflict=len(np.unique(found.labels[images])) > 1,
        )
        for images in _connected(links, len(found))
    )


def _equal(
    images: Int64[np.ndarray, " M"], values: np.ndarray
) -> tuple[Int64[np.ndarray, "L 2"], Int64[np.ndarray, " M"]]:
    """Link each image to the first one of the same value; also return the values' numbers."""
    _, firsts, numbers = np.unique(values, return_index=True, return_inverse=True)
    links = np.stack([images[firsts[numbers]], images], axis=1)
    return links[links[:, 0] != links[:, 1]], numbers


def _connected(links: Int64[np.ndarray, "L 2"], images: int) -> list[Int64[np.ndarray, " M"]]:
    """Return the sets of images that hang together, in the order of their first images."""
    graph = coo_array((np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(images, images))
    _, parts = connected_components(graph.tocsr(), directed=False)
    linked = np.unique(links)
    order = linked[np.argsort(parts[linked], kind="stable")]
    borders = np.flatnonzero(np.diff(parts[order])) + 1
    return sorted(np.split(order, borders), key=lambda some: int(some[0])) if len(order) else []
