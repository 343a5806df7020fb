import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from effnet.data.decode import decode_image
from effnet.data.images import LabelledImages
from effnet.data.sources import open_data, stratified_split
from effnet.errors import UserError

FORMS = "a folder of class folders, a folder of parquet files, or 'digits'"


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


def test_seed_changes_the_split():
    images = _images([0, 1] * 50)
    first, second = (stratified_split(images, val_fraction=0.3, seed=seed) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_split_does_not_depend_on_where_the_folder_lies(class_folders, tmp_path):
    first = _open(class_folders({"cat": 9, "dog": 9}))
    (tmp_path / "pets").rename(tmp_path / "moved")
    assert list(_open(tmp_path / "moved").val.names) == list(first.val.names)


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
    with pytest.raises(UserError, match=r"class folder '.*/empty' has no image; allowed: .bmp, .gif"):
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
