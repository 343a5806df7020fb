"""Files that are either whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; the file gets its own name when the ``with`` block succeeds.

    Args:
        path: Where the file will be; its folder must exist. A file of that name is replaced.

    Yields:
        The temporary path, in the same folder.

    Raises:
        OSError: The disk is full or cannot be written; a file that was there before is unharmed.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Write plain data as JSON for people and programs, whole or not at all.

    Raises:
        OSError: As `whole_file`.
    """
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
