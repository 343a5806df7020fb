"""Names of image files to answer for, found one after another: folders of any size, and lists of files."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.data.walking import list_images
from effnet.errors import UserError

STANDARD_INPUT = "-"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageList:
    """Images that somebody has named, by paths or by a list."""

    names: Iterable[str]
    """Files as given and folders as the images in them, in order; folders are read while this is walked.
    It may be walked once."""
    origin: dict[str, Any]
    """What tells it from another list, as JSON can hold it."""


def images_at(paths: Sequence[Path]) -> ImageList:
    """Return the image files at some paths; see `list_images`.

    Raises:
        UserError: A path does not exist.
    """
    for path in paths:
        if not os.path.lexists(path):
            raise UserError(f"'{path}' does not exist; give image files or folders of them")
    where = [readable_name(str(path.absolute())) for path in paths]
    given = [readable_name(str(path)) for path in paths]
    return ImageList(names=list_images(paths), origin={"images": given, "at": where})


def images_in_list(file: str) -> ImageList:
    """Return the image files that a list names: one a line, or NUL between them, as ``find -print0`` writes.

    Args:
        file: Of the list; ``-`` for standard input.

    Raises:
        UserError: The list cannot be read, or it is empty.
    """
    try:
        content = sys.stdin.buffer.read() if file == STANDARD_INPUT else Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"the list '{file}' cannot be read: {error.strerror or error}") from None
    lines = content.split(b"\0") if b"\0" in content else content.replace(b"\r\n", b"\n").split(b"\n")
    names = [os.fsdecode(line) for line in lines if line]
    if not names:
        raise UserError(f"the list '{file}' names no image; give the path of one a line")
    digest = hashlib.sha256(content).hexdigest()
    return ImageList(names=names, origin={"list": digest, "at": readable_name(str(Path.cwd()))})


def readable_name(name: str) -> str:
    r"""Return a file's name as valid Unicode: a byte that is no UTF-8 becomes ``\xff`` or the like."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
