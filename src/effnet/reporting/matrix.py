"""A confusion matrix on the page: a table where its numbers can be read, else a picture.

Dimension key: K classes, P side of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64, UInt8

from effnet.reporting.pictures import data_uri

MOST_IN_TABLE = 20
"""Classes up to which the matrix is a table."""
_PICTURE_PX = 480
_RIGHT, _WRONG = (0, 114, 178), (213, 94, 0)
"""RGB of the diagonal and of all beside it; they can be told apart by all people, on light and dark."""
_FAINTEST, _STRONGEST = 8, 50
"""Percent of colour behind a number: that it is seen, and that the number can be read. Mistakes are few, so
that the most frequent one has the strongest orange."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """How many images of a class got an answer."""

    images: int
    is_right: bool
    strength: int
    """Percent of colour behind the number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """What the page shows; true classes are rows, answers are columns."""

    class_names: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    """Empty where it is a picture."""
    picture: str
    """A data URI; empty where it is a table."""


def matrix_of(counts: Int64[np.ndarray, "K K"], class_names: Sequence[str]) -> Matrix:
    """Lay out a confusion matrix.

    Args:
        counts: Images of each class (rows) by answer (columns).
        class_names: In the same order.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    if len(class_names) > MOST_IN_TABLE:
        return Matrix(class_names=tuple(class_names), rows=(), picture=data_uri(_picture(shares), "PNG"))
    wrong = shares * (1 - np.eye(len(shares)))
    strengths = _FAINTEST + (_STRONGEST - _FAINTEST) * np.where(
        np.eye(len(shares), dtype=bool), shares, wrong / (wrong.max() or 1.0)
    )
    rows = tuple(
        tuple(
            Cell(images=int(images), is_right=label == answer, strength=round(strengths[label, answer]))
            for answer, images in enumerate(row)
        )
        for label, row in enumerate(counts)
    )
    return Matrix(class_names=tuple(class_names), rows=rows, picture="")


def _picture(shares: Float[np.ndarray, "K K"]) -> UInt8[np.ndarray, "P P 4"]:
    """Draw a pixel a cell, or the largest share of some cells; transparent where there is nothing."""
    right = _pooled(shares * np.eye(len(shares)))
    wrong = _pooled(shares * (1 - np.eye(len(shares))))
    picture = np.empty((*right.shape, 4), np.uint8)
    picture[..., :3] = np.where((right > 0)[..., None], _RIGHT, _WRONG)
    picture[..., 3] = np.rint(255 * np.sqrt(np.maximum(right, wrong)))
    factor = max(_PICTURE_PX // len(picture), 1)
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def _pooled(shares: Float[np.ndarray, "K K"]) -> Float[np.ndarray, "P P"]:
    together = -(-len(shares) // _PICTURE_PX)
    short = -len(shares) % together
    padded = np.pad(shares, ((0, short), (0, short)))
    side = len(padded) // together
    return padded.reshape(side, together, side, together).max((1, 3))
