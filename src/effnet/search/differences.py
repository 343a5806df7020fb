"""What differs between two pieces of plain data, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

_MOST = 3
"""Differences worth naming; more would be no sentence."""
_LONGEST = 60
"""Characters of a value worth showing."""


def differences(theirs: object, ours: object) -> str:
    """Name the first places where plain data differs, such as ``space.name is "v2" there, "v1" here``.

    Returns:
        Clauses with commas between; empty where there is no difference.
    """
    found = list(_differences(theirs, ours, ""))
    more = len(found) - _MOST
    return ", ".join(found[:_MOST]) + (f", and {more} more" if more > 0 else "")


def _differences(theirs: object, ours: object, path: str) -> Iterator[str]:
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        for key in [*theirs, *(key for key in ours if key not in theirs)]:
            here = f"{path}.{key}" if path else str(key)
            if key not in ours:
                yield f"{here} is {_shown(theirs[key])} there, absent here"
            elif key not in theirs:
                yield f"{here} is absent there, {_shown(ours[key])} here"
            else:
                yield from _differences(theirs[key], ours[key], here)
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for index, (their, our) in enumerate(zip(theirs, ours, strict=True)):
            yield from _differences(their, our, f"{path}[{index}]")
    elif theirs != ours:
        yield f"{path} is {_shown(theirs)} there, {_shown(ours)} here"


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
