from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.bench.workload import BATCH_SIZE, lay_out, open_stored
from effnet.data.copies import CopySettings
from effnet.data.images import Pyramid
from effnet.data.prepare import prepare_store
from effnet.errors import UserError


def test_jpeg_files_are_copied_into_class_folders(source, tmp_path):
    photos = lay_out(str(source), 100, tmp_path)
    assert len(photos.files) == 10
    assert photos.labels.tolist() == [0] * 5 + [1] * 5
    assert [file.parent.name for file in photos.files] == ["class-00000"] * 5 + ["class-00001"] * 5
    assert photos.names[0] == "lily/0.jpg"
    for name, file in zip(photos.names, photos.files, strict=True):
        assert file.read_bytes() == (source / name).read_bytes()
    assert photos.mean_bytes == np.mean([file.stat().st_size for file in photos.files])
    assert BATCH_SIZE > 10
    assert [len(batch) for batch in photos.batches()] == [10]


def test_fewer_photos_are_evenly_spaced(source, tmp_path):
    photos = lay_out(str(source), 3, tmp_path)
    assert photos.names == ("lily/2.jpg", "rose/0.jpg")  # the first is the PNG file


def test_data_without_jpeg_files_is_refused(tmp_path):
    with pytest.raises(UserError, match="'digits' has no JPEG files to train on; give the original photos"):
        lay_out("digits", 10, tmp_path)


@pytest.fixture
def store(source, tmp_path) -> Path:
    prepare_store(str(source), tmp_path / "store", CopySettings(short_sides=(20, 40)))
    return tmp_path / "store"


def test_a_store_has_the_copies_of_the_photos_by_name(store):
    names = ["rose/3.jpg", "lily/1.jpg"]
    stored = open_stored(store, names)["jpeg"]
    assert list(stored.names) == names
    assert stored.labels.tolist() == [1, 0]
    copy = stored.read(0)
    assert isinstance(copy, Pyramid)
    assert copy.short_sides == (20, 40)


def test_a_store_of_other_photos_is_refused(store):
    with pytest.raises(UserError, match=r"lacks tulip/9.jpg; give the one that was prepared"):
        open_stored(store, ["lily/1.jpg", "tulip/9.jpg"])


def test_a_folder_that_is_no_store_is_refused(source):
    with pytest.raises(UserError, match="is no prepared store; write one with effnet data prepare"):
        open_stored(source, ["lily/1.jpg"])


def test_png_files_are_left_out(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "data" / name / "x.png")
    with pytest.raises(UserError, match="has no JPEG files"):
        lay_out(str(tmp_path / "data"), 10, tmp_path)
