"""What the kernel says of mounts, and what is made of it."""

import sqlite3
from pathlib import Path

import pytest

from effnet.search import network_disk
from effnet.search.ledger import Ledger
from effnet.search.network_disk import is_on_network

MOUNTS = r"""
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
40 21 0:45 / /home rw,relatime shared:20 - nfs4 server:/home rw,vers=4.2
41 40 254:1 / /home/me/fast rw,relatime shared:21 - xfs /dev/vdb rw
42 21 0:46 / /data\040of\040all rw shared:22 master:3 - fuse.sshfs host:/data rw
43 21 254:2 / /over rw shared:23 - ext4 /dev/vdc rw
44 43 0:47 / /over rw shared:24 - lustre mds:/over rw
""".strip()


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    def say(text: str) -> None:
        (tmp_path / "mountinfo").write_text(text)

    monkeypatch.setattr(network_disk, "_MOUNTS", tmp_path / "mountinfo")
    say(MOUNTS)
    return say


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/studies/flowers.db", False),
        ("/home/me/flowers.db", True),
        ("/home/me/fast/flowers.db", False),
        ("/homes/flowers.db", False),
        ("/data of all/flowers.db", True),
        ("/over/flowers.db", True),
    ],
)
def test_the_deepest_and_last_mount_decides(mounts, path, expected):
    assert is_on_network(Path(path)) is expected


def test_where_the_system_does_not_tell_a_disk_is_taken_to_be_local(tmp_path, monkeypatch):
    monkeypatch.setattr(network_disk, "_MOUNTS", tmp_path / "absent")
    assert not is_on_network(tmp_path)


@pytest.mark.parametrize(("kind", "mode"), [("nfs4", "delete"), ("ext4", "wal")])
def test_shared_memory_is_used_on_a_local_disk_only(mounts, tmp_path, kind, mode):
    mounts(f"21 1 254:0 / / rw shared:1 - {kind} server:/ rw")
    path = tmp_path / "study.db"
    with Ledger.open(f"sqlite:///{path}", {}, {}) as ledger:
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA journal_mode").fetchone() == (mode,)
        connection.close()
        assert ledger.trials() == []
