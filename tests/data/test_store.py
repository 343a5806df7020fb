import hashlib
import json
import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effnet.arch.io import to_dict
from effnet.data import arrow_files, store
from effnet.data.arrow_files import IMAGE_SCHEMA, INDEX_SCHEMA, Descriptor, IndexNames, JpegColumn, read_index
from effnet.data.crops import Crop
from effnet.data.decode import open_image
from effnet.data.images import Pyramid
from effnet.data.shards import write_table
from effnet.data.sources import open_data
from effnet.data.store import (
    MANIFEST,
    StoreFile,
    StoreManifest,
    StoreShard,
    StoreSplit,
    copy_levels,
    level_shape,
    open_splits,
    open_store,
    parse_manifest,
)
from effnet.errors import UserError

SIDES = (8, 16)
HEX = "0" * 64


def write_images(path, images):
    return write_table(path, [pa.record_batch([pa.array(images, pa.large_binary())], schema=IMAGE_SCHEMA)])


def write_index(path, rows):
    columns = [list(column) for column in zip(*rows, strict=True)]
    return write_table(path, pa.table(columns, schema=INDEX_SCHEMA).to_batches(arrow_files.INDEX_ROWS))


def write_store(path: Path, shards, *, encoding="raw") -> StoreManifest:
    """Write a store of square images: ``shards`` has the sides of the images of each shard.

    Copy ``k`` of image ``i`` is filled with ``10 * i + k``.
    """
    path.mkdir()
    entries, rows = [], []
    for number, sides in enumerate(shards):
        columns = [[], []]
        for side in sides:
            for place in range(2):
                has_copy = place < len(copy_levels(side, side, SIDES))
                copy = min(side, SIDES[place])
                columns[place].append(bytes([10 * len(rows) + place]) * (3 * copy**2) if has_copy else None)
            rows.append((len(rows) % 2, f"image-{len(rows)}", side, side))
        files = {
            short_side: write_images(path / f"train-{number:05}-{short_side}.arrow", column)
            for short_side, column in zip(SIDES, columns, strict=True)
        }
        entries.append(StoreShard(images=len(sides), levels=files))
    manifest = StoreManifest(
        encoding=encoding,
        quality=90,
        chroma="420",
        short_sides=SIDES,
        class_names=("cat", "dog"),
        source="photos",
        splits={
            "train": StoreSplit(
                images=len(rows), index=write_index(path / "train-index.arrow", rows), shards=tuple(entries)
            )
        },
    )
    (path / MANIFEST).write_text(json.dumps(to_dict(manifest)))
    return manifest


@pytest.fixture
def made(tmp_path):
    """A raw store of two shards, of images of 20, 12 and 5 px and of 8 px."""
    write_store(tmp_path / "store", [[20, 12, 5], [8]])
    return tmp_path / "store"


# Sizes of copies


@pytest.mark.parametrize(
    ("size", "expected"),
    [((375, 500), (160, 213)), ((500, 375), (213, 160)), ((160, 900), (160, 900)), ((3, 2), (3, 2))],
)
def test_a_copy_has_the_short_side_of_its_level_and_is_never_enlarged(size, expected):
    assert level_shape(*size, 160) == expected


def test_a_long_thin_image_keeps_a_row_of_pixels():
    assert level_shape(1, 10_000, 160) == (1, 10_000)
    assert level_shape(3, 100_000, 1) == (1, 33_333)


@pytest.mark.parametrize(
    ("short_side", "levels"), [(5, (8,)), (8, (8,)), (9, (8, 16)), (16, (8, 16)), (99, (8, 16))]
)
def test_the_first_level_that_reaches_an_images_size_is_its_last(short_side, levels):
    assert copy_levels(short_side, short_side + 7, SIDES) == levels


@given(
    height=st.integers(20, 900),
    width=st.integers(20, 900),
    sides=st.sets(st.integers(8, 500), min_size=1, max_size=4).map(sorted).map(tuple),
    size=st.integers(8, 400),
    enlargement=st.floats(1, 4),
    share=st.floats(0.1, 1),
)
@settings(deadline=None)
def test_the_smallest_copy_is_taken_that_keeps_the_enlargement(  # noqa: PLR0917 - hypothesis gives them
    height, width, sides, size, enlargement, share
):
    shapes = [level_shape(height, width, side) for side in copy_levels(height, width, sides)]
    taken = []

    def read(place):
        taken.append(place)
        return np.zeros((*shapes[place], 3), np.uint8)

    pyramid = Pyramid(height=height, width=width, short_sides=tuple(map(min, shapes)), read=read)
    crop = Crop(0, 0, max(share * width, 1), max(share * height, 1))
    _, scaled = open_image(pyramid, max_enlargement=enlargement).decode(crop, size)
    (place,) = taken
    # The other side of a copy is rounded to a pixel.
    slack = 1 + 0.5 / min(min(shape) for shape in shapes)
    needed = [size / min(crop.width, crop.height) * min(height, width) / min(shape) for shape in shapes]
    assert needed[place] <= enlargement * 1.0001 or place == len(shapes) - 1
    assert min(shapes[place]) >= size or place == len(shapes) - 1
    lower = zip(needed[:place], shapes[:place], strict=True)
    assert all(factor > enlargement * 0.9999 or min(shape) < size for factor, shape in lower)
    assert size / min(scaled.width, scaled.height) <= needed[place] * slack


# Reading


def test_every_image_has_its_copies_its_name_and_its_label(made):
    train, val = open_store(made)
    assert (val, train.class_names, train.labels.tolist()) == (None, ("cat", "dog"), [0, 1, 0, 1])
    assert list(train.names) == ["image-0", "image-1", "image-2", "image-3"]
    pyramids = [train.read(index) for index in range(4)]
    assert [pyramid.short_sides for pyramid in pyramids] == [(8, 16), (8, 12), (5,), (8,)]
    assert [(pyramid.height, pyramid.width) for pyramid in pyramids] == [(20, 20), (12, 12), (5, 5), (8, 8)]
    for index, pyramid in enumerate(pyramids):
        for place, side in enumerate(pyramid.short_sides):
            copy = pyramid.read(place)
            assert copy.shape == (side, side, 3)
            assert np.unique(copy).tolist() == [10 * index + place]


def test_a_folder_with_a_manifest_is_opened_as_a_store(made):
    data = open_data(str(made), val_fraction=0.5, split_seed=0)
    assert data.is_drawn
    assert sorted([*data.train.names, *data.val.names]) == ["image-0", "image-1", "image-2", "image-3"]


def test_jpeg_copies_come_as_they_were_written(tmp_path):
    write_store(tmp_path / "store", [[20, 5], [16]], encoding="jpeg")
    train, _ = open_store(tmp_path / "store")
    assert train.read(0).read(1) == bytes([1]) * (3 * 16 * 16)
    assert train.read(1).read(0) == bytes([10]) * (3 * 5 * 5)
    assert train.read(2).read(0) == bytes([20]) * (3 * 8 * 8)


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_threads_may_share_a_store(tmp_path, encoding):
    write_store(tmp_path / "store", [[8], [8], [8], [8], [8]], encoding=encoding)
    train, _ = open_splits(
        store.read_manifest(tmp_path / "store"), lambda file: tmp_path / "store" / file.file, most_open=1
    )
    order = np.random.default_rng(0).integers(5, size=400).tolist()
    with ThreadPoolExecutor(4) as pool:
        firsts = list(pool.map(lambda index: bytes(train.read(index).read(0))[0], order))
    assert firsts == [10 * index for index in order]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not list descriptors")
@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_few_descriptors_stay_open(tmp_path, monkeypatch, encoding):
    monkeypatch.setattr(store, "MOST_DESCRIPTORS", 2)
    write_store(tmp_path / "store", [[8]] * 9, encoding=encoding)
    before = _descriptors()
    train, _ = open_store(tmp_path / "store")
    assert [bytes(train.read(index).read(0))[0] for index in range(9)] == [10 * index for index in range(9)]
    assert _descriptors() - before == (2 if encoding == "jpeg" else 0)


def _descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def asked(made):
    """Open the store; returns its images, and the files of images that were asked for."""
    files = []

    def locate(file):
        if file.file != "train-index.arrow":
            files.append(file.file)
        return made / file.file

    return lambda **options: (open_splits(store.read_manifest(made), locate, **options)[0], files)


def test_files_of_images_are_located_when_they_are_first_read(asked):
    train, files = asked()
    pyramid = train.read(3)
    assert files == []
    pyramid.read(0)
    train.read(3).read(0)
    assert files == ["train-00001-8.arrow"]


def test_files_beyond_the_most_are_located_again(asked):
    train, files = asked(most_open=1)
    for index in (0, 0, 3, 0):
        train.read(index).read(0)
    assert files == ["train-00000-8.arrow", "train-00001-8.arrow", "train-00000-8.arrow"]


def test_the_index_is_located_again_when_a_name_is_asked_for(made, tmp_path):
    place = [made]
    train, _ = open_splits(store.read_manifest(made), lambda file: place[0] / file.file)
    place[0] = made.rename(tmp_path / "elsewhere")
    assert train.names[3] == "image-3"


# The index

row = st.tuples(st.integers(0, 4), st.text(max_size=8), st.integers(1, 2**31 - 1), st.integers(1, 2**31 - 1))


@given(rows=st.lists(row, min_size=1, max_size=20))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_index_reads_as_it_was_written(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(arrow_files, "INDEX_ROWS", 3)
    write_index(tmp_path / "index.arrow", rows)
    index = read_index(tmp_path / "index.arrow", len(rows), 5)
    names = IndexNames(lambda: tmp_path / "index.arrow", len(rows))
    columns = list(zip(*rows, strict=True))
    assert [index.labels.tolist(), index.heights.tolist(), index.widths.tolist()] == [
        list(columns[0]),
        list(columns[2]),
        list(columns[3]),
    ]
    assert index.labels.dtype == np.int64
    assert list(names) == list(columns[1])
    assert [names[place] for place in range(len(rows))] == list(columns[1])
    assert (names[-1], list(names[1:7:2])) == (columns[1][-1], list(columns[1][1:7:2]))
    with pytest.raises(IndexError):
        names[len(rows)]


def test_opening_a_large_index_decodes_no_names(tmp_path):
    count = 200_000
    table = pa.table(
        [
            np.zeros(count, np.int32),
            pa.array([f"n01440764/n01440764_{index}.JPEG" for index in range(count)], pa.large_string()),
            np.full(count, 375, np.int32),
            np.full(count, 500, np.int32),
        ],
        schema=INDEX_SCHEMA,
    )
    write_table(tmp_path / "index.arrow", table.to_batches(arrow_files.INDEX_ROWS))
    tracemalloc.start()
    try:
        index = read_index(tmp_path / "index.arrow", count, 1)
        names = IndexNames(lambda: tmp_path / "index.arrow", count)
        assert names[123_456] == "n01440764/n01440764_123456.JPEG"
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(index.labels) == count
    assert peak_bytes / count < 20


# Damage


def test_a_missing_file_and_a_short_file_are_told_at_once(made):
    file = made / "train-00001-16.arrow"
    content = file.read_bytes()
    file.write_bytes(content[:-9])
    message = (
        rf"train-00001-16.arrow' is damaged: it has {len(content) - 9} of {len(content)} bytes; to complete"
    )
    with pytest.raises(UserError, match=message):
        open_store(made)
    file.unlink()
    with pytest.raises(
        UserError, match=r"cannot be read: No such file or directory; to complete the store, give"
    ):
        open_store(made)


def test_a_folder_that_is_not_finished_is_told(made):
    (made / MANIFEST).unlink()
    (made / "prepared.jsonl").write_text("")
    with pytest.raises(UserError, match=r"store' is not prepared to its end; give the command that began it"):
        open_data(str(made), val_fraction=0.5, split_seed=0)


def test_a_manifest_that_cannot_be_read_is_told(made):
    (made / MANIFEST).write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"cannot read the prepared store '.*store': 'utf-8' codec"):
        open_store(made)


def test_a_file_that_becomes_shorter_is_an_error_of_its_images(tmp_path):
    write_store(tmp_path / "store", [[20, 20]], encoding="jpeg")
    train, _ = open_store(tmp_path / "store")
    train.read(0).read(0)
    os.truncate(tmp_path / "store" / "train-00000-8.arrow", 100)
    with pytest.raises(OSError, match=r"train-00000-8.arrow' has become shorter"):
        train.read(0).read(0)


def test_a_file_that_is_no_table_is_an_error_of_its_images(made):
    train, _ = open_store(made)
    file = made / "train-00001-8.arrow"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(OSError, match=r"train-00001-8.arrow' is damaged: "):
        train.read(3).read(0)
    write_index(file, [(0, "", 1, 1)])
    with pytest.raises(OSError, match="its columns are not image"):
        train.read(3).read(0)
    write_images(file, [b"", b""])
    with pytest.raises(OSError, match="it has 2 rows, not 1"):
        train.read(3).read(0)
    write_images(file, [b"1234"])
    with pytest.raises(OSError, match="row 0 has not 8 x 8 pixels"):
        train.read(3).read(0)
    write_images(file, [None])
    with pytest.raises(OSError, match="row 0 has not 8 x 8 pixels"):
        train.read(3).read(0)


def test_a_column_of_nothing_but_nulls_gives_empty_files(tmp_path):
    write_images(tmp_path / "images.arrow", [None, None])
    assert JpegColumn(tmp_path / "images.arrow", 2, Descriptor).read(1) == b""


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(0, "a", 5, 5)], "cannot read the index of a prepared store: .* is damaged: it has not 2 rows"),
        ([(0, "a", 5, 5), (2, "b", 5, 5)], "is damaged: it has labels beyond its 2 classes"),
        ([(0, "a", 5, 5), (-1, "b", 5, 5)], "is damaged: it has labels beyond its 2 classes"),
    ],
)
def test_an_index_that_does_not_fit_is_told(tmp_path, rows, message):
    write_index(tmp_path / "index.arrow", rows)
    with pytest.raises(UserError, match=message):
        read_index(tmp_path / "index.arrow", 2, 2)


# The manifest


def valid() -> dict:
    file = {"file": "a.arrow", "bytes": 1, "sha256": HEX}
    shard = {"images": 2, "levels": {"8": file, "16": file}}
    return {
        "format": 1,
        "encoding": "jpeg",
        "quality": 90,
        "chroma": "420",
        "short_sides": [8, 16],
        "class_names": ["cat", "dog"],
        "source": "photos",
        "splits": {"train": {"images": 2, "index": file, "shards": [shard]}},
    }


def test_a_manifest_reads_as_it_was_written():
    manifest = parse_manifest(json.dumps(valid()), "store.json")
    assert to_dict(manifest) == valid()
    assert [file.file for file in manifest.files] == ["a.arrow"] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "store.json is no manifest of format 1, the only one that this version reads"),
        ({"short_sides": [16, 8]}, r"in short_sides, must ascend, got \[16, 8\]"),
        ({"short_sides": [8]}, r"every shard of 'train' must have the levels \[8\]"),
        ({"splits": {}}, "splits must have 'train'"),
        ({"quality": 0}, "quality must be at least 1, got 0"),
        ({"encoding": "png"}, "encoding must be one of jpeg, raw, got 'png'"),
        ({"colour": 1}, "unknown key 'colour' in store.json"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_told(change, message):
    with pytest.raises(UserError, match=message):
        parse_manifest(json.dumps(valid() | change), "store.json")


def test_a_manifest_whose_shards_do_not_add_up_is_told():
    manifest = valid()
    manifest["splits"]["train"]["images"] = 3
    with pytest.raises(UserError, match=r"in splits.train, the shards have 2 images, not 3"):
        parse_manifest(json.dumps(manifest), "store.json")


@pytest.mark.parametrize("name", ["../a.arrow", "/etc/passwd", "a/b.arrow", ".hidden", "a\\b", ""])
def test_a_manifest_names_files_of_its_own_folder_only(name):
    manifest = valid()
    manifest["splits"]["train"]["index"] = {"file": name, "bytes": 1, "sha256": HEX}
    with pytest.raises(UserError, match=r"splits.train.index.file"):
        parse_manifest(json.dumps(manifest), "store.json")


@pytest.mark.parametrize("text", ["{", "[]", '"store"'])
def test_what_is_no_manifest_is_told(text):
    with pytest.raises(UserError, match=r"store.json is (not JSON|no manifest)"):
        parse_manifest(text, "store.json")


def test_a_written_table_has_its_checksum(tmp_path):
    file = write_images(tmp_path / "images.arrow", [b"a", None])
    content = (tmp_path / "images.arrow").read_bytes()
    assert file == StoreFile(
        file="images.arrow", bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
