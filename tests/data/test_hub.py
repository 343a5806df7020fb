import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from effnet.data.sources import absolute_source, open_data, open_splits
from effnet.errors import UserError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def _write(folder, split, labels, encode, picture, *, names=("zebra", "ant"), extra=None):
    files = [encode(picture(8, 9, seed), "PNG") for seed in range(len(labels))]
    images = [{"bytes": file, "path": f"{index}.png"} for index, file in enumerate(files)]
    table = pa.table({"img": images, "label": labels} | (extra or {}))
    features = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), folder / f"{split}-00000-of-00001.parquet")
    return files


def test_data_set_is_read_with_its_splits_and_class_names(tmp_path, encode, picture):
    train = _write(tmp_path / "pets", "train", [0, 1, 1], encode, picture)
    _write(tmp_path / "pets", "test", [-1], encode, picture)
    val = _write(tmp_path / "pets", "validation", [1, 0], encode, picture)
    data = open_data(f"hf:{tmp_path / 'pets'}", val_fraction=0.2, split_seed=0)
    assert not data.is_drawn
    assert data.class_names == ("zebra", "ant")
    assert data.train.labels.tolist() == [0, 1, 1]
    assert data.val.labels.tolist() == [1, 0]
    assert [data.train.read(index) for index in range(3)] == train
    assert [data.val.read(index) for index in range(2)] == val
    assert data.train.names[2] == "train[2]"


def test_folder_of_image_files_is_read(class_folders):
    class_folders({"cat": 3, "dog": 2}, under="train")
    source = class_folders({"dog": 2}, under="test")
    data = open_data(f"hf:{source}", val_fraction=0.2, split_seed=0)
    assert data.class_names == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert data.val.labels.tolist() == [1, 1]
    assert data.train.read(3) == (source / "train/dog/dog_00.jpg").read_bytes()


def test_image_file_that_vanished_is_a_bad_image(class_folders):
    source = class_folders({"cat": 2, "dog": 2}, under="train")
    train, _ = open_splits(f"hf:{source}")
    (source / "train/cat/cat_00.jpg").unlink()
    with pytest.raises(OSError, match="does not exist any more"):
        train.read(0)


def test_data_set_without_validation_is_split(tmp_path, encode, picture):
    _write(tmp_path / "pets", "train", [0, 1] * 5, encode, picture)
    data = open_data(f"hf:{tmp_path / 'pets'}", val_fraction=0.2, split_seed=0)
    assert data.is_drawn
    assert (len(data.train), len(data.val)) == (8, 2)


def test_configuration_is_chosen(tmp_path, encode, picture):
    for name, labels in (("small", [0, 1]), ("large", [0, 1, 0])):
        _write(tmp_path / "pets" / name, "train", labels, encode, picture)
    (tmp_path / "pets" / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: small\n  data_files: small/*.parquet\n"
        "- config_name: large\n  data_files: large/*.parquet\n---\n"
    )
    for name, count in (("small", 2), ("large", 3)):
        train, _ = open_splits(f"hf:{tmp_path / 'pets'}:{name}")
        assert len(train) == count
    with pytest.raises(
        UserError, match=r"cannot open 'hf:.*:huge': BuilderConfig 'huge' not found. Available"
    ):
        open_splits(f"hf:{tmp_path / 'pets'}:huge")


def test_name_revision_and_configuration_are_handed_on(monkeypatch, tmp_path, encode, picture):
    _write(tmp_path / "pets", "train", [0, 1], encode, picture)
    loaded = datasets.load_dataset(str(tmp_path / "pets"))
    calls = []

    def load(name, config, *, revision):
        calls.append((name, config, revision))
        return loaded

    monkeypatch.setattr(datasets, "load_dataset", load)
    for source in ("hf:cifar10", "hf:a/b@main", "hf:a/b:c", "hf:a/b@1f0e:c"):
        open_splits(source)
    assert calls == [
        ("cifar10", None, None),
        ("a/b", None, "main"),
        ("a/b", "c", None),
        ("a/b", "c", "1f0e"),
    ]


def test_hub_that_cannot_be_reached_is_a_sentence():
    with pytest.raises(UserError) as caught:
        open_splits("hf:nobody/nothing")
    assert str(caught.value) == (
        "cannot open 'hf:nobody/nothing': Couldn't reach 'nobody/nothing' on the Hub (OfflineModeIsEnabled)"
    )


def test_data_set_without_a_training_split_is_refused(tmp_path, encode, picture):
    _write(tmp_path / "pets", "test", [0, 1], encode, picture)
    with pytest.raises(UserError, match="has no split 'train' to train on; it has: test"):
        open_splits(f"hf:{tmp_path / 'pets'}")


def test_data_set_without_images_is_refused(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), tmp_path / "train.parquet")
    with pytest.raises(UserError, match="needs one column 'image' with an image in each row; it has: none"):
        open_splits(f"hf:{tmp_path}")


@pytest.mark.parametrize("name", ["", "a@", "a:b:c", "@main"])
def test_name_of_another_form_is_refused(name):
    with pytest.raises(UserError, match="is no name of the form hf:NAME, hf:NAME@REVISION or hf:NAME:CONFIG"):
        open_splits(f"hf:{name}")


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError) as caught:
        open_splits("hf:cifar10")
    assert str(caught.value) == "to read 'hf:cifar10' a package is missing: pip install 'effnet[hf]'"


def test_folder_keeps_its_name_in_other_folders(tmp_path, monkeypatch):
    (tmp_path / "pets").mkdir()
    monkeypatch.chdir(tmp_path)
    assert absolute_source("hf:pets") == f"hf:{tmp_path / 'pets'}"
    assert absolute_source("hf:pets:small") == f"hf:{tmp_path / 'pets'}:small"
    assert absolute_source("hf:cifar10@main") == "hf:cifar10@main"


def test_images_are_read_in_any_order_by_threads(tmp_path, encode, picture):
    from concurrent.futures import ThreadPoolExecutor

    files = _write(tmp_path / "pets", "train", [0, 1] * 20, encode, picture)
    train, _ = open_splits(f"hf:{tmp_path / 'pets'}")
    order = np.random.default_rng(0).integers(0, 40, 400)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(train.read, order.tolist()))
    assert read == [files[index] for index in order]
