"""Read a file that may be anything: a folder, a pipe, a link to nowhere, or changing while it is read."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MAX_FILE_BYTES = 1 << 29
"""Larger files are refused unread; as many pixels as are read fit in, with three colours of 16 bits."""

_REASONS = {
    errno.EISDIR: "is a folder",
    errno.ELOOP: "is a link that leads to itself",
    errno.EACCES: "may not be read by this user",
    errno.EPERM: "may not be read by this user",
    errno.ENXIO: "is no regular file",
}
# A pipe that nobody writes to would keep us waiting; Windows would change the ends of lines.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def read_file(path: str | Path) -> bytes:
    """Return what is in a regular file; never waits for anything to be written.

    Raises:
        OSError: ``strerror`` says in plain words why there is nothing to return: it is a folder, it does
            not exist any more, it may not be read, it is larger than `MAX_FILE_BYTES`, ...
    """
    try:
        descriptor = os.open(path, _FLAGS)
        try:
            size = _size(os.fstat(descriptor))
            content = os.read(descriptor, size + 1)
            # Some file systems give less at a time.
            while len(content) < size and (more := os.read(descriptor, size + 1 - len(content))):
                content += more
        finally:
            os.close(descriptor)
    except OSError as error:
        number = error.errno or errno.EIO
        raise OSError(number, _reason(path, number) or error.strerror or str(error)) from error
    if len(content) != size:
        raise OSError(errno.EIO, "changed while it was read")
    return content


def _size(status: os.stat_result) -> int:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.ENXIO, "")
    if status.st_size > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"has {status.st_size} bytes; at most {MAX_FILE_BYTES} are read")
    return status.st_size


def _reason(path: str | Path, number: int) -> str | None:
    if number in (errno.ENOENT, errno.ENOTDIR):
        return "is a link to nothing" if Path(path).is_symlink() else "does not exist any more"
    return _REASONS.get(number)
