"""A folder of this machine for what can be had again: files of remote stores, lists of what is in tars."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from effnet.errors import UserError

FOLDER_VARIABLE, LIMIT_VARIABLE = "EFFNET_CACHE", "EFFNET_CACHE_GB"
SPARED_SECONDS = 60.0
"""A file that was asked for so short a time ago stays, for somebody may be about to open it."""
ABANDONED_SECONDS = 86_400.0
"""A file that was begun and not written to for so long is what a process left that was killed."""


class _Cached(NamedTuple):
    used: float
    size: int
    path: Path


def cache_folder() -> Path:
    """Return ``$EFFNET_CACHE``, else ``effnet`` in this user's cache folder; it may not exist yet."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "effnet"


def cache_limit() -> int:
    """Return how many bytes the cache may have.

    Returns:
        ``$EFFNET_CACHE_GB``, else what leaves a tenth of the disk free.

    Raises:
        UserError: The variable is no number above 0.
        OSError: The folder cannot be read.
    """
    return _limit(cache_folder(), sum(cached.size for cached in _cached_files(cache_folder())))


def use_cached(path: Path) -> None:
    """Note that a file is about to be opened. Those that were not for the longest time are removed first."""
    with suppress(OSError):  # Whoever may read a file need not be its owner.
        os.utime(path)


def make_room(size: int) -> None:
    """Remove files until ``size`` more bytes fit in the limit, or only files are left that are in use.

    What another process or thread has open or mapped stays readable without its name.

    Raises:
        UserError: See `cache_limit`.
        OSError: The folder cannot be read.
    """
    files = sorted(_cached_files(cache_folder()))
    total = sum(cached.size for cached in files)
    limit, spared_from = _limit(cache_folder(), total), time.time() - SPARED_SECONDS
    for cached in files:
        if total + size <= limit or cached.used > spared_from:
            return
        with suppress(OSError):
            if _last_use(cached.path) == cached.used:
                cached.path.unlink()
                total -= cached.size


def _limit(folder: Path, cached: int) -> int:
    if given := os.environ.get(LIMIT_VARIABLE):
        with suppress(ValueError):
            if (limit := float(given)) > 0:
                return int(min(limit, 1e9) * 1e9)
        raise UserError(f"{LIMIT_VARIABLE} must be a number above 0, in units of 10^9 bytes, got '{given}'")
    disk = shutil.disk_usage(folder)
    return max(cached + disk.free - disk.total // 10, 0)


def _cached_files(folder: Path) -> list[_Cached]:
    found = []
    for path, _, names in os.walk(folder):
        for file in (Path(path, name) for name in names if not name.endswith(".lock")):
            with suppress(OSError):  # Another process may just have removed it.
                found.append(_Cached(_last_use(file), file.stat().st_size, file))
    return found


def _last_use(file: Path) -> float:
    is_begun = file.name.startswith(".")
    return file.stat().st_mtime + (ABANDONED_SECONDS if is_begun else 0.0)
