"""How an exported file is going to be called, which its runtime wants to know when it opens it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Calls:
    """Calls of one file."""

    threads: int
    """That compute each call."""
    at_once: int = 1
    """Calls at the same time, from different threads."""
    sizes: tuple[int, ...] = ()
    """The only numbers of images that calls will have, of a file for any number; none: any. With fixed shapes
    OpenVINO needs 7 to 15 % less time."""
