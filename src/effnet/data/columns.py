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
    """Return what the hub's metadata says about each column; of a list, what it says of its elements."""
    metadata = (schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(metadata).get("info", {}).get("features", {})
    return {name: _of_one(feature) for name, feature in features.items() if _of_one(feature)}


def _of_one(feature: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON has
    """Return what is said about one value; the library has written lists in three ways."""
    if isinstance(feature, list) and len(feature) == 1:
        feature = feature[0]
    elif isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
        feature = feature["feature"]
    return feature if isinstance(feature, dict) else {}


def described_classes(features: Mapping[str, dict[str, Any]], label: str) -> tuple[str, ...]:
    """Return the names of the classes 0, 1, ... of a column; none where the metadata does not say."""
    return tuple(features.get(label, {}).get("names") or ())


def image_column(
    where: str, schema: pa.Schema, features: Mapping[str, dict[str, Any]], given: str = ""
) -> str:
    """Choose the column with the images.

    Args:
        where: Where the table is, for the message.
        schema: Of the table.
        features: What the hub's metadata says.
        given: The user's choice, if any.

    Raises:
        UserError: None of them, or more than one, fits; or the one that is given does not.
    """
    candidates = [field.name for field in schema if _holds_files(field.type)]
    if given:
        return _given(where, "image", given, candidates)
    said = [name for name in candidates if features.get(name, {}).get("_type") == "Image"]
    return _choose(where, "image", said, candidates, _IMAGE_COLUMNS)


def label_column(
    where: str, schema: pa.Schema, features: Mapping[str, dict[str, Any]], given: str = ""
) -> str:
    """Choose the column with the classes.

    One with lists of them is chosen by what is said of it or by its name, or where no other column can have
    classes.

    Args:
        where: Where the table is, for the message.
        schema: Of the table.
        features: What the hub's metadata says.
        given: The user's choice, if any.

    Raises:
        UserError: None of them, or more than one, fits; or the one that is given does not.
    """
    single = [field.name for field in schema if _holds_classes(field.type)]
    lists = [field.name for field in schema if is_list(field.type) and _holds_classes(field.type.value_type)]
    if given:
        return _given(where, "label", given, single + lists)
    said = [name for name in single + lists if features.get(name, {}).get("_type") == "ClassLabel"]
    named = [name for name in lists if name in _LABEL_COLUMNS]
    return _choose(where, "label", said, single + named if single else lists, _LABEL_COLUMNS)


def is_list(kind: pa.DataType) -> bool:
    """Whether a column has several values in a row."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


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


def _given(where: str, what: str, given: str, candidates: list[str]) -> str:
    if given in candidates:
        return given
    listed = ", ".join(candidates) or "none of a fitting type"
    raise UserError(
        f"data.{what}_column is '{given}', but '{where}' has no such column of a fitting type; it has: "
        f"{listed}"
    )


def _choose(where: str, what: str, said: list[str], candidates: list[str], usual: tuple[str, ...]) -> str:
    usual_candidates = [name for name in usual if name in (said or candidates)]
    for choice in (usual_candidates[:1], said, candidates):
        if len(choice) == 1:
            return choice[0]
    article = "an" if what == "image" else "a"
    listed = ", ".join(candidates) or "none of a fitting type"
    advice = f"; choose one with data.{what}_column" if len(candidates) > 1 else ""
    raise UserError(
        f"'{where}' needs one column '{usual[0]}' with {article} {what} in each row; it has: {listed}{advice}"
    )
