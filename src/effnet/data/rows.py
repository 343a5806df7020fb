"""Images as a table has them, one a row, and how what it says of each becomes the number of a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from effnet.data.columns import is_list
from effnet.data.images import LabelledImages
from effnet.data.labels import without_repeats
from effnet.errors import UserError, did_you_mean


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rows:
    """The images of one split."""

    class_names: tuple[str, ...]
    """Of the labels 0, 1, ...; empty where the table does not say."""
    labels: pa.Array | pa.ChunkedArray
    """As stored: whole numbers or text, or lists of them; perhaps null."""
    names: Sequence[str]
    """What to call each image in messages."""
    read: Callable[[int], bytes]
    """Return an image's file, empty where the row holds none; raises OSError."""
    blocks: tuple[int, ...] = ()
    """As of `LabelledImages`."""
    expect: Callable[[Int64[np.ndarray, " M"]], None] | None = None
    """As of `LabelledImages`."""


def number_classes(
    source: str, train: Rows, val: Rows | None, class_names: tuple[str, ...] = ()
) -> tuple[LabelledImages, LabelledImages | None]:
    """Number the classes of both splits by those of the training split, in order.

    Images may have several labels where the labels of a split are lists.

    Args:
        source: What the user gave, for the message.
        train: Its labels are the classes, unless it has class names.
        val: Of the same classes.
        class_names: Of the labels 0, 1, ..., as the user gives them; they win.

    Raises:
        UserError: An image has no class, or one that the training images lack.
    """
    names = class_names or train.class_names
    flat = _values(train.labels)
    values: Sequence[int | str] = range(len(names))
    if not names:
        values = sorted(value for value in flat.unique().to_pylist() if value is not None)
        names = tuple(str(value) for value in values)
    elif not pa.types.is_integer(flat.type.value_type if pa.types.is_dictionary(flat.type) else flat.type):
        values = names
    index_of = {value: index for index, value in enumerate(values)}
    may_have_several = any(is_list(rows.labels.type) for rows in (train, val) if rows is not None)
    numbered = [
        _numbered(source, rows, names, index_of, may_have_several=may_have_several) if rows else None
        for rows in (train, val)
    ]
    assert numbered[0] is not None
    return numbered[0], numbered[1]


def _values(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return all labels of a column, those of lists one after the other."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.flatten() if is_list(array.type) else array


def _starts(column: pa.Array | pa.ChunkedArray) -> Int64[np.ndarray, " N_and_1"]:
    """Return where the labels of each row begin in `_values`, and where the last ones end."""
    if not is_list(column.type):
        return np.arange(len(column) + 1)
    counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _numbered(
    source: str,
    rows: Rows,
    class_names: tuple[str, ...],
    index_of: dict[int | str, int],
    *,
    may_have_several: bool,
) -> LabelledImages:
    values, starts = _values(rows.labels), _starts(rows.labels)
    encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    numbers = [index_of.get(value, -1) for value in encoded.dictionary.to_pylist()]
    no_value = len(numbers)
    labels = np.array([*numbers, -1], dtype=np.int64)[encoded.indices.fill_null(no_value).to_numpy()]
    if (labels < 0).any():
        place = int(np.argmax(labels < 0))
        row = int(np.searchsorted(starts, place, side="right")) - 1
        label = values[place].as_py()
        raise UserError(
            f"'{source}' has class {label!r} in {rows.names[row]}, which is none of the {len(class_names)} "
            f"classes to train on{did_you_mean(str(label), class_names)}"
        )
    if (np.diff(starts) == 0).any():
        row = int(np.argmax(np.diff(starts) == 0))
        raise UserError(f"'{source}' has no class in {rows.names[row]}; each image needs one or more")
    sets = without_repeats(starts, labels.astype(np.int32)) if may_have_several else None
    return LabelledImages(
        class_names=class_names,
        labels=sets.first if sets else labels,
        names=rows.names,
        read=rows.read,
        blocks=rows.blocks,
        expect=rows.expect,
        label_sets=sets,
    )
