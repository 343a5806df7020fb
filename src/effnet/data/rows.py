"""Images as a table has them, one a row, and how what it says of each becomes the number of a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from effnet.data.images import LabelledImages
from effnet.errors import UserError, did_you_mean


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rows:
    """The images of one split."""

    class_names: tuple[str, ...]
    """Of the labels 0, 1, ...; empty where the table does not say."""
    labels: pa.Array | pa.ChunkedArray
    """As stored: whole numbers or text, perhaps null."""
    names: Sequence[str]
    """What to call each image in messages."""
    read: Callable[[int], bytes]
    """Return an image's file, empty where the row holds none; raises OSError."""
    blocks: tuple[int, ...] = ()
    """As of `LabelledImages`."""


def number_classes(
    source: str, train: Rows, val: Rows | None
) -> tuple[LabelledImages, LabelledImages | None]:
    """Number the classes of both splits by those of the training split, in order.

    Args:
        source: What the user gave, for the message.
        train: Its labels are the classes, unless it has class names.
        val: Of the same classes.

    Raises:
        UserError: An image has no class, or one that the training images lack.
    """
    values: Sequence[int | str] = range(len(train.class_names))
    if not train.class_names:
        values = sorted(value for value in train.labels.unique().to_pylist() if value is not None)
    names = train.class_names or tuple(str(value) for value in values)
    index_of = {value: index for index, value in enumerate(values)}
    return (
        _numbered(source, train, names, index_of),
        _numbered(source, val, names, index_of) if val else None,
    )


def _numbered(
    source: str, rows: Rows, class_names: tuple[str, ...], index_of: dict[int | str, int]
) -> LabelledImages:
    column = pa.chunked_array([rows.labels]) if isinstance(rows.labels, pa.Array) else rows.labels
    encoded = column.combine_chunks().dictionary_encode()
    numbers = [index_of.get(value, -1) for value in encoded.dictionary.to_pylist()]
    no_value = len(numbers)
    labels = np.array([*numbers, -1], dtype=np.int64)[encoded.indices.fill_null(no_value).to_numpy()]
    if (labels < 0).any():
        row = int(np.argmax(labels < 0))
        label = column[row].as_py()
        raise UserError(
            f"'{source}' has class {label!r} in {rows.names[row]}, which is none of the {len(class_names)} "
            f"classes to train on{did_you_mean(str(label), class_names)}"
        )
    return LabelledImages(
        class_names=class_names, labels=labels, names=rows.names, read=rows.read, blocks=rows.blocks
    )
