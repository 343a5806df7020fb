import io
import os
from pathlib import Path

import pytest

from effnet.data.listing import images_at, images_in_list, readable_name
from effnet.errors import UserError


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"a.png\nb c.png\n", ["a.png", "b c.png"]),
        (b"a.png\r\nb.png", ["a.png", "b.png"]),
        (b"a\n.png\0b.png\0", ["a\n.png", "b.png"]),
        (b"a.png\n\na.png\n", ["a.png", "a.png"]),
        (b"\xff.png\n", [os.fsdecode(b"\xff.png")]),
    ],
)
def test_a_list_has_a_path_a_line_or_nul_between_them(content, names, tmp_path, monkeypatch):
    (tmp_path / "list").write_bytes(content)
    assert images_in_list(str(tmp_path / "list")).names == names
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert images_in_list("-").names == names


def test_lists_differ_by_what_they_say_and_where(tmp_path, monkeypatch):
    for name, content in (("one", "a.png\n"), ("same", "a.png\n"), ("other", "b.png\n")):
        (tmp_path / name).write_text(content)
    one, same, other = (images_in_list(str(tmp_path / name)).origin for name in ("one", "same", "other"))
    assert one == same != other
    monkeypatch.chdir(tmp_path)
    assert images_in_list("one").origin != one


def test_a_list_that_is_empty_or_not_there_is_told(tmp_path):
    (tmp_path / "empty").write_bytes(b"\n\n")
    with pytest.raises(UserError, match="empty' names no image"):
        images_in_list(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="gone' cannot be read: No such file"):
        images_in_list(str(tmp_path / "gone"))


def test_paths_differ_by_what_was_given_and_where_that_is(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    here = images_at([Path("a")]).origin
    assert here == images_at([Path("a")]).origin
    assert here != images_at([tmp_path / "a"]).origin
    monkeypatch.chdir(tmp_path / "a")
    (tmp_path / "a" / "a").mkdir()
    assert images_at([Path("a")]).origin != here


def test_paths_that_are_not_there_are_told_before_folders_are_read(tmp_path):
    with pytest.raises(UserError, match="gone' does not exist"):
        images_at([tmp_path, tmp_path / "gone"])


def test_names_of_any_bytes_can_be_written_as_text():
    assert readable_name("Stra\u00dfe\n.png") == "Stra\u00dfe\n.png"
    assert readable_name(os.fsdecode(b"caf\xe9.png")) == "caf\\xe9.png"
