import os
from pathlib import Path

import pytest

from effnet.data.walking import list_images
from effnet.errors import UserError


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Make empty files below the working folder."""
    monkeypatch.chdir(tmp_path)

    def files(*names: str) -> None:
        for name in names:
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    return files


def _listed(*paths: str) -> list[str]:
    return list(list_images([Path(path) for path in paths]))


def test_images_at_any_depth_come_in_the_order_of_their_paths(make):
    make("a/b/2.png", "a/b/10.png", "a/b.jpg", "a/z.JPEG", "a/b-c/1.png", "other/1.gif", "a/notes.txt")
    assert _listed("other", "a") == [
        "other/1.gif",
        "a/b/10.png",
        "a/b/2.png",
        "a/b-c/1.png",
        "a/b.jpg",
        "a/z.JPEG",
    ]
    whole = _listed("a")
    assert whole == sorted(whole, key=lambda name: name.split("/"))


def test_the_working_folder_is_named_by_nothing(make):
    make("1.png", "a/2.png")
    assert _listed(".") == ["1.png", "a/2.png"]
    assert _listed("a/") == ["a/2.png"]


def test_a_file_that_is_given_is_taken_whatever_it_is_called(make):
    make("notes.txt", ".hidden.png")
    assert _listed("notes.txt", ".hidden.png") == ["notes.txt", ".hidden.png"]


def test_what_is_hidden_in_a_folder_does_not_count(make):
    make("a/1.png", "a/.2.png", "a/.cache/3.png")
    assert _listed("a") == ["a/1.png"]


def test_links_to_folders_are_followed_but_not_around(make):
    make("a/1.png", "a/b/2.png", "far/3.png")
    Path("a/around").symlink_to("../a")
    Path("a/b/up").symlink_to("../../a/b")
    Path("a/far").symlink_to("../far")
    Path("far/itself").symlink_to("itself")
    assert _listed("a") == ["a/1.png", "a/b/2.png", "a/far/3.png"]


def test_a_link_to_nothing_is_listed_so_that_it_is_reported(make):
    make("a/1.png")
    Path("a/2.png").symlink_to("gone.png")
    assert _listed("a") == ["a/1.png", "a/2.png"]
    assert _listed("a/2.png") == ["a/2.png"]


def test_names_of_any_bytes_are_listed(make):
    make("a/new\nline.png", os.fsdecode(b"a/\xff.png"))
    assert [os.fsencode(name) for name in _listed("a")] == [b"a/new\nline.png", b"a/\xff.png"]


def test_a_folder_that_cannot_be_read_is_listed_itself(make, monkeypatch):
    make("a/1.png", "a/closed/2.png", "a/z/3.png")
    scandir = os.scandir

    def refusing(folder: str):
        if folder == "a/closed":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    assert _listed("a") == ["a/1.png", "a/closed", "a/z/3.png"]


def test_folders_are_read_only_when_they_are_reached(make):
    make("a/1.png", "b/2.png")
    found = list_images([Path("a"), Path("b")])
    assert next(found) == "a/1.png"
    make("b/1.png")
    assert list(found) == ["b/1.png", "b/2.png"]


def test_a_path_that_is_not_there_and_an_empty_folder_are_told(make):
    make("a/notes.txt")
    with pytest.raises(UserError, match="'gone' does not exist; give image files or folders of them"):
        _listed("gone")
    with pytest.raises(UserError, match=r"folder 'a' has no image; allowed: \.avif"):
        _listed("a")
