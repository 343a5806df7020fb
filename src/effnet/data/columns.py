"""Which columns of a table hold images and classes, by the Hugging Face hub's metadata or by their names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from effnet.errors import UserError

_IMAGE_COLUMNS = ("image", "img")
_LABEL_COLUMNS = ("label", "labels", "class", "fine_label")


def described_features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Return what the hub's metadata says about each column."""
    metadata = (schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(metadata).get("info", {}).get("features", {})
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def described_classes(features: Mapping[str, dict[str, Any]], label: str) -> tuple[str, ...]:
    """Return the names of the classes 0, 1, ... of a column; none where the metadata does not say."""
    return tuple(features.get(label, {}).get("names") or ())


def image_column(where: str, schema: pa.Schema, features: Mapping[str, dict[str, Any]]) -> str:
    """Choose the column with the images.

    Raises:
        UserError: None of them, or more than one, fits.
    """
    candidates = [field.name for field in schema if _holds_files(field.type)]
    said = [name for name in candidates if features.get(name, {}).get("_type") == "Image"]
    return _choose(where, "image", said, candidates, _IMAGE_COLUMNS)


def label_column(where: str, schema: pa.Schema, features: Mapping[str, dict[str, Any]]) -> str:
    """Choose the column with the classes.

    Raises:
        UserError: None of them, or more than one, fits.
    """
    candidates = [field.name for field in schema if _holds_classes(field.type)]
    said = [name for name in candidates if features.get(name, {}).get("_type") == "ClassLabel"]
    return _choose(where, "label", said, candidates, _LABEL_COLUMNS)


def image_bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the files in a column of images."""
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


def _holds_files(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _holds_classes(kind: pa.DataType) -> bool:
    checks: tuple[Callable[[pa.DataType], bool], ...]
    checks = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)
    return any(check(kind) for check in checks)


def _choose(where: str, what: str, said: list[str], candidates: list[str], usual: tuple[str, ...]) -> str:
    usual_candidates = [name for name in usual if name in (said or candidates)]
    for choice in (usual_candidates[:1], said, candidates):
        if len(choice) == 1:
            return choice[0]
    article = "an" if what == "image" else "a"
    listed = ", ".join(candidates) or "none of a fitting type"
    raise UserError(
        f"'{where}' needs one column '{usual[0]}' with {article} {what} in each row; it has: {listed}"
    )
