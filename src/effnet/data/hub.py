"""Data sets of the Hugging Face hub, through its own library: downloaded once, then mapped from its cache."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from effnet.data.columns import (
    described_classes,
    described_features,
    image_bytes,
    image_column,
    label_column,
)
from effnet.data.images import LabelledImages
from effnet.data.names import RowNames
from effnet.data.reading import read_file
from effnet.data.rows import Rows, number_classes
from effnet.data.splits import VAL_NAMES
from effnet.errors import UserError

if TYPE_CHECKING:
    from datasets import DatasetDict

HUB = "hf:"
"""What the names of such data sets begin with."""

_NAME = re.compile(r"(?P<name>[^@:]+)(?:@(?P<revision>[^@:]+))?(?::(?P<config>[^@:]+))?")


def open_hub_data(source: str) -> tuple[LabelledImages, LabelledImages | None]:
    """Open the training images and, where there are any, those to validate on.

    Columns are chosen as in parquet files, see `effnet.data.columns`. Images stay encoded.

    Args:
        source: ``hf:NAME``, ``hf:NAME@REVISION``, ``hf:NAME:CONFIG`` or ``hf:NAME@REVISION:CONFIG``, where
            the name is one of the hub, as ``uoft-cs/cifar10``, or a folder.

    Raises:
        UserError: There is no such data set, it cannot be reached, or it has no images and classes.
    """
    splits = _load(source)
    if "train" not in splits:
        raise UserError(f"'{source}' has no split 'train' to train on; it has: {', '.join(splits)}")
    val = next((name for name in VAL_NAMES if name in splits), None)
    return number_classes(source, _rows(source, splits, "train"), _rows(source, splits, val) if val else None)


def absolute_hub_name(source: str) -> str:
    """Return what names the same data from any working folder."""
    name, _, _ = _parse(source)
    path = Path(name).expanduser()
    return source.replace(name, str(path.resolve()), 1) if path.is_dir() else source


def _parse(source: str) -> tuple[str, str | None, str | None]:
    """Return name, revision and configuration."""
    name = source.removeprefix(HUB)
    if name and Path(name).expanduser().is_dir():
        return name, None, None
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(f"'{source}' is no name of the form hf:NAME, hf:NAME@REVISION or hf:NAME:CONFIG")
    return match["name"], match["revision"], match["config"]


def _load(source: str) -> DatasetDict:
    name, revision, config = _parse(source)
    try:
        from datasets import load_dataset  # noqa: PLC0415 - of the extra `hf`, and a second to import
    except ImportError:
        raise UserError(f"to read '{source}' a package is missing: pip install 'effnet[hf]'") from None
    path = Path(name).expanduser()
    try:
        return load_dataset(str(path) if path.is_dir() else name, config, revision=revision)
    except Exception as error:  # The library raises dozens of types, from as many others.
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(f"cannot open '{source}': {reason}") from error


def _rows(source: str, splits: DatasetDict, split: str) -> Rows:
    # The library's own indexing takes much longer than Arrow's: it makes Python objects of whole rows.
    table: pa.Table = splits[split].data.table
    schema = splits[split].features.arrow_schema
    features = described_features(schema)
    images = table.column(image_column(source, schema, features))
    label = label_column(source, schema, features)
    files = image_bytes(images)
    paths = pc.struct_field(images, "path") if pa.types.is_struct(images.type) else None

    def read(row: int) -> bytes:
        content: bytes | None = files[row].as_py()
        path = paths[row].as_py() if content is None and paths is not None else None
        return read_file(path) if path else content or b""

    return Rows(
        class_names=described_classes(features, label),
        labels=table.column(label),
        names=RowNames([split], [len(table)]),
        read=read,
    )
