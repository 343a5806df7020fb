"""Exported files and measured figures of a network, kept in the cache for the next start.

A file counts only where it is what was written, by its digest, and what wrote it is what would write it now.
All of it is in `cache_folder`, where the oldest files go first when there is no room; it can be removed at
any time.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from effnet.arch.io import from_dict, to_dict
from effnet.data.cache import cache_folder, make_room, use_cached
from effnet.engines.figures import EAGER, Figures
from effnet.errors import UserError
from effnet.files import write_json
from effnet.nn import Network

FOREVER = -1.0
"""To wait, as filelock has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What came of measuring the engines."""

    figures: Mapping[str, Figures]
    """By the engines' names; `EAGER` among them."""
    refused: Mapping[str, str]
    """Engines that cannot be used, and why, as a clause."""
    measured: str
    """The day, as ISO 8601."""


class KeptEngines:
    """What is kept of one network at one size of the images.

    Args:
        folder: Where it is, or will be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has_file(self, name: str, about: Mapping[str, Any]) -> bool:
        """Tell whether there is an engine's file, whole, unchanged and made by the same packages.

        Args:
            name: Of the engine.
            about: What made it.
        """
        kept = _read(self._document(name))
        if kept is None or kept.get("about") != _as_json(about) or not isinstance(kept.get("files"), dict):
            return False
        if not kept["files"]:
            return False
        for file, digest in kept["files"].items():
            path = self.folder / Path(file).name
            try:
                if _digest(path) != digest:
                    return False
            except OSError:
                return False
            use_cached(path)
        return True

    def keep_file(self, name: str, about: Mapping[str, Any], staged: Path) -> None:
        """Move an engine's files to where they are found, and say what they are.

        Args:
            name: Of the engine.
            about: What made it.
            staged: A folder with the files, on the same disk.

        Raises:
            OSError: The disk is full or cannot be written.
        """
        files = sorted(staged.iterdir())
        make_room(sum(file.stat().st_size for file in files))
        digests = {file.name: _digest(file) for file in files}
        for file in files:
            file.replace(self.folder / file.name)
        write_json(self._document(name), {"about": dict(about), "files": digests})

    def find_measured(self, about: Mapping[str, Any]) -> Measured | None:
        """Return what was measured here with the same packages; None: nothing, or it cannot be read."""
        kept = _read(self._measured(about))
        if kept is None or kept.get("about") != _as_json(about):
            return None
        try:
            figures = {
                str(name): from_dict(Figures, values, "the cache") for name, values in kept["figures"].items()
            }
            refused = {str(name): str(reason) for name, reason in kept["refused"].items()}
        except (UserError, AttributeError, LookupError, TypeError):
            return None
        if EAGER not in figures:
            return None
        return Measured(figures=figures, refused=refused, measured=str(kept.get("measured")))

    def keep_measured(self, about: Mapping[str, Any], found: Measured) -> None:
        """Keep what was measured.

        Raises:
            OSError: The disk is full or cannot be written.
        """
        document = {
            "about": dict(about),
            "figures": {name: to_dict(each) for name, each in found.figures.items()},
            "refused": dict(found.refused),
            "measured": found.measured,
        }
        write_json(self._measured(about), document)

    def _document(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _measured(self, about: Mapping[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        return self.folder / f"measured-{digest[:16]}.json"


@contextmanager
def kept_engines(network: Network, image_size: int, *, wait_s: float = FOREVER) -> Iterator[KeptEngines]:
    """Yield what is kept of a network; one process has it at a time, so that no two write it.

    Where the cache cannot be written, or another process has it for longer than one waits, the folder is a
    temporary one, and nothing is kept.

    Args:
        network: Its spec and its weights count.
        image_size: Side of the images in pixels.
        wait_s: Seconds to wait for another process.
    """
    folder = cache_folder() / "engines" / f"{network_digest(network)[:24]}-{image_size}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=wait_s)
    except OSError:  # Its Timeout is one, too.
        with tempfile.TemporaryDirectory(prefix="effnet-engines-") as temporary:
            yield KeptEngines(Path(temporary))
        return
    try:
        yield KeptEngines(folder)
    finally:
        lock.release()


def network_digest(network: Network) -> str:
    """Return what tells a network with its weights from another one, wherever they are."""
    spec = json.dumps(to_dict(network.spec), sort_keys=True)
    return hashlib.sha256(f"{spec}\0{weights_digest(network)}".encode()).hexdigest()


def weights_digest(model: nn.Module) -> str:
    """Return what tells the weights of a module from others, wherever they are."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _as_json(about: Mapping[str, Any]) -> Any:  # noqa: ANN401 - whatever JSON can hold
    return json.loads(json.dumps(about))
