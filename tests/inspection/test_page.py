import base64
import io
import re
import shutil

import pytest
from PIL import Image

from effnet.inspection import page
from effnet.inspection.page import write_page

from ..pages import Page


@pytest.fixture
def written(check, tmp_path):
    """Check data and read the page about it."""

    def write(source):
        write_page(tmp_path / "page.html", check(source))
        return (tmp_path / "page.html").read_text(encoding="utf-8")

    return write


@pytest.fixture
def flawed(folder, picture, jpeg):
    """Data with one flaw of each kind."""
    return folder(
        {
            "train/cat/copy.jpg": jpeg(picture(0), 70),
            "train/dog/conflict.jpg": jpeg(picture(1)),
            "val/cat/leak.jpg": jpeg(picture(2), 70),
            "train/cat/empty.jpg": b"",
            "train/cat/long.jpg": jpeg(picture(3000, 40, 200)),
            "train/cat/notes.txt": b"",
        }
    )


def test_all_flaws_are_on_the_page(written, flawed):
    shown = Page(written(flawed)).text
    for line in (
        "images that cannot be read: 1",
        "train/cat/empty.jpg the file is empty",
        "pictures in more than one class: 1",
        "the same file train cat train/cat/01.jpg 128 x 96 px train dog train/dog/conflict.jpg",
        "validation images that are also trained on: 1 of 9",
        "changed copies train cat train/cat/02.jpg 128 x 96 px val cat val/cat/leak.jpg",
        "images that repeat others of their split: 1 in train, 0 in val",
        "images more than 4 times as long as short: 1",
        ".txt: 1",
        "cat 15 5",
        "dog 13 4",
    ):
        assert line in shown


def test_pictures_are_in_the_page_itself(written, flawed):
    sources = [attributes["src"] for attributes in Page(written(flawed)).of("img")]
    assert len(sources) == 7  # Three pairs and a long one.
    for source in sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/jpeg;base64"
        assert max(Image.open(io.BytesIO(base64.b64decode(data))).size) <= 240


def test_the_page_asks_nothing_of_anybody(written, flawed):
    text = written(flawed)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text.replace("</", ""))
    tags = Page(text).tags
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in tags}
    assert {name for _, attributes in tags for name in attributes} <= {
        *("lang", "charset", "name", "content", "http-equiv", "class", "id", "style", "src", "alt"),
        *("width", "height", "role", "aria-label", "transform", "x", "y", "x1", "x2", "y1", "y2"),
        *("stroke", "text-anchor", "fill", "fill-opacity"),
    }


HOSTILE = [
    "<script>alert(1)<script>.jpg",
    '" onerror="alert(1)" x=".jpg',
    "&lt;b&gt;'.jpg",
    "{{ 7 * 7 }}.jpg",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_whatever_is_in_them(written, folder, picture, jpeg, name):
    path = folder(
        {
            f"train/cat/{name}": jpeg(picture(0), 70),  # a copy
            f"train/<i>dog/{name}": b"",  # unreadable, and a class of its own
            "val/<i>dog/0.jpg": jpeg(picture(8000)),
        }
    )
    parsed = Page(written(path))
    assert f"train/cat/{name}" in parsed.text
    assert f"train/<i>dog/{name}" in parsed.text
    assert {"script", "b"} - {tag for tag, _ in parsed.tags} == {"script"}
    assert not any(attribute.startswith("on") for _, attributes in parsed.tags for attribute in attributes)
    assert "<i>dog" in parsed.text


def test_a_page_is_bounded_and_its_counts_are_complete(written, folder, picture, jpeg, monkeypatch):
    monkeypatch.setattr(page, "SETS_SHOWN", 2)
    monkeypatch.setattr(page, "IMAGES_SHOWN", 4)
    monkeypatch.setattr(page, "ROWS_SHOWN", 3)
    path = folder(
        {
            **{f"train/cat/{index:02}b.jpg": jpeg(picture(index), 70) for index in range(5)},
            **{f"train/cat/00{letter}.jpg": jpeg(picture(0), 80) for letter in "cdefg"},
            **{f"train/dog/bad{index}.jpg": b"" for index in range(7)},
        }
    )
    parsed = Page(written(path))
    assert "images that repeat others of their split: 10 in train" in parsed.text
    assert "and 3 more changed copies" in parsed.text
    assert "and 3 more; effnet data check --json lists all" in parsed.text
    assert "and 4 more; effnet data check --json lists all" in parsed.text
    assert len(parsed.of("img")) == 4 + 2
    assert parsed.text.count("the file is empty") == 3


def test_a_set_in_both_splits_shows_both_however_large_it_is(written, folder, picture, jpeg):
    files = {f"train/cat/x{index}.jpg": jpeg(picture(7000)) for index in range(12)}
    parsed = Page(written(folder({**files, "val/cat/x.jpg": jpeg(picture(7000))})))
    assert "val cat val/cat/x.jpg" in parsed.text


def test_images_that_are_gone_since_leave_a_gap(check, flawed, tmp_path):
    report = check(flawed)
    shutil.rmtree(flawed)
    write_page(tmp_path / "page.html", report)
    parsed = Page((tmp_path / "page.html").read_text())
    assert parsed.of("img") == []
    assert "train/cat/02.jpg" in parsed.text


def test_equal_data_has_an_equal_page(written, flawed):
    assert written(flawed) == written(flawed)


def test_images_of_one_size_need_no_chart(written):
    text = written("digits")
    assert "All images have 8 x 8 px." in text
    assert "<svg" not in text
    assert "Nothing is wrong" in text
    assert "This is the one that a run draws" in text


def test_the_chart_has_a_square_for_sizes_that_are_alike(written, folder, picture, jpeg):
    text = written(
        folder({f"train/cat/{side}.jpg": jpeg(picture(side, side, 200)) for side in (60, 61, 180)})
    )
    titles = re.findall(r"<title>([^<]*)</title>", text)[1:]
    assert sorted(title.partition(" ")[0] for title in titles) == ["1", "2", "32"]
