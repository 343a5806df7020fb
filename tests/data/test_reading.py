import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from effnet.data import reading
from effnet.data.reading import read_file


def test_a_file_is_what_is_in_it(tmp_path):
    (tmp_path / "file").write_bytes(b"\0\r\n\xff" * 1000)
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "file") == read_file(str(tmp_path / "link")) == b"\0\r\n\xff" * 1000
    assert read_file(tmp_path / "empty") == b""


def _bind(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.close()


@pytest.mark.parametrize(
    ("make", "kind", "reason"),
    [
        (lambda path: path.mkdir(), IsADirectoryError, "is a folder"),
        (os.mkfifo, OSError, "is no regular file"),
        (_bind, OSError, "is no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), OSError, "is no regular file"),
        (lambda path: path.symlink_to("nowhere"), FileNotFoundError, "is a link to nothing"),
        (lambda path: path.symlink_to(path), OSError, "is a link that leads to itself"),
        (lambda path: None, FileNotFoundError, "does not exist any more"),
    ],
    ids=["folder", "pipe", "socket", "device", "dangling link", "link to itself", "lost"],
)
def test_what_is_no_file_says_what_it_is_and_nobody_waits(tmp_path, monkeypatch, make, kind, reason):
    monkeypatch.chdir(tmp_path)  # A socket's path must be short.
    make(tmp_path / "x.jpg") if make is not _bind else _bind("x.jpg")
    with pytest.raises(kind) as caught:
        read_file(tmp_path / "x.jpg")
    assert caught.value.strerror == reason


def test_a_file_in_what_is_no_folder_any_more_does_not_exist(tmp_path):
    (tmp_path / "cats").touch()
    with pytest.raises(OSError, match="does not exist any more"):
        read_file(tmp_path / "cats" / "x.jpg")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_locked_file_says_so(tmp_path, monkeypatch, number):
    def refuse(path, flags):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match="may not be read by this user"):
        read_file(tmp_path / "x.jpg")


def test_another_trouble_keeps_its_words(tmp_path, monkeypatch):
    def fail(path, flags):
        raise OSError(errno.EIO, "Input/output error", path)

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match="Input/output error"):
        read_file(tmp_path / "x.jpg")


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    with (tmp_path / "film.jpg").open("wb") as file:
        file.truncate(reading.MAX_FILE_BYTES + 1)
    with pytest.raises(OSError, match="has 536870913 bytes; at most 536870912 are read"):
        read_file(tmp_path / "film.jpg")


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_that_changes_while_it_is_read_is_no_image(tmp_path, monkeypatch, change):
    path, real = tmp_path / "x.jpg", os.fstat
    path.write_bytes(bytes(5000))

    def fstat_before_the_change(descriptor):
        status = real(descriptor)
        if status.st_size == 5000:
            os.truncate(path, 5000 + change)
        return status

    monkeypatch.setattr(reading.os, "fstat", fstat_before_the_change)
    with pytest.raises(OSError, match="changed while it was read"):
        read_file(path)


def test_a_file_that_comes_in_pieces_is_put_together(tmp_path, monkeypatch):
    content, real = bytes(range(250)) * 4, os.read
    (tmp_path / "file").write_bytes(content)
    monkeypatch.setattr(reading.os, "read", lambda descriptor, count: real(descriptor, min(count, 300)))
    assert read_file(tmp_path / "file") == content


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="only Linux lists open files")
def test_no_file_stays_open(tmp_path):
    (tmp_path / "file").touch()
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    for name in ("file", ".", "nothing"):
        with suppress(OSError):
            read_file(tmp_path / name)
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before
