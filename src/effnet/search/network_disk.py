"""Whether a folder is on another machine, where SQLite's shared memory does not reach."""

from __future__ import annotations

import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_ON_NETWORK = re.compile(r"nfs|cifs|smb|ceph|lustre|gpfs|beegfs|panfs|afs|9p|glusterfs|sshfs|s3fs|gcsfuse")


def is_on_network(path: Path) -> bool:
    """Look up where a path is mounted from.

    Returns:
        Whether it is a file system of another machine; False where the system does not tell.
    """
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    kind, deepest = "", -1
    resolved = path.resolve()
    for line in mounts.splitlines():
        # proc(5): the fifth field is where, and the first one behind the dash is what.
        before, _, behind = line.partition(" - ")
        point = Path(_unescaped(before.split(" ")[4]))
        # A later mount of the same place hides the earlier ones.
        if resolved.is_relative_to(point) and len(point.parts) >= deepest:
            kind, deepest = behind.split(" ")[0], len(point.parts)
    return _ON_NETWORK.search(kind) is not None


def _unescaped(point: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), point)
