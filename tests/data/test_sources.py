import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from effnet.data import parquet
from effnet.data.decode import decode_image
from effnet.data.folders import image_files
from effnet.data.images import LabelledImages
from effnet.data.parquet import read_parquet
from effnet.data.sources import absolute_source, open_data, open_labelled
from effnet.data.splits import split_files, stratified_split, stratified_subset
from effnet.errors import UserError

FORMS = (
    "a folder of class folders, of parquet files or of tars, a prepared store or the address of one, "
    "'hf:NAME', or 'digits'"
)


def _open(source, **options):
    return open_data(str(source), **({"val_fraction": 0.2, "split_seed": 0} | options))


def _images(labels, names=None):
    labels = np.array(labels, np.int64)
    return LabelledImages(
        class_names=tuple(f"class {label}" for label in range(labels.max() + 1)),
        labels=labels,
        names=names or tuple(f"{index}.jpg" for index in range(len(labels))),
        read=lambda index: bytes([index]),
    )


# Splits


@hypothesis_settings(deadline=None)
@given(
    counts=st.lists(st.integers(2, 40), min_size=2, max_size=6),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(-(2**40), 2**40),
)
def test_split_is_stratified_disjoint_and_complete(counts, fraction, seed):
    images = _images(np.repeat(np.arange(len(counts)), counts))
    held_out = stratified_split(images, val_fraction=fraction, seed=seed)
    for label, count in enumerate(counts):
        held = int(held_out[images.labels == label].sum())
        assert 1 <= held <= count - 1
        assert held == min(max(round(fraction * count), 1), count - 1)


@hypothesis_settings(deadline=None)
@given(order=st.permutations(range(30)), seed=st.integers(0, 99))
def test_split_does_not_depend_on_the_order_of_the_files(order, seed):
    labels, names = [index % 3 for index in range(30)], [f"{index}.png" for index in range(30)]

    def held(order):
        images = _images([labels[index] for index in order], tuple(names[index] for index in order))
        mask = stratified_split(images, val_fraction=0.3, seed=seed)
        return {name for name, is_held in zip(images.names, mask, strict=True) if is_held}

    assert held(order) == held(range(30))


def test_split_stays_what_it_was_when_runs_began_with_it():
    labels = np.arange(30) % 3
    held_out = stratified_split(_images(labels), val_fraction=0.2, seed=7)
    assert np.flatnonzero(held_out).tolist() == [1, 3, 8, 9, 13, 20]


def test_seed_changes_the_split():
    images = _images([0, 1] * 50)
    first, second = (stratified_split(images, val_fraction=0.3, seed=seed) for seed in (0, 1))
    assert not np.array_equal(first, second)


@given(
    counts=st.lists(st.integers(0, 40), min_size=2, max_size=5).filter(any),
    share=st.floats(0.01, 1.0),
    seed=st.integers(0, 99),
)
def test_subset_has_its_share_of_every_class_and_grows_into_larger_ones(counts, share, seed):
    images = _images(np.repeat(np.arange(len(counts)), counts))
    total = len(images)
    wanted = max(round(share * total), 1)
    small, large = (stratified_subset(images, count, seed=seed) for count in (wanted, wanted + total // 4))
    for label in range(len(images.class_names)):
        count = int((images.labels == label).sum())
        taken = int((small.labels == label).sum())
        assert taken == min(max(round(wanted / total * count), 1), count) or wanted >= total
    assert set(small.names) <= set(large.names) <= set(images.names)


def test_subset_of_more_images_than_there_are_is_all_of_them():
    images = _images([0, 1, 0])
    assert stratified_subset(images, 3, seed=0) is images


def test_split_does_not_depend_on_where_the_folder_lies(class_folders, tmp_path):
    first = _open(class_folders({"cat": 9, "dog": 9}))
    (tmp_path / "pets").rename(tmp_path / "moved")
    assert list(_open(tmp_path / "moved").val.names) == list(first.val.names)


def test_files_are_split_by_a_word_of_their_names(tmp_path):
    def split(*names):
        parts = split_files("here", [tmp_path / name for name in names])
        return [[path.name for path in part] for part in parts]

    assert split("train-0.tar", "test-0.tar", "val-1.tar") == [["train-0.tar"], ["val-1.tar"]]
    assert split("set_validation.0.tar", "set_train.0.tar") == [["set_train.0.tar"], ["set_validation.0.tar"]]
    assert split("training.tar", "tests.tar") == [["training.tar", "tests.tar"], []]
    with pytest.raises(
        UserError, match=r"'here' has parquet files to validate on \(test-0.parquet\) but none"
    ):
        split("test-0.parquet", "more.parquet")


def test_class_with_a_single_image_cannot_be_split(class_folders):
    with pytest.raises(UserError, match=r"class 'dog' has a single image, dog/dog_00.jpg; it needs two"):
        _open(class_folders({"cat": 3, "dog": 1}))


# Classes


def test_labels_follow_the_classes_of_a_network():
    images = _images([0, 1, 2, 1]).with_classes(("class 2", "other", "class 0", "class 1"))
    assert images.labels.tolist() == [2, 3, 0, 3]


def test_class_that_the_network_lacks_is_refused():
    with pytest.raises(UserError, match="have class 'class 1', which is none of the network's 1 classes"):
        _images([0, 1]).with_classes(("class 0",))


# Folders


def test_class_folders_are_split(class_folders):
    data = _open(class_folders({"dog": 5, "cat": 10}))
    assert data.is_drawn
    assert data.class_names == ("cat", "dog")
    assert (len(data.train), len(data.val)) == (12, 3)
    assert sorted((*data.train.names, *data.val.names))[0] == "cat/cat_00.jpg"
    assert all(
        name.startswith(data.class_names[label])
        for name, label in zip(data.val.names, data.val.labels, strict=True)
    )


def test_subset_reads_the_right_files(class_folders):
    source = class_folders({"cat": 4, "dog": 4})
    data = _open(source)
    for images in (data.train, data.val):
        for index, name in enumerate(images.names):
            assert images.read(index) == (source / name).read_bytes()
    again = data.train.subset(np.array([3, 1]))
    assert list(again.names) == [data.train.names[3], data.train.names[1]]
    assert again.read(0) == data.train.read(3)


@pytest.mark.parametrize("second", ["val", "validation", "valid", "test"])
def test_given_validation_split_is_used(class_folders, second):
    class_folders({"cat": 3, "dog": 1}, under="train")
    data = _open(class_folders({"dog": 2}, under=second))
    assert not data.is_drawn
    assert data.train.class_names == data.val.class_names == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 0, 0, 1]
    assert data.val.labels.tolist() == [1, 1]
    assert data.val.names[0] == f"{second}/dog/dog_00.jpg"


def test_val_comes_before_test(class_folders):
    for name in ("train", "test", "val"):
        source = class_folders({"cat": 2, "dog": 2}, under=name)
    assert _open(source).val.names[0].startswith("val/")


def test_train_folder_alone_is_split(class_folders):
    data = _open(class_folders({"cat": 5, "dog": 5}, under="train"))
    assert data.is_drawn
    assert (len(data.train), len(data.val)) == (8, 2)


def test_class_may_be_called_train(class_folders):
    data = _open(class_folders({"train": 5, "car": 5}))
    assert data.class_names == ("car", "train")


def test_only_visible_image_files_count(class_folders):
    source = class_folders({"cat": 3, "dog": 3})
    (source / "cat" / "notes.txt").write_text("no image")
    (source / "cat" / ".hidden.jpg").write_bytes(b"")
    (source / ".cache").mkdir()
    (source / "dog" / ".thumbnails").mkdir()
    (source / "dog" / ".thumbnails" / "a.jpg").write_bytes(b"")
    (source / "dog" / "deeper").mkdir()
    (source / "dog" / "deeper" / "B.JPEG").write_bytes(b"")
    data = _open(source)
    assert len(data.train) + len(data.val) == 7
    assert "dog/deeper/B.JPEG" in (*data.train.names, *data.val.names)


def test_classes_follow_the_order_of_folders_and_files(class_folders):
    source = class_folders({"b": 2, "a": 11})
    (source / "a" / "a_00").mkdir()
    (source / "a" / "a_00" / "0.jpg").write_bytes(b"")
    images = open_labelled(str(source))
    assert list(images.names) == sorted(images.names, key=lambda name: name.split("/"))
    assert images.names[0] == "a/a_00/0.jpg"
    assert images.labels.tolist() == [0] * 12 + [1] * 2


def test_folder_called_like_an_image_counts_as_one(class_folders):
    source = class_folders({"cat": 1, "dog": 1})
    (source / "cat" / "folder.jpg").mkdir()
    images = open_labelled(str(source))
    assert list(images.names) == ["cat/cat_00.jpg", "cat/folder.jpg", "dog/dog_00.jpg"]
    with pytest.raises(OSError, match="is a folder"):
        images.read(1)


def test_empty_validation_folder_is_refused(class_folders):
    source = class_folders({"cat": 2, "dog": 2}, under="train")
    (source / "val").mkdir()
    with pytest.raises(
        UserError, match="pets/val' has no class folders; put the images of each class into one"
    ):
        _open(source)


def test_image_files_are_listed_in_order(class_folders):
    source = class_folders({"dog": 1, "cat": 2})
    listed = image_files([source / "dog" / "dog_00.jpg", source])
    assert [path.relative_to(source).as_posix() for path in listed] == [
        "dog/dog_00.jpg",
        "cat/cat_00.jpg",
        "cat/cat_01.jpg",
        "dog/dog_00.jpg",
    ]


def test_names_hold_in_any_folder(class_folders, monkeypatch):
    source = class_folders({"cat": 1, "dog": 1})
    monkeypatch.chdir(source.parent)
    assert absolute_source("pets") == str(source)
    assert absolute_source("pets/train-{0..9}.tar") == str(source / "train-{0..9}.tar")
    assert absolute_source("digits") == "digits"


def test_missing_path_is_named(tmp_path):
    with pytest.raises(UserError) as caught:
        _open(tmp_path / "nowhere")
    assert str(caught.value) == f"'{tmp_path / 'nowhere'}' does not exist; give {FORMS}"


def test_misspelt_path_gets_a_suggestion(class_folders):
    source = class_folders({"cat": 2, "dog": 2})
    with pytest.raises(UserError, match=r"does not exist; give .*; did you mean 'pets'"):
        _open(source.with_name("pest"))
    with pytest.raises(UserError, match="did you mean 'digits'"):
        _open("digit")


def test_file_that_is_no_data_is_refused(tmp_path):
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"data.zip' is a file of an unknown kind; give a folder of class"):
        _open(tmp_path / "data.zip")


def test_folder_without_class_folders_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="has no class folders; give a folder of class folders"):
        _open(tmp_path)


def test_class_folder_without_images_is_refused(class_folders):
    source = class_folders({"cat": 2, "dog": 2, "empty": 0})
    with pytest.raises(UserError, match=r"class folder '.*/empty' has no image; allowed: .avif, .bmp, .gif"):
        _open(source)


def test_single_class_is_refused(class_folders):
    with pytest.raises(UserError, match="has only one class, 'cat'; a classifier needs at least two"):
        _open(class_folders({"cat": 3}))


def test_validation_class_that_training_lacks_is_refused(class_folders):
    class_folders({"cat": 2, "dog": 2}, under="train")
    source = class_folders({"cats": 2}, under="val")
    with pytest.raises(
        UserError, match=r"val/cats' is a class that the training images lack; did you mean 'cat'"
    ):
        _open(source)


# Parquet


def _write_parquet(path, encoded, labels, *, column="image", names=None, as_struct=True):
    images = [{"bytes": file, "path": None} for file in encoded] if as_struct else encoded
    table = pa.table({column: images, "label": labels, "id": [f"id {label}" for label in labels]})
    features = {column: {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    if names:
        metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path, row_group_size=2)


@pytest.fixture
def files(picture, encode):
    return [encode(picture(8, 9, seed), "PNG") for seed in range(6)]


def test_parquet_of_the_hub_is_read_with_its_splits_and_names(tmp_path, files, picture):
    names = ["zebra", "ant"]
    _write_parquet(tmp_path / "train-00000-of-00002.parquet", files[:3], [0, 1, 0], names=names)
    _write_parquet(tmp_path / "train-00001-of-00002.parquet", files[3:5], [1, 1], names=names)
    _write_parquet(tmp_path / "test-00000-of-00001.parquet", files[5:], [1], names=names)
    data = _open(tmp_path)
    assert not data.is_drawn
    assert data.class_names == ("zebra", "ant")
    assert data.train.labels.tolist() == [0, 1, 0, 1, 1]
    assert data.val.labels.tolist() == [1]
    assert data.train.names[3] == "train-00001-of-00002.parquet[0]"
    for index in range(5):
        assert np.array_equal(decode_image(data.train.read(index)), picture(8, 9, index))
    assert data.val.read(0) == files[5]


def test_parquet_without_metadata_takes_classes_from_the_values(tmp_path, files):
    _write_parquet(tmp_path / "a.parquet", files, [30, 4, 30, 4, 4, 30], column="picture", as_struct=False)
    data = _open(tmp_path / "a.parquet")
    assert data.is_drawn
    assert data.class_names == ("4", "30")
    both = dict(
        zip((*data.train.names, *data.val.names), (*data.train.labels, *data.val.labels), strict=True)
    )
    assert [both[f"a.parquet[{row}]"] for row in range(6)] == [1, 0, 1, 0, 0, 1]


def test_parquet_labels_may_be_names(tmp_path, files):
    (tmp_path / "data").mkdir()
    _write_parquet(tmp_path / "data" / "train.parquet", files[:4], ["b", "a", "b", "a"])
    _write_parquet(tmp_path / "data" / "validation.parquet", files[4:], ["a", "b"])
    data = _open(tmp_path)
    assert data.class_names == ("a", "b")
    assert data.train.labels.tolist() == [1, 0, 1, 0]
    assert data.val.labels.tolist() == [0, 1]


def _write_row_groups(folder, files):
    """Three files of row groups of 2, 2, 1 images."""
    for number in range(3):
        labels = [index % 2 for index in range(5)]
        encoded = [files[(number + index) % len(files)] + bytes([number, index]) for index in range(5)]
        _write_parquet(folder / f"train-{number}.parquet", encoded, labels, names=["a", "b"])
    return sorted(folder.glob("*.parquet"))


@pytest.mark.parametrize("as_struct", [True, False])
def test_large_parquet_files_are_read_by_row_groups_with_the_same_result(tmp_path, files, as_struct):
    paths = _write_row_groups(tmp_path, files)
    _write_parquet(paths[1], files[:5], [0, 1, 1, 1, 0], names=["a", "b"], as_struct=as_struct)
    held, on_demand = read_parquet(paths[1:2] * 3), read_parquet(paths[1:2] * 3, most_bytes=0)
    assert (held.blocks, on_demand.blocks) == ((), (2, 2, 1) * 3)
    assert on_demand.labels.to_pylist() == held.labels.to_pylist()
    assert list(on_demand.names) == list(held.names)
    order = np.random.default_rng(0).permutation(15).tolist()
    assert [on_demand.read(row) for row in order] == [held.read(row) for row in order]
    assert on_demand.read(6) == files[1]


def test_row_groups_are_the_blocks_of_a_split_data_set(tmp_path, files, monkeypatch):
    _write_row_groups(tmp_path, files)
    held = _open(tmp_path)
    read = parquet.read_parquet
    monkeypatch.setattr(
        "effnet.data.sources.read_parquet", lambda files, selection: read(files, selection, most_bytes=0)
    )
    data = _open(tmp_path)
    assert list(data.train.names) == list(held.train.names)
    assert sum(data.train.blocks) == len(data.train)
    assert len(data.train.blocks) > 3
    for index in range(len(data.train)):
        assert data.train.read(index) == held.train.read(index)


def test_row_group_is_read_once_for_all_threads(tmp_path, files, monkeypatch):
    paths = _write_row_groups(tmp_path, files)
    opened = []

    class Opened(pq.ParquetFile):
        def read_row_group(self, group, **options):
            opened.append(group)
            return super().read_row_group(group, **options)

    rows = read_parquet(paths, most_bytes=0)
    monkeypatch.setattr(parquet.pq, "ParquetFile", Opened)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(rows.read, [0, 1] * 40))
    assert opened == [0]
    monkeypatch.setattr(parquet, "ROW_GROUPS_KEPT", 2)
    opened.clear()
    few = read_parquet(paths, most_bytes=0)
    for row in (0, 2, 1, 3, 4, 0):
        few.read(row)
    assert opened == [0, 1, 2, 0]


def test_parquet_file_that_shrinks_makes_bad_images(tmp_path, files):
    paths = _write_row_groups(tmp_path, files)
    rows = read_parquet(paths, most_bytes=0)
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[:4])
    with pytest.raises(OSError, match=r"row group 0 of train-1.parquet cannot be read"):
        rows.read(5)
    assert rows.read(0)


def test_parquet_row_without_an_image_reads_as_an_empty_file(tmp_path, files):
    _write_parquet(tmp_path / "train.parquet", [files[0], None, *files[2:4]], [0, 1, 1, 0])
    _write_parquet(tmp_path / "test.parquet", files[:2], [0, 1])
    assert _open(tmp_path).train.read(1) == b""


def test_parquet_validation_class_that_training_lacks_is_refused(tmp_path, files):
    _write_parquet(tmp_path / "train.parquet", files[:4], ["cat", "dog", "cat", "dog"])
    _write_parquet(tmp_path / "test.parquet", files[4:], ["cat", "cats"])
    with pytest.raises(
        UserError,
        match=r"class 'cats' in test.parquet\[1\], which is none of the 2 classes .* did you mean 'cat'",
    ):
        _open(tmp_path)


def test_parquet_without_labels_is_refused(tmp_path, files):
    _write_parquet(tmp_path / "train.parquet", files[:2], [0, -1], names=["a", "b"])
    with pytest.raises(UserError, match=r"has class -1 in train.parquet\[1\]"):
        _open(tmp_path)


def test_parquet_row_without_a_label_is_refused(tmp_path, files):
    _write_parquet(tmp_path / "train.parquet", files[:3], [0, 1, None], names=["a", "b"])
    with pytest.raises(UserError, match=r"has class None in train.parquet\[2\]"):
        _open(tmp_path)


def test_parquet_without_training_files_is_refused(tmp_path, files):
    _write_parquet(tmp_path / "test-0.parquet", files, [0, 1] * 3)
    with pytest.raises(
        UserError, match=r"has parquet files to validate on \(test-0.parquet\) but none to train"
    ):
        _open(tmp_path)


def test_parquet_without_an_image_column_is_refused(tmp_path):
    pq.write_table(pa.table({"text": ["a", "b"], "label": [0, 1]}), tmp_path / "train.parquet")
    with pytest.raises(
        UserError, match=r"needs one column 'image' with an image in each row; it has: none of a fitting type"
    ):
        _open(tmp_path)


def test_parquet_with_two_possible_labels_is_refused(tmp_path, files):
    table = pa.table({"image": files, "kind": [0, 1] * 3, "color": [0, 1] * 3})
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(
        UserError, match=r"needs one column 'label' with a label in each row; it has: kind, color"
    ):
        _open(tmp_path)


def test_damaged_parquet_is_refused(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="cannot read '"):
        _open(tmp_path)


# Digits


def test_digits_are_grey_rgb_images():
    data = _open("digits")
    assert data.is_drawn
    assert data.class_names == tuple("0123456789")
    assert len(data.train) + len(data.val) == 1797
    pixels = data.train.read(0)
    assert (pixels.shape, pixels.dtype) == ((8, 8, 3), np.uint8)
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
    assert max(data.train.read(index).max() for index in range(50)) == 255
