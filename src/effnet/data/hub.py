"""Data sets of the Hugging Face hub, through its own library.

They are downloaded once and then mapped from its cache, or streamed, see `effnet.data.streaming`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from effnet.data.columns import (
    described_classes,
    described_features,
    image_bytes,
    image_column,
    label_column,
)
from effnet.data.fetching import RemoteFolder
from effnet.data.images import LabelledImages
from effnet.data.names import RowNames
from effnet.data.reading import read_file
from effnet.data.rows import Rows, number_classes
from effnet.data.selection import ALL, Selection
from effnet.data.streaming import read_streamed
from effnet.errors import UserError

if TYPE_CHECKING:
    from datasets import DatasetDict

HUB = "hf:"
"""What the names of such data sets begin with."""

_NAME = re.compile(r"(?P<name>[^@:]+)(?:@(?P<revision>[^@:]+))?(?::(?P<config>[^@:]+))?")


def open_hub_data(source: str, selection: Selection = ALL) -> tuple[LabelledImages, LabelledImages | None]:
    """Open the training images and, where there are any, those to validate on.

    Columns are chosen as in parquet files, see `effnet.data.columns`. Images stay encoded.

    Args:
        source: ``hf:NAME``, ``hf:NAME@REVISION``, ``hf:NAME:CONFIG`` or ``hf:NAME@REVISION:CONFIG``, where
            the name is one of the hub, as ``uoft-cs/cifar10``, or a folder.
        selection: Which splits and columns to use, and whether to download them.

    Raises:
        UserError: There is no such data set, it cannot be reached, or it has no images and classes, or not
            the splits or columns that are chosen.
    """
    if selection.streaming:
        return _open_streamed(source, selection)
    splits: DatasetDict = _called("load_dataset", source)
    train, val = selection.splits(source, splits)
    return number_classes(
        source,
        _rows(source, splits, train, selection),
        _rows(source, splits, val, selection) if val else None,
        selection.names_of_classes(),
    )


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


def _called(function: Literal["load_dataset", "load_dataset_builder"], source: str) -> Any:  # noqa: ANN401
    """Return what a function of the library returns for a name."""
    name, revision, config = _parse(source)
    try:
        import datasets  # noqa: PLC0415 - of the extra `hf`, and a second to import
    except ImportError:
        raise UserError(f"to read '{source}' a package is missing: pip install 'effnet[hf]'") from None
    path = Path(name).expanduser()
    try:
        return getattr(datasets, function)(str(path) if path.is_dir() else name, config, revision=revision)
    except Exception as error:  # The library raises dozens of types, from as many others.
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(f"cannot open '{source}': {reason}") from error


def _open_streamed(source: str, selection: Selection) -> tuple[LabelledImages, LabelledImages | None]:
    """Open a data set without downloading it; its library says which files each split has."""
    builder = _called("load_dataset_builder", source)
    from datasets.packaged_modules.parquet.parquet import Parquet  # noqa: PLC0415 - see `_called`

    if not isinstance(builder, Parquet):
        raise UserError(
            f"'{source}' cannot be streamed, for its files are no parquet files; leave data.streaming false"
        )
    splits = {str(split): list(files) for split, files in builder.config.data_files.items()}
    train, val = selection.splits(source, splits)
    root = _common_folder(list(chain.from_iterable(splits.values())))
    folder = RemoteFolder(root)
    features = builder.info.features and described_features(builder.info.features.arrow_schema)

    def rows(names: Sequence[str]) -> Rows:
        files = [file.removeprefix(f"{root}/") for name in names for file in splits[name]]
        return read_streamed(folder, files, selection, features=features)

    return number_classes(source, rows(train), rows(val) if val else None, selection.names_of_classes())


def _common_folder(addresses: list[str]) -> str:
    parts = zip(*(address.split("/")[:-1] for address in addresses), strict=False)
    return "/".join(names[0] for names in takewhile(lambda names: len(set(names)) == 1, parts))


def _rows(source: str, splits: DatasetDict, names: Sequence[str], selection: Selection) -> Rows:
    # The library's own indexing takes much longer than Arrow's: it makes Python objects of whole rows.
    tables: list[pa.Table] = [splits[name].data.table for name in names]
    schema = splits[names[0]].features.arrow_schema
    features = described_features(schema)
    image = image_column(source, schema, features, selection.image_column)
    label = label_column(source, schema, features, selection.label_column)
    try:
        table = pa.concat_tables(each.select([image, label]).replace_schema_metadata() for each in tables)
    except (pa.ArrowException, KeyError) as error:
        raise UserError(f"the splits {', '.join(names)} of '{source}' have other columns: {error}") from None
    images = table.column(image)
    files = image_bytes(images)
    paths = pc.struct_field(images, "path") if pa.types.is_struct(images.type) else None

    def read(row: int) -> bytes:
        content: bytes | None = files[row].as_py()
        path = paths[row].as_py() if content is None and paths is not None else None
        return read_file(path) if path else content or b""

    return Rows(
        class_names=described_classes(features, label),
        labels=table.column(label),
        names=RowNames(names, [len(each) for each in tables]),
        read=read,
    )
