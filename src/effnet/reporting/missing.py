"""What stands in a report where something cannot be had: a sentence that says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from effnet.errors import UnreachableError, UserError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Missing:
    """In place of what a report would have shown."""

    reason: str
    """A sentence for people, without a full stop."""


def attempt(collect: Callable[[], _T]) -> _T | Missing:
    """Return what a function collects, or why it cannot: files that are gone or damaged end no report."""
    try:
        return collect()
    except (UserError, UnreachableError, OSError) as error:
        return Missing(str(error).rstrip("."))
