"""Specs as readable JSON, and any of the validated dataclasses as plain data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from effnet.arch.external import TIMM, AnySpec, ExternalSpec
from effnet.arch.family import network
from effnet.arch.spec import NetworkSpec
from effnet.errors import UserError, explain

Validated = TypeVar("Validated")


def to_dict(value: object) -> dict[str, Any]:
    """Return a dataclass as what JSON can hold: dictionaries, lists, numbers, text, None."""
    data: dict[str, Any] = TypeAdapter(type(value)).dump_python(value, mode="json")
    return data


def from_dict(kind: type[Validated], data: object, where: str) -> Validated:
    """Validate plain data, such as JSON or TOML gives, as one of the package's dataclasses.

    Args:
        kind: ``NetworkSpec``, ``Preprocessing``, ``Config`` or a part of one.
        data: Every key must be known and every value in its range; keys left out take their defaults.
        where: Where the data came from, for the message.

    Raises:
        UserError: The data is not a valid ``kind``; the message names the key and what is allowed.
    """
    # pydantic's strict mode takes lists as tuples only when it reads JSON.
    text = json.dumps(data, default=str)
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        raise UserError(explain(error, kind, where)) from None


def spec_to_json(spec: NetworkSpec) -> str:
    """Write a network as JSON, one stage a line; equal specs give equal text."""
    return (
        "{\n" + ",\n".join(f'  "{key}": {_pretty(value)}' for key, value in to_dict(spec).items()) + "\n}\n"
    )


def _pretty(value: object) -> str:
    if isinstance(value, list):
        return "[\n" + ",\n".join(f"    {json.dumps(item)}" for item in value) + "\n  ]"
    return json.dumps(value)


def spec_from_json(text: str, where: str) -> NetworkSpec:
    """Read what `spec_to_json` wrote, or what a person wrote in its form.

    Args:
        text: One JSON object with the fields of `NetworkSpec`.
        where: Where the text came from, for the message.

    Raises:
        UserError: The text is not JSON, or not a valid network.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON: {error}") from None
    return from_dict(NetworkSpec, data, where)


def spec_from_dict(data: object, where: str) -> AnySpec:
    """Validate plain data as a network, with layers of its own or of another library.

    Raises:
        UserError: The data is no network; the message names the key and what is allowed.
    """
    if isinstance(data, dict) and "stages" not in data and str(data.get("name")).startswith(TIMM):
        return from_dict(ExternalSpec, data, where)
    return from_dict(NetworkSpec, data, where)


def load_spec(name_or_path: str) -> NetworkSpec:
    """Return a network of the family, or read one from a JSON file.

    Args:
        name_or_path: A name such as ``v2-s`` or ``v1-b4.fused1-3``, or a path that ends in ``.json``. A
            name wins over a file of the same name.

    Raises:
        UserError: There is no such network and no such file, or the file holds no valid network.
    """
    if name_or_path.startswith(TIMM):
        raise UserError(f"the layers of {name_or_path} are known to timm only; name an EfficientNet")
    if not name_or_path.endswith(".json"):
        try:
            return network(name_or_path)
        except UserError as error:
            raise UserError(f"{error} (or give the path of a .json file)") from None
    try:
        text = Path(name_or_path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the network {name_or_path}: {error}") from None
    return spec_from_json(text, name_or_path)
