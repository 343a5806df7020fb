"""Image files in folders, found one after another, so that a folder of any size needs little memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from effnet.errors import UserError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)


def is_image_name(name: str) -> bool:
    """Whether a file is called like an image; hidden files are not."""
    return f".{name.rpartition('.')[2].lower()}" in IMAGE_SUFFIXES and not name.startswith(".")


def allowed_suffixes() -> str:
    """Return how images may be called, for messages."""
    return ", ".join(sorted(IMAGE_SUFFIXES))


def list_images(paths: Iterable[Path]) -> Iterator[str]:
    """Yield image files in order: files as given, folders as the images in them and below.

    In a folder, names decide what is an image; what is hidden does not count. Links to folders are followed,
    but not back to a folder that they lie in. A folder that cannot be read is yielded itself, so that
    whoever reads the images reports it.

    Raises:
        UserError: A path does not exist, or a folder has no image; what is before it has been yielded.
    """
    for path in paths:
        if not os.path.lexists(path):
            raise UserError(f"'{path}' does not exist; give image files or folders of them")
        if not path.is_dir():
            yield str(path)
            continue
        is_empty = True
        for name in _below(str(path)):
            is_empty = False
            yield name
        if is_empty:
            raise UserError(f"folder '{path}' has no image; allowed: {allowed_suffixes()}")


_Identity = tuple[int, int]
"""What tells a folder from all others, by whatever name it is reached."""


def _below(top: str) -> Iterator[str]:
    """Yield the images in a folder and below, in the order of their paths' parts."""
    prefix = "" if top == "." else f"{top.rstrip('/')}/"
    entries, identity = _entries(top)
    if entries is None:
        yield top
        return
    # Not recursive: folders may be nested more deeply than Python's calls.
    levels = [(prefix, iter(entries), identity)]
    while levels:
        prefix, left, _ = levels[-1]
        entry = next(left, None)
        if entry is None:
            levels.pop()
            continue
        name, is_folder = entry
        # What looks like an image but is a folder is a bad image, so that somebody notices it.
        if is_image_name(name):
            yield prefix + name
        if not is_folder:
            continue
        entries, identity = _entries(prefix + name)
        if entries is None:
            yield prefix + name
        elif all(identity != above for _, _, above in levels):
            levels.append((f"{prefix}{name}/", iter(entries), identity))


def _entries(folder: str) -> tuple[list[tuple[str, bool]] | None, _Identity]:
    """Return what is visible in a folder, in order, and whether each is a folder; None: it cannot be read."""
    try:
        status = Path(folder).stat()
        with os.scandir(folder) as entries:
            found = sorted((entry.name, _is_folder(entry)) for entry in entries if entry.name[0] != ".")
    except OSError:
        return None, (0, 0)
    return found, (status.st_dev, status.st_ino)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link that leads to itself.
        return False
