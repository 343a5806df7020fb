"""Splits, columns and class names that the user chooses, for every kind of source that has them."""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from effnet.config import DataConfig
from effnet.data.copies import CopySettings
from effnet.data.prepare import prepare_store
from effnet.data.selection import Selection
from effnet.data.sources import open_configured, open_labelled, open_splits
from effnet.errors import UserError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hub"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


@pytest.fixture
def write(tmp_path, encode, picture):
    """Write a split as the hub has it: ``write("train", image="img", label=[0, 1])``."""

    def write(split, *, image="image", names=None, **columns):
        count = len(next(iter(columns.values())))
        images = [{"bytes": encode(picture(8, 8, seed), "PNG"), "path": None} for seed in range(count)]
        features = {image: {"_type": "Image"}}
        for column, values in columns.items():
            if isinstance(values[0], int):
                features[column] = {"_type": "ClassLabel", "names": names or ["ant", "bee", "cow"]}
        metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        folder = tmp_path / "pets"
        folder.mkdir(exist_ok=True)
        table = pa.table({image: images} | columns).replace_schema_metadata(metadata)
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet", row_group_size=2)
        return folder

    return write


def opened(source, **chosen):
    return open_splits(str(source), Selection(**chosen))


def labels(parts):
    return [part.labels.tolist() if part else None for part in parts]


# Splits


@pytest.fixture(params=["hf:", "hf: streaming", ""])
def flowers(request, write):
    """Opens a set with the splits of Oxford's flowers, from parquet files or as the hub's library has it."""
    for split, values in (
        ("train", [0]),
        ("validation", [1, 1]),
        ("test", [2, 2, 2]),
        ("extra", [0, 1, 2, 2]),
    ):
        folder = write(split, label=values)
    listed = "".join(
        f"  - split: {name}\n    path: {name}-*\n" for name in ("train", "validation", "test", "extra")
    )
    text = f"---\nconfigs:\n- config_name: default\n  data_files:\n{listed}---\n"
    (folder / "README.md").write_text(text)
    scheme, _, streaming = request.param.partition(" ")

    def opening(**chosen):
        return labels(opened(f"{scheme}{folder}", streaming=bool(streaming), **chosen))

    return opening


def test_without_a_choice_the_second_split_is_the_first_of_the_usual_names(flowers):
    assert flowers() == [[0], [1, 1]]


def test_several_splits_are_trained_on_and_the_next_is_left_to_validate_on(flowers):
    assert flowers(train_split="train+validation") == [[0, 1, 1], [2, 2, 2]]
    assert flowers(train_split="validation + train") == [[1, 1, 0], [2, 2, 2]]


def test_both_are_chosen(flowers):
    assert flowers(train_split="extra", val_split="test") == [[0, 1, 2, 2], [2, 2, 2]]
    assert flowers(val_split="test+extra") == [[0], [2, 2, 2, 0, 1, 2, 2]]


def test_without_a_split_to_validate_on_there_is_none(flowers):
    assert flowers(train_split="train+validation+test") == [[0, 1, 1, 2, 2, 2], None]


def test_a_split_that_is_not_there_is_named_with_those_that_are(flowers):
    with pytest.raises(UserError) as caught:
        flowers(train_split="train+validate")
    assert "has no split 'validate' to train on; it has: " in str(caught.value)
    assert all(name in str(caught.value) for name in ("train", "validation", "test", "extra"))
    with pytest.raises(UserError, match=r"has no split 'tests' to validate on.* did you mean 'test'"):
        flowers(val_split="tests")


def test_a_split_is_not_trained_and_validated_on(flowers):
    with pytest.raises(UserError, match=r"data.train_split and data.val_split both have 'test'"):
        flowers(train_split="train+test", val_split="test")


def test_class_folders_have_splits_by_their_names(class_folders):
    for split, counts in (("train", {"b": 1, "c": 1}), ("val", {"a": 2, "b": 1}), ("test", {"c": 3})):
        folder = class_folders(counts, under=split)
    train, val = opened(folder, train_split="train+val")
    assert train.class_names == ("a", "b", "c")
    assert train.labels.tolist() == [1, 2, 0, 0, 1]
    assert train.read(2) == (folder / "val/a/a_00.jpg").read_bytes()
    assert val.labels.tolist() == [2, 2, 2]
    with pytest.raises(UserError, match=r"has no split 'dev' to validate on; it has: test, train, val"):
        opened(folder, val_split="dev")


@pytest.mark.parametrize("place", ["{split}-0.tar", "{split}/0.tar"])
def test_tars_have_splits_by_their_names_and_folders(tmp_path, place):
    for number, split in enumerate(("train", "test", "more")):
        path = tmp_path / "pets" / place.format(split=split)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for name, content in (("0.jpg", b"image"), ("0.cls", f"{number}".encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    train, val = opened(tmp_path / "pets", train_split="test+train+more", val_split="")
    assert (train.class_names, train.labels.tolist(), val) == (("0", "1", "2"), [1, 0, 2], None)
    with pytest.raises(UserError, match=r"has no split 'val' to validate on"):
        opened(tmp_path / "pets", val_split="val")


def test_evaluation_is_on_the_splits_that_are_named(write):
    for split, values in (("train", [0, 1]), ("validation", [1]), ("test", [2, 2])):
        folder = write(split, label=values)
    assert open_labelled(str(folder)).labels.tolist() == [1]
    assert open_labelled(str(folder), "test").labels.tolist() == [2, 2]
    assert open_labelled(str(folder), "test+train").labels.tolist() == [2, 2, 0, 1]


def test_a_store_is_prepared_from_what_is_chosen(write, tmp_path):
    for split, values in (("train", [0, 1]), ("validation", [1, 0]), ("test", [2, 2])):
        folder = write(split, label=values, other=values[::-1])
    chosen = Selection(train_split="train+validation", label_column="other")
    prepare_store(str(folder), tmp_path / "store", CopySettings(short_sides=(8,)), selection=chosen)
    assert labels(open_splits(str(tmp_path / "store"))) == labels(open_splits(str(folder), chosen))


# Columns of the sets of the papers, as the hub has them


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("image", "columns", "chosen"),
    [
        ("img", ["label"], "label"),  # CIFAR-10
        ("img", ["fine_label", "coarse_label"], "fine_label"),  # CIFAR-100
        ("image", ["label", "label_cat_dog"], "label"),  # Oxford-IIIT Pets
        ("image", ["label"], "label"),  # Flowers, Cars, Food-101
    ],
)
def test_the_column_with_the_classes_of_the_papers_is_chosen(write, image, columns, chosen, streaming):
    values = {name: [(place + row) % 3 for row in range(3)] for place, name in enumerate(columns)}
    folder = write("train", image=image, **values, image_id=["x", "y", "z"])
    train, _ = opened(f"hf:{folder}", streaming=streaming)
    assert train.labels.tolist() == values[chosen]


def test_another_column_can_be_chosen(write):
    folder = write("train", image="img", fine_label=[0, 1, 2], coarse_label=[1, 1, 0])
    for source in (folder, f"hf:{folder}"):
        train, _ = opened(source, label_column="coarse_label")
        assert train.labels.tolist() == [1, 1, 0]


def test_of_several_columns_one_must_be_chosen(write):
    folder = write("train", variant=[0, 1], family=[1, 0])  # FGVC Aircraft
    with pytest.raises(UserError, match=r"it has: variant, family; choose one with data.label_column"):
        opened(folder)
    assert labels(opened(folder, label_column="variant"))[0] == [0, 1]
    with pytest.raises(
        UserError, match=r"data.label_column is 'maker', but '.*' has no such .* it has: variant, family"
    ):
        opened(folder, label_column="maker")


def test_of_several_pictures_one_must_be_chosen(write, encode, picture):
    mask = [{"bytes": encode(picture(8, 8, 9), "PNG"), "path": None}] * 2
    folder = write("train", image="photo", label=[0, 1], mask=mask)
    assert opened(folder, image_column="mask")[0].read(0) == mask[0]["bytes"]
    with pytest.raises(UserError, match=r"data.image_column is 'label', but"):
        opened(folder, image_column="label")


def test_the_key_of_labels_in_tars_can_be_chosen(tmp_path):
    path = tmp_path / "pets.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(2):
            said = json.dumps({"label": number, "kind": ["x", "y"][number:]}).encode()
            for name, content in ((f"{number}.jpg", b"image"), (f"{number}.json", said)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    assert opened(path)[0].labels.tolist() == [0, 1]
    train, _ = opened(path, label_column="kind")
    assert [train.label_sets.of(row).tolist() for row in range(2)] == [[0, 1], [1]]
    with pytest.raises(UserError, match=r"data.label_column is 'race', but no .json file of .* has that key"):
        opened(path, label_column="race")


def test_a_source_without_columns_or_splits_says_so(class_folders, tmp_path):
    folder = class_folders({"cat": 1, "dog": 1})
    for source, key in ((folder, "label_column"), ("digits", "train_split"), ("digits", "image_column")):
        with pytest.raises(UserError, match=rf"data.{key} is 'x', but '.*' has nothing that it could choose"):
            opened(source, **{key: "x"})
    with pytest.raises(UserError, match=r"--set data.streaming=false"):
        opened(folder, streaming=True)


# Names of classes


def test_numbers_get_the_names_of_a_file(write, tmp_path):
    folder = write("train", label=[0, 1, 1], names=["a", "b"])
    (tmp_path / "names.txt").write_text("aardvark\nbear\ncat\n")
    config = DataConfig(source=str(folder), class_names=str(tmp_path / "names.txt"))
    with pytest.raises(UserError, match=r"a single image"):
        open_configured(config)
    train, _ = opened(folder, class_names=str(tmp_path / "names.txt"))
    assert train.class_names == ("aardvark", "bear", "cat")
    assert train.labels.tolist() == [0, 1, 1]


def test_names_may_be_in_another_order_than_the_alphabet(write, tmp_path, class_folders):
    (tmp_path / "names.txt").write_text("cow\ndog\ncat")
    for source in (write("train", kind=["cat", "cow"]), class_folders({"cat": 1, "cow": 1}, under="a") / "a"):
        train, _ = opened(source, class_names=str(tmp_path / "names.txt"))
        assert train.class_names == ("cow", "dog", "cat")
        assert train.labels.tolist() == [2, 0]


def test_a_label_beyond_the_names_is_an_error(write, tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"has class 2 in train.*\[1\], which is none of the 2 classes"):
        opened(write("train", label=[0, 2]), class_names=str(tmp_path / "names.txt"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a\nb\na\n", "it has 'a' twice"), ("a\n\nb\n", "it has an empty line"), ("", "empty line")],
)
def test_names_must_be_one_a_line(write, tmp_path, text, reason):
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(UserError, match=reason):
        opened(write("train", label=[0, 1]), class_names=str(tmp_path / "names.txt"))
    with pytest.raises(UserError, match=r"data.class_names 'gone.txt' cannot be read: No such file"):
        opened(write("train", label=[0, 1]), class_names="gone.txt")
