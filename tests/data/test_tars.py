import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from effnet.data import tars
from effnet.data.sources import open_data, open_labelled, open_splits
from effnet.data.tar_headers import read_members
from effnet.data.tars import expand_braces, read_tars
from effnet.errors import UserError


@pytest.fixture(autouse=True)
def cached(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("EFFNET_CACHE", str(folder))
    return folder


def _write(path, members, form=tarfile.PAX_FORMAT, mtime=1.5):
    """Write a tar; webdataset's have the time in parts of a second, and so a header more for each file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), mtime
            tar.addfile(member, io.BytesIO(content))
    return path


def _samples(labels, suffix="cls", start=0):
    members = {}
    for number, label in enumerate(labels, start):
        members[f"{number:06}.jpg"] = f"image {number}".encode()
        members[f"{number:06}.{suffix}"] = str(label).encode()
    return members


def _open(source):
    return open_data(str(source), val_fraction=0.5, split_seed=0)


def _contents(images):
    return [images.read(index) for index in range(len(images))]


# Samples


def test_numbered_samples_are_read_with_their_labels(tmp_path):
    _write(tmp_path / "train-000000.tar", _samples([10, 9, 10]))
    _write(tmp_path / "train-000001.tar", _samples([9], start=3))
    _write(tmp_path / "val-000000.tar", _samples([9, 9], start=4))
    data = _open(tmp_path)
    assert not data.is_drawn
    assert data.class_names == ("9", "10")
    assert data.train.labels.tolist() == [1, 0, 1, 0]
    assert data.val.labels.tolist() == [0, 0]
    assert _contents(data.train) == [b"image 0", b"image 1", b"image 2", b"image 3"]
    assert _contents(data.val) == [b"image 4", b"image 5"]
    assert list(data.train.names) == [
        *(f"train-000000.tar/00000{number}.jpg" for number in range(3)),
        "train-000001.tar/000003.jpg",
    ]


def test_labels_may_be_text(tmp_path):
    path = _write(tmp_path / "pets.tar", _samples(["dog\n", "cat", "dog", "007"]))
    images = open_labelled(str(path))
    assert images.class_names == ("007", "cat", "dog")
    assert images.labels.tolist() == [2, 1, 2, 0]


def test_numbers_that_begin_with_zeros_are_text(tmp_path):
    images = open_labelled(str(_write(tmp_path / "a.tar", _samples(["10", "007", "8"]))))
    assert images.class_names == ("007", "10", "8")


@pytest.mark.parametrize("key", tars.JSON_LABELS)
def test_labels_may_be_in_json(tmp_path, key):
    samples = _samples([json.dumps({"width": 9, key: label}) for label in (3, 5, 3)], suffix="json")
    images = open_labelled(str(_write(tmp_path / "pets.tar", samples)))
    assert images.class_names == ("3", "5")
    assert images.labels.tolist() == [0, 1, 0]


def test_class_file_comes_before_json(tmp_path):
    samples = {
        "a.cls": b"0",
        "a.jpg": b"a",
        "a.json": b'{"label": 7}',
        "b.jpg": b"b",
        "b.json": b'{"label": 1}',
    }
    assert open_labelled(str(_write(tmp_path / "a.tar", samples))).class_names == ("0", "1")


def test_tars_without_labels_are_classes(tmp_path):
    for name, count in (("n02", 2), ("n01", 3)):
        members = {f"{name}_{index}.JPEG": f"{name} {index}".encode() for index in range(count)}
        _write(tmp_path / f"{name}.tar", members, tarfile.GNU_FORMAT, mtime=1)
    data = _open(tmp_path)
    assert data.is_drawn
    assert data.class_names == ("n01", "n02")
    for images in (data.train, data.val):
        for index, name in enumerate(images.names):
            assert name.startswith(f"{data.class_names[images.labels[index]]}.tar/")
            assert images.read(index).decode().replace(" ", "_") == name[8:-5]


def test_tars_in_folders_of_splits(tmp_path):
    for split, count in (("train", 3), ("val", 1)):
        for name in ("cat", "dog"):
            _write(tmp_path / split / f"{name}.tar", {f"{index}.png": b"x" for index in range(count)})
    data = _open(tmp_path)
    assert (len(data.train), len(data.val), data.class_names) == (6, 2, ("cat", "dog"))


def test_tar_beside_class_folders_is_where_they_came_from(tmp_path, class_folders):
    source = class_folders({"cat": 2, "dog": 1}, under="train")
    _write(source / "pets.tar", _samples([0, 1]))
    (source / "pets.tgz").write_bytes(b"")
    assert list(open_splits(str(source))[0].names) == [
        "train/cat/cat_00.jpg",
        "train/cat/cat_01.jpg",
        "train/dog/dog_00.jpg",
    ]


def test_word_of_the_name_tells_the_split(tmp_path):
    _write(tmp_path / "flowers-train-000.tar", _samples([0, 1]))
    _write(tmp_path / "flowers-validation-000.tar", _samples([1]))
    train, val = open_splits(str(tmp_path))
    assert (len(train), len(val)) == (2, 1)


def test_what_goes_with_an_image_is_no_image(tmp_path):
    samples = {
        "photos/a.jpg": b"a",
        "photos/a.mask.png": b"mask",
        "photos/a.cls": b"0",
        "photos/._a.jpg": b"of a Mac",
        "photos/b.c.jpg": b"b",
        "photos/b.c.cls": b"1",
        "notes.txt": b"",
    }
    images = open_labelled(str(_write(tmp_path / "a.tar", samples)))
    assert list(images.names) == ["a.tar/photos/a.jpg", "a.tar/photos/b.c.jpg"]
    assert _contents(images) == [b"a", b"b"]


def test_pattern_names_several_tars(tmp_path):
    for number in range(11):
        _write(tmp_path / f"train-{number:02}.tar", _samples([number % 2], start=number))
    _write(tmp_path / "val-00.tar", _samples([0]))
    train, val = open_splits(str(tmp_path / "train-{02..10}.tar"))
    assert val is None
    assert _contents(train) == [f"image {number}".encode() for number in range(2, 11)]
    train, val = open_splits(str(tmp_path / "{train-{00..10},val-00}.tar"))
    assert (len(train), len(val)) == (11, 1)


def test_braces_count_and_list():
    assert expand_braces("a.tar") == ["a.tar"]
    assert expand_braces("{8..11}") == ["8", "9", "10", "11"]
    assert expand_braces("a{098..101}.tar") == ["a098.tar", "a099.tar", "a100.tar", "a101.tar"]
    assert expand_braces("{a,b}-{0..1}") == ["a-0", "a-1", "b-0", "b-1"]
    assert sorted(expand_braces("{a{0..1},b}")) == ["a0", "a1", "b"]


# Headers


_NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=120)


@hypothesis_settings(deadline=None, max_examples=60)
@given(
    names=st.lists(st.lists(_NAMES, min_size=1, max_size=3), max_size=4),
    sizes=st.lists(st.sampled_from([0, 1, 511, 512, 513, 2000]), min_size=4, max_size=4),
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    mtime=st.sampled_from([0, 1.25]),
)
def test_members_are_those_that_python_finds(tmp_path_factory, names, sizes, form, mtime):
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    with tarfile.open(path, "w", format=form) as tar:
        for parts, size in zip(names, sizes, strict=False):
            member = tarfile.TarInfo("/".join(parts))
            member.size, member.mtime = size, int(mtime) if form == tarfile.GNU_FORMAT else mtime
            tar.addfile(member, io.BytesIO(bytes(size)))
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "l" * 150
            tar.addfile(link)
            link = tarfile.TarInfo("hard link")
            link.type, link.linkname, link.size = tarfile.LNKTYPE, "link", 700
            tar.addfile(link)
            folder = tarfile.TarInfo("folder")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
    with tarfile.open(path) as tar:
        expected = [(m.name, m.offset_data, m.size) for m in tar if m.isfile()]
    with path.open("rb") as file:
        assert [(m.name.rstrip("/"), *m[1:]) for m in read_members(file, path)] == expected


def test_long_names_of_ustar_are_put_together(tmp_path):
    name = "/".join(["folder" * 10] * 3) + "/a.jpg"
    path = _write(tmp_path / "a.tar", {name: b"a"}, tarfile.USTAR_FORMAT, mtime=1)
    with path.open("rb") as file:
        assert [member.name for member in read_members(file, path)] == [name]


def test_size_of_many_gigabytes_is_read(tmp_path):
    path = tmp_path / "a.tar"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        member = tarfile.TarInfo("a.jpg")
        member.size = 9 << 30
        with path.open("wb") as file:
            header = member.tobuf(form)
            file.write(header)
            file.seek(member.size, os.SEEK_CUR)
            file.write(bytes(1024))  # The rest is a hole.
        with path.open("rb") as file:
            assert list(read_members(file, path)) == [("a.jpg", len(header), 9 << 30)]


@pytest.mark.parametrize("cut", [1, 512, 600, 1024, 1536, 3000])
def test_tar_that_is_cut_off_is_refused(tmp_path, cut):
    path = _write(tmp_path / "a.tar", _samples([0, 1]))
    with tarfile.open(path) as tar:
        end = tar.getmembers()[-1].offset_data + 512
    os.truncate(path, min(end, path.stat().st_size) + 512 - cut)
    with pytest.raises(UserError, match=rf"'{path}' is cut off at byte \d+: fetch it again, or take it away"):
        open_splits(str(path))


def test_damaged_tar_is_refused(tmp_path):
    path = _write(tmp_path / "a.tar", _samples([0, 1]), tarfile.USTAR_FORMAT, mtime=1)
    content = bytearray(path.read_bytes())
    content[1024 + 124 : 1024 + 136] = b"x" * 12
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"'{path}' is damaged at byte 1024: fetch it again"):
        open_splits(str(path))


def test_file_that_is_no_tar_is_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(UserError, match=r"a.tar' is no tar file"):
        open_splits(str(tmp_path / "a.tar"))


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
def test_compressed_tar_is_refused(tmp_path, name):
    plain = _write(tmp_path / "plain" / "a.tar", _samples(range(40)))
    (tmp_path / name).write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    plain.parent.rmdir()
    for source in (tmp_path, tmp_path / name):
        with pytest.raises(UserError, match=f"{name}' is compressed with gzip, so that no image can be read"):
            open_splits(str(source))


# Mistakes


def test_missing_label_is_named(tmp_path):
    samples = _samples([0, 1, 0])
    del samples["000001.cls"]
    samples["000001.json"] = b'{"width": 8}'
    path = _write(tmp_path / "a.tar", samples)
    with pytest.raises(
        UserError, match=r"a.tar/000001.jpg has no label, though others have: write one beside"
    ):
        open_splits(str(path))


def test_tar_without_images_is_refused(tmp_path):
    _write(tmp_path / "a.tar", {"a.txt": b""})
    with pytest.raises(UserError, match=r"a.tar' has no image; take it away, or put .avif, .bmp"):
        open_splits(str(tmp_path))


def test_class_that_training_lacks_is_refused(tmp_path):
    _write(tmp_path / "train.tar", _samples(["cat", "dog"]))
    _write(tmp_path / "test.tar", _samples(["cat", "dogs"]))
    with pytest.raises(UserError, match=r"has class 'dogs' in test.tar/000001.jpg, .*; did you mean 'dog'"):
        open_splits(str(tmp_path))


def test_missing_tars_of_a_pattern_are_counted(tmp_path):
    _write(tmp_path / "a-0.tar", _samples([0, 1]))
    with pytest.raises(UserError, match=r"2 of the 3 files of '.*' do not exist, such as '.*/a-1.tar'"):
        open_splits(str(tmp_path / "a-{0..2}.tar"))


def test_tars_to_validate_on_alone_are_refused(tmp_path):
    _write(tmp_path / "val-0.tar", _samples([0, 1]))
    with pytest.raises(UserError, match=r"has tar files to validate on \(val-0.tar\) but none to train on"):
        open_splits(str(tmp_path))


# The list of what is in them


def test_second_opening_scans_nothing(tmp_path, monkeypatch):
    paths = [_write(tmp_path / f"{number}.tar", _samples([0, 1], start=2 * number)) for number in range(3)]
    first = read_tars(paths)
    monkeypatch.setattr(tars, "_scan_tar", None)
    second = read_tars(paths)
    assert list(second.names) == list(first.names)
    assert second.labels.to_pylist() == first.labels.to_pylist() == [0, 1] * 3
    assert second.read(5) == b"image 5"


def test_changed_tar_is_scanned_again(tmp_path):
    path = _write(tmp_path / "a.tar", _samples([0, 1]))
    read_tars([path])
    status = path.stat()
    _write(path, _samples([1, 0]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert read_tars([path]).labels.to_pylist() == [1, 0]


def test_damaged_list_is_made_again(tmp_path, cached):
    path = _write(tmp_path / "a.tar", _samples([0, 1]))
    read_tars([path])
    (listed,) = cached.glob("tars/*")
    listed.write_bytes(b"no arrow file")
    assert read_tars([path]).labels.to_pylist() == [0, 1]


def test_cache_that_cannot_be_written_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "file"))
    path = _write(tmp_path / "a.tar", _samples([0, 1]))
    assert read_tars([path]).read(1) == b"image 1"


def test_tar_that_shrinks_after_it_was_opened_makes_bad_images(tmp_path):
    path = _write(tmp_path / "a.tar", _samples([0, 1]))
    images = open_labelled(str(path))
    os.truncate(path, 100)
    with pytest.raises(OSError, match="its tar changed after it was opened") as caught:
        images.read(0)
    assert caught.value.strerror


def test_order_does_not_depend_on_the_threads(tmp_path):
    paths = [_write(tmp_path / f"{number:02}.tar", {f"{number}.jpg": b"x"}) for number in range(20)]
    rows = read_tars(paths)
    assert list(rows.names) == [f"{number:02}.tar/{number}.jpg" for number in range(20)]
    assert np.array_equal(rows.labels.to_pylist(), [Path(name).parts[0][:2] for name in rows.names])
