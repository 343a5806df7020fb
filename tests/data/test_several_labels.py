"""Images with several labels, from every source that can have them to the batches of a run."""

import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from effnet.arch import Preprocessing
from effnet.config import AugmentConfig, DataConfig
from effnet.data.copies import CopySettings
from effnet.data.loader import eval_batches, train_batches
from effnet.data.prepare import prepare_store
from effnet.data.resident import load_resident, resident_batches
from effnet.data.sources import open_data, open_splits
from effnet.errors import UserError
from effnet.inspection.check import check_data

LABELS = [[2, 0], [1], [0, 2, 1], [2]]
NAMES = ["ant", "bee", "cow"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def write(encode, picture, tmp_path):
    """Write a parquet file: ``write("train", labels, feature, **other columns)``."""

    def write(split, labels, feature=None, *, column="labels", **columns):
        images = [encode(picture(20, 20, seed), "PNG") for seed in range(len(labels))]
        table = pa.table({"image": images, column: labels} | columns)
        if feature is not None:
            features = {"image": {"_type": "Image"}, column: feature}
            table = table.replace_schema_metadata(
                {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
            )
        folder = tmp_path / "pets"
        folder.mkdir(exist_ok=True)
        pq.write_table(table, folder / f"{split}.parquet")
        return folder

    return write


def sets_of(images):
    return [images.label_sets.of(index).tolist() for index in range(len(images))]


# Tables


@pytest.mark.parametrize(
    "feature",
    [
        {"_type": "Sequence", "feature": {"_type": "ClassLabel", "names": NAMES}},
        {"_type": "List", "feature": {"_type": "ClassLabel", "names": NAMES}},
        [{"_type": "ClassLabel", "names": NAMES}],
    ],
)
def test_lists_are_read_with_the_class_names_of_the_hub(write, feature):
    write("train", LABELS, feature)
    train, val = open_splits(str(write("test", [[1, 1], [0]], feature)))
    assert train.class_names == val.class_names == tuple(NAMES)
    assert sets_of(train) == LABELS
    assert sets_of(val) == [[1], [0]]
    assert train.labels.tolist() == [2, 1, 0, 2]
    assert train.class_counts().tolist() == [2, 2, 3]


def test_lists_of_names_are_classes_in_order(write):
    train, _ = open_splits(str(write("train", [["bee", "ant"], ["cow"]])))
    assert train.class_names == ("ant", "bee", "cow")
    assert sets_of(train) == [[1, 0], [2]]


@pytest.mark.parametrize("kind", [pa.list_(pa.int8()), pa.large_list(pa.uint16()), pa.list_(pa.int64(), 2)])
def test_lists_of_any_kind_are_read(write, kind):
    train, _ = open_splits(str(write("train", pa.array([[5, 3], [9, 5]], kind))))
    assert train.class_names == ("3", "5", "9")
    assert sets_of(train) == [[1, 0], [2, 1]]


def test_one_label_beside_lists_is_a_list_of_one(write):
    write("train", [1, 0, 1])
    train, val = open_splits(str(write("test", [[0, 1], [1]])))
    assert sets_of(train) == [[1], [0], [1]]
    assert sets_of(val) == [[0, 1], [1]]


def test_a_column_with_one_class_a_row_is_chosen_before_one_with_lists(write):
    folder = write("train", [0, 1], column="kind", tags=[["a", "b"], ["c"]])
    train, _ = open_splits(str(folder))
    assert train.label_sets is None
    assert train.labels.tolist() == [0, 1]


def test_lists_that_are_called_labels_are_chosen_before_other_columns(write):
    train, _ = open_splits(str(write("train", LABELS, number=[7, 8, 9, 10])))
    assert sets_of(train) == LABELS


@pytest.mark.parametrize("missing", [[], None, [None]])
def test_an_image_without_a_class_is_named(write, missing):
    with pytest.raises(UserError, match=r"has (no class|class None) in train.parquet\[1\]"):
        open_splits(str(write("train", [[0, 1], missing, [1]])))


def test_a_class_that_training_lacks_is_named_with_its_image(write):
    write("train", [["ant"], ["bee"]])
    with pytest.raises(UserError, match=r"class 'cow' in test.parquet\[2\], which is none of the 2 classes"):
        open_splits(str(write("test", [["ant", "bee"], ["ant"], ["bee", "cow"]])))


# Tars


def tar(path, members):
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return str(path)


def samples(labels, suffix):
    members = {}
    for number, label in enumerate(labels):
        members |= {f"{number}.jpg": b"image", f"{number}.{suffix}": label.encode()}
    return members


@pytest.mark.parametrize(
    ("suffix", "labels"),
    [
        ("json", ['{"labels": [12, 7]}', '{"labels": [100]}', '{"labels": [7, 12, 100, 7]}']),
        ("json", ['{"label": [12, 7]}', '{"label": 100}', '{"label": [7, 12, 100]}']),
        ("json", ['{"labels": ["12", "7"]}', '{"labels": ["100"]}', '{"labels": ["7", "12", "100"]}']),
        ("cls", ["12 7", "100", "7,12, 100\n"]),
    ],
)
def test_tars_may_have_several_labels_beside_an_image(tmp_path, suffix, labels):
    source = tar(tmp_path / "pets.tar", samples(labels, suffix))
    for _ in range(2):  # The second time from the index in the cache.
        train, _ = open_splits(source)
        assert train.class_names == ("7", "12", "100")
        assert sets_of(train) == [[1, 0], [2], [0, 1, 2]]


def test_lists_of_one_label_are_lists(tmp_path):
    train, _ = open_splits(
        tar(tmp_path / "a.tar", samples(['{"labels": ["b"]}', '{"labels": ["a"]}'], "json"))
    )
    assert sets_of(train) == [[1], [0]]


def test_one_name_with_spaces_stays_one_label(tmp_path):
    train, _ = open_splits(tar(tmp_path / "a.tar", samples(["golden retriever", "7 spots"], "cls")))
    assert train.class_names == ("7 spots", "golden retriever")
    assert train.label_sets is None


def test_an_empty_list_is_no_label(tmp_path):
    source = tar(tmp_path / "a.tar", samples(['{"labels": [1]}', '{"labels": []}'], "json"))
    with pytest.raises(UserError, match=r"a.tar/1.jpg has no label, though others have"):
        open_splits(source)


# What is made of them


def test_a_split_is_drawn_by_the_first_label_and_rare_classes_are_trained_on(write):
    labels = [[index % 2, 2 + index] for index in range(20)] + [[40]]
    data = open_data(str(write("train", labels)), val_fraction=0.2, split_seed=0)
    assert (len(data.train), len(data.val)) == (17, 4)
    assert sorted(data.val.labels.tolist()) == [0, 0, 1, 1]
    together = sets_of(data.train) + sets_of(data.val)
    assert {tuple(labels) for labels in together} == {
        tuple(each) for each in sets_of(open_all(write, labels))
    }


def open_all(write, labels):
    return open_splits(str(write("train", labels)))[0]


def test_labels_follow_a_network_with_more_classes(write):
    train = open_all(write, [["bee", "ant"], ["cow"]])
    wider = train.with_classes(("aardvark", "ant", "bear", "bee", "cow"))
    assert sets_of(wider) == [[3, 1], [4]]
    assert wider.labels.tolist() == [3, 4]
    assert wider.class_counts().tolist() == [0, 1, 0, 1, 1]


def test_a_class_without_images_may_be_lacking(write):
    feature = {"_type": "List", "feature": {"_type": "ClassLabel", "names": [*NAMES, "dog"]}}
    train, _ = open_splits(str(write("train", LABELS, feature)))
    assert sets_of(train.with_classes(tuple(NAMES))) == LABELS
    with pytest.raises(
        UserError, match="the images have class 'cow', which is none of the network's 2 classes"
    ):
        train.with_classes(("ant", "bee"))


def test_a_prepared_store_keeps_all_labels(write, tmp_path):
    write("train", LABELS)
    folder = write("test", [[1, 2], [0]])
    prepare_store(str(folder), tmp_path / "store", CopySettings(short_sides=(8, 16)))
    for stored, original in zip(open_splits(str(tmp_path / "store")), open_splits(str(folder)), strict=True):
        assert stored.class_names == original.class_names
        assert list(stored.names) == list(original.names)
        assert stored.labels.tolist() == original.labels.tolist()
        assert sets_of(stored) == sets_of(original)


def test_data_check_counts_every_label(write):
    folder = write("train", LABELS * 3)
    report = check_data(DataConfig(source=str(folder), workers=1))
    assert [(found.name, found.train + found.val) for found in report.classes] == [
        ("0", 6),
        ("1", 6),
        ("2", 9),
    ]


# Batches


def rows_of(labels):
    return [[label for label in row if label >= 0] for row in labels.tolist()]


def test_batches_have_rows_of_labels_and_those_of_what_replaces_a_bad_image(write, two_stages):
    train = open_all(write, LABELS)
    broken = replace(train, read=lambda index: b"" if index == 1 else train.read(index))
    config = DataConfig(workers=2, max_bad_fraction=0.5)
    plain = next(train_batches(train, two_stages(4), config, AugmentConfig(), seed=0))
    mended = next(train_batches(broken, two_stages(4), config, AugmentConfig(), seed=0))
    assert plain.labels.dtype == torch.int64
    assert LABELS[1] in rows_of(plain.labels)
    expected = [LABELS[2] if row == LABELS[1] else row for row in rows_of(plain.labels)]
    assert rows_of(mended.labels) == expected


def test_images_on_the_device_have_the_labels_of_those_in_files(write, two_stages):
    train, config = open_all(write, LABELS), DataConfig(workers=1)
    resident = load_resident(train, config, torch.device("cpu"))
    schedule = two_stages(4)
    pairs = zip(
        train_batches(train, schedule, config, AugmentConfig(), seed=0),
        resident_batches(resident, schedule, config, AugmentConfig(place="device"), seed=0),
        strict=True,
    )
    for from_files, from_device in pairs:
        assert rows_of(from_files.labels) == rows_of(from_device.labels)


def test_evaluation_sees_every_label(write):
    preprocessing = Preprocessing(image_size=8)
    train = open_all(write, LABELS)
    batches = list(eval_batches(train, preprocessing, batch_size=3))
    assert [row for batch in batches for row in rows_of(batch.labels)] == LABELS
    nothing = replace(train, read=lambda index: b"")
    assert [len(batch.labels) for batch in eval_batches(nothing, preprocessing, batch_size=3)] == [0, 0]


def test_images_with_one_label_have_one_number_each(class_folders):
    data = open_data(str(class_folders({"cat": 3, "dog": 3})), val_fraction=0.3, split_seed=0)
    assert data.train.labels_at(np.array([1, 0])).shape == (2,)
