"""Whether a ``.pt2`` archive holds nothing but tensors and operations on them.

`torch.export.load` (2.13) unpickles what an archive tells it to: tensors marked ``use_pickle``, custom and
opaque objects, sample inputs that are no tensors. It loads the shared objects of compiled programs, and it
evaluates expressions about sizes as Python. So an archive is read here first, by means that run nothing, and
must be of the plain kind that ``effnet export`` writes.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from effnet.errors import UserError

_MEMBERS = re.compile(
    r"[^/]+/(?:archive_format|archive_version|byteorder|\.data/(?:version|serialization_id|\w+)|extra/effnet\.json"
    r"|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/(?:weights/(?:weight_\d+|model_weights_config\.json)"
    r"|constants/(?:tensor_\d+|model_constants_config\.json)))"
)
_TARGETS = re.compile(
    r"torch\.ops\.aten\.(?!from_file)\w+\.\w+|_operator\.\w+|torch\.sym_(?:max|min|not|float)"
)
_EXPRESSION = re.compile(
    r"(?:Symbol\('\w+'|(?:positive|integer|nonnegative)=True|(?:Add|Mul|Max|Min|Pow|Mod|PythonMod|FloorDiv"
    r"|CleanDiv|Integer|Rational)\(|[su]\d+|int_oo|oo|\d+|[-+*/%(), ])*"
)
_GUARD = re.compile(
    r"(?:L\['\w+'\](?:\.size\(\)\[\d+\])?|(?:max|min)\(|and\b|or\b|not\b|\d+|[-+*/%(),<>=! ])*"
)
_TREE = re.compile(
    r'(?:[\[\]{},:\s\d]|"(?:type|context|children_spec|null|\[\]|builtins\.(?:tuple|list|dict))"|null)*'
)
_ALLOWED = {
    "use_pickle": re.compile("False"),
    "target": _TARGETS,
    "expr_str": _EXPRESSION,
    "guards_code": _GUARD,
    "in_spec": _TREE,
    "out_spec": _TREE,
    "metadata": re.compile(""),
}
"""What may stand under a key, as text."""


def vet(path: Path) -> None:
    """Read an archive without running anything in it.

    Raises:
        UserError: It is no archive, or holds something that could run code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive, path)
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is no .pt2 file that can be run: {error}") from None


def _check(archive: zipfile.ZipFile, path: Path) -> None:
    names = archive.namelist()
    if strange := [name for name in names if not _MEMBERS.fullmatch(name)]:
        raise _refusal(path, f"the member '{strange[0]}'")
    if len({name.partition("/")[0] for name in names}) != 1 or len(set(names)) != len(names):
        raise _refusal(path, "two programs")
    for name in names:
        if name.endswith(".json") and "/extra/" not in name:
            _check_document(json.loads(archive.read(name)), path)
        elif name.endswith("model.pt"):
            _check_samples(archive.read(name), path)


def _check_document(document: object, path: Path) -> None:
    for key, value in _leaves(document):
        pattern = _ALLOWED.get(key.partition("/")[0])
        if pattern is not None and not pattern.fullmatch("" if value is None else str(value)):
            raise _refusal(path, f"{key} '{value}'")


def _leaves(value: object, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what a document holds, each under the nearest key; of ``metadata`` under both."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{key}/{name}" if key == "metadata" else name)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, key)
    else:
        yield key, value


def _check_samples(data: bytes, path: Path) -> None:
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        raise _refusal(path, "sample inputs that are no tensors") from None


def _refusal(path: Path, what: str) -> UserError:
    return UserError(f"{path} holds {what}, which effnet export does not write and which could run code")
