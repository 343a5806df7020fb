"""safetensors files that are either whole or not there.

All metadata is one JSON document under one key, so that equal contents are equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from effnet.files import whole_file

METADATA_KEY = "effnet"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a file under a temporary name, flush it to the disk, and only then give it its name.

    Args:
        path: Where the file will be; its folder must exist. A file of that name is replaced.
        tensors: Under their names, on any device.
        metadata: What JSON can hold.

    Raises:
        OSError: The disk is full or cannot be written; a file that was there before is unharmed.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with whole_file(path) as temporary:
            save_file(contiguous, temporary, metadata={METADATA_KEY: json.dumps(metadata, sort_keys=True)})
            # safetensors makes files that only their owner can read; path.parent is what people share.
            temporary.chmod(path.parent.stat().st_mode & 0o666)
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error


def read_tensors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Read the tensors whose names begin with ``prefix``, under their names without it.

    Raises:
        OSError: The file is not there, or it is not a whole safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {
                name.removeprefix(prefix): file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118 - a safetensors file is no mapping
                if name.startswith(prefix)
            }
    except SafetensorError as error:
        raise OSError(f"{path} is not a whole safetensors file: {error}") from error


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the JSON document that `write_tensors` stored; empty for files of others.

    Raises:
        OSError: The file is not there, or it is not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise OSError(f"{path} is not a whole safetensors file: {error}") from error
    return json.loads(metadata.get(METADATA_KEY, "{}"))


def contents_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a file holds: names, shapes, kinds and bytes of tensors, and the metadata.

    Args:
        tensors: Under their names, in the processor's memory, contiguous.
        metadata: What JSON can hold.
    """
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        # A view: NumPy has no bfloat16, and the interpreter's lock is free while the bytes are digested.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
