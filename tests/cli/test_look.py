import json
import shutil

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def flawed(photos, tmp_path):
    """The photos with a copy in another class, an empty file and a text."""
    shutil.copytree(photos, tmp_path / "photos")
    shutil.copy(photos / "red" / "0.jpg", tmp_path / "photos" / "blue" / "copy.jpg")
    (tmp_path / "photos" / "green" / "empty.jpg").write_bytes(b"")
    (tmp_path / "photos" / "green" / "notes.txt").write_text("a note")
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# Checking


def test_what_is_wrong_is_told_with_what_to_do(effnet, flawed, tmp_path):
    answer = effnet("data", "check", flawed, "--quiet")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0].startswith("20 images of 3 classes: 17 to train on, 3 to validate on")
    assert "data.val_fraction=0.2, data.split_seed=0" in lines[1]
    assert lines[2].startswith("JPEG 10, PNG 9; from 20 x 24 to 25 x 24 px")
    for line in (
        "error: images that cannot be read: 1",
        "    green/empty.jpg: the file is empty",
        "  Mend or remove them; a run replaces them by others, up to data.max_bad_fraction = 0.05.",
        "error: pictures in more than one class: 1",
        "    blue/copy.jpg = red/0.jpg",
        "warning: classes with fewer than 10 images to train on: 3",
        "note: files among the images that are not read: 1",
        "page: data-check.html",
    ):
        assert line in lines
    assert "blue/copy.jpg" in (tmp_path / "data-check.html").read_text()


def test_good_data_is_said_to_be_good(effnet):
    answer = effnet("data", "check", "digits", "--strict", "--quiet")
    assert answer.code == 0
    assert "nothing is wrong that can be seen from outside" in answer.out


def test_progress_goes_to_standard_error(effnet, photos):
    answer = effnet("data", "check", photos, "--json")
    json.loads(answer.out)


@pytest.mark.parametrize(("arguments", "code"), [((), 0), (("--strict",), 1)])
def test_errors_fail_a_strict_check_only(effnet, flawed, arguments, code):
    answer = effnet("data", "check", flawed, "--quiet", *arguments)
    assert answer.code == code
    assert "page: data-check.html" in answer.out


def test_warnings_do_not_fail_a_strict_check(effnet, photos):
    answer = effnet("data", "check", photos, "--quiet", "--strict")
    assert answer.code == 0
    assert "warning: classes with fewer than 10 images" in answer.out


def test_the_report_as_json(effnet, flawed):
    document = json.loads(effnet("data", "check", flawed, "--json", "--quiet", "--out", "page.html").out)
    assert document.keys() == {
        *("source", "split", "classes", "formats", "colors", "sizes", "findings", "unreadable"),
        *("leaked", "conflicts", "repeated", "duplicates", "small", "extreme", "uniform", "other_files"),
    }
    assert document["classes"][0] == {"name": "blue", "train": 6, "val": 1}
    assert document["conflicts"] == 1
    (unreadable,) = document["unreadable"]
    assert unreadable == {
        "name": "green/empty.jpg",
        "split": unreadable["split"],
        "class": "green",
        "height": 0,
        "width": 0,
        "reason": "the file is empty",
    }
    (copies,) = document["duplicates"]
    assert (copies["is_identical"], copies["is_conflict"]) == (True, True)
    assert {image["name"] for image in copies["images"]} == {"blue/copy.jpg", "red/0.jpg"}
    assert len({image["sha256"] for image in copies["images"]}) == 1
    assert document["findings"][0].keys() == {"key", "level", "title", "advice", "examples"}
    assert document["other_files"] == {".txt": 1}


def test_another_drawn_split_can_be_checked(effnet, photos):
    changes = ("--set", "data.val_fraction=0.5", "--set", "data.split_seed=3")
    document = json.loads(effnet("data", "check", photos, "--json", "--quiet", *changes).out)
    assert document["split"] == {
        "is_drawn": True,
        "val_fraction": 0.5,
        "split_seed": 3,
        "train": 9,
        "val": 9,
    }


# Showing


def test_every_stage_is_drawn(effnet, recipe, photos, tmp_path):
    answer = effnet("data", "show", photos, "--recipe", recipe, "--images", "3", "--out", "views.png")
    assert (answer.code, answer.out) == (0, "picture: views.png\n")
    with Image.open(tmp_path / "views.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    # Three columns of 160 px beside labels of 170 x 132 px; the photos and two stages below each other.
    assert pixels.shape[1] == 170 + 3 * (160 + 14) + 24
    assert pixels.shape[0] == 132 + 132 + 160 + 3 * 34 + 2 * 24


def test_a_network_and_changes_can_be_given(effnet, recipe, photos, tmp_path):
    changes = ("--set", "progressive.stages=1", "--set", "progressive.image_size=[16, 200]")
    answer = effnet("data", "show", photos, "--recipe", recipe, "--model", "v2-b0", *changes, "--images", "2")
    assert answer.code == 0
    with Image.open(tmp_path / "data-show.png") as image:
        assert image.size == (170 + 2 * (200 + 14) + 24, 132 + 200 + 2 * 34 + 2 * 24)


# Mistakes


@pytest.mark.parametrize("command", ["check", "show"])
def test_data_that_does_not_exist_is_told(mistake, command):
    assert "'gone' does not exist; give " in mistake("data", command, "gone")


@pytest.mark.parametrize("command", ["check", "show"])
@pytest.mark.parametrize("out", ["gone/page.html", "."])
def test_a_file_that_cannot_be_written_is_told_before_the_work(mistake, photos, command, out):
    message = mistake("data", command, photos, "--out", out)
    assert f"--out must be a file in a folder that exists, got '{out}'" in message


def test_photos_none_of_which_can_be_read_are_told(mistake, photos, recipe, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    for file in (tmp_path / "photos").rglob("*.*"):
        file.write_bytes(b"")
    message = mistake("data", "show", tmp_path / "photos", "--recipe", recipe)
    assert "none of the 15 training images can be read; see effnet data check" in message
