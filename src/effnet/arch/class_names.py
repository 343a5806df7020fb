"""Names of classes in a file, one a line."""

from __future__ import annotations

from pathlib import Path

from effnet.errors import UserError


def read_class_names(path: str, key: str) -> tuple[str, ...]:
    """Return the names of the classes 0, 1, ... in a file of text.

    Args:
        path: Of the file.
        key: What the user set to it, for the message.

    Raises:
        UserError: It cannot be read, is empty, or has a name twice.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(f"{key} '{path}' cannot be read: {reason}") from None
    names = tuple(line.strip() for line in text.rstrip("\n").split("\n"))
    if "" in names or len(names) != len(set(names)):
        twice = next((name for name in names if name and names.count(name) > 1), None)
        raise UserError(
            f"{key} '{path}' must have one name a line, each of them once; it has "
            + (f"'{twice}' twice" if twice else "an empty line")
        )
    return names
