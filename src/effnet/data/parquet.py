"""Images in parquet files as the Hugging Face hub has them; the files' bytes stay in Arrow's buffers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from effnet.errors import UserError

_IMAGE_COLUMNS = ("image", "img")
_LABEL_COLUMNS = ("label", "labels", "class", "fine_label")


@dataclass(frozen=True, kw_only=True, slots=True)
class ParquetTable:
    """The images of one split."""

    class_names: tuple[str, ...]
    """Of the labels 0, 1, ...; empty where the files do not say."""
    labels: Sequence[int | str | None]
    """As stored."""
    names: tuple[str, ...]
    """File and row of each image."""
    read: Callable[[int], bytes]
    """Return an image's file; empty where the row holds none."""


def read_parquet(files: Sequence[Path]) -> ParquetTable:
    """Read the image and label columns of parquet files, all of which have the same columns.

    The image column is the one that the hub's metadata or its name says, else the only one of binary
    values or of structs with ``bytes``; the label column likewise, of integers or strings. All encoded
    images are held in memory.

    Raises:
        UserError: A file cannot be read, or has no such columns.
    """
    try:
        schema = pq.read_schema(files[0])
        features = _features(schema)
        image_column = _image_column(files[0], schema, features)
        label_column = _label_column(files[0], schema, features)
        tables = [pq.read_table(file, columns=[image_column, label_column]) for file in files]
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(f"cannot read '{files[0].parent}': {error}") from error
    table = pa.concat_tables(table.replace_schema_metadata() for table in tables)
    images = table.column(image_column)
    if pa.types.is_struct(images.type):
        images = pc.struct_field(images, "bytes")
    return ParquetTable(
        class_names=tuple(features.get(label_column, {}).get("names", ())),
        labels=table.column(label_column).to_pylist(),
        names=tuple(
            f"{file.name}[{row}]"
            for file, part in zip(files, tables, strict=True)
            for row in range(len(part))
        ),
        read=lambda index: images[index].as_py() or b"",
    )


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Return what the hub's metadata says about each column."""
    metadata = (schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(metadata).get("info", {}).get("features", {})
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def _image_column(file: Path, schema: pa.Schema, features: dict[str, dict[str, Any]]) -> str:
    def holds_files(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return bool(kind.get_field_index("bytes") >= 0)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    candidates = [field.name for field in schema if holds_files(field.type)]
    said = [name for name in candidates if features.get(name, {}).get("_type") == "Image"]
    return _choose(file, "image", said, candidates, _IMAGE_COLUMNS)


def _label_column(file: Path, schema: pa.Schema, features: dict[str, dict[str, Any]]) -> str:
    def holds_classes(kind: pa.DataType) -> bool:
        checks = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)
        return any(check(kind) for check in checks)

    candidates = [field.name for field in schema if holds_classes(field.type)]
    said = [name for name in candidates if features.get(name, {}).get("_type") == "ClassLabel"]
    return _choose(file, "label", said, candidates, _LABEL_COLUMNS)


def _choose(file: Path, what: str, said: list[str], candidates: list[str], usual: tuple[str, ...]) -> str:
    usual_candidates = [name for name in usual if name in (said or candidates)]
    for choice in (usual_candidates[:1], said, candidates):
        if len(choice) == 1:
            return choice[0]
    article = "an" if what == "image" else "a"
    listed = ", ".join(candidates) or "none of a fitting type"
    raise UserError(
        f"'{file}' needs one column '{usual[0]}' with {article} {what} in each row; it has: {listed}"
    )
