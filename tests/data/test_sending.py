"""What is sent to another process arrives, arrays without being copied; what cannot be sent is told."""

import os
import tarfile
import threading
from functools import partial
from operator import getitem

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from effnet.data import sending
from effnet.data.copies import CopySettings
from effnet.data.images import Pyramid
from effnet.data.prepare import prepare_store
from effnet.data.sending import UnsendableError, pack, receive, share
from effnet.data.sources import open_data

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memory without a name")


def sent(value):
    shared = share(pack(value))
    received = receive(shared)
    os.close(shared.descriptor)
    return received


def test_arrays_arrive_as_they_are_and_are_not_to_be_written_to():
    values = {
        "whole": np.arange(5),
        "empty": np.empty((0, 3)),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "every other": np.arange(9, dtype=np.uint8)[::2],
        "names": pa.array(["a", None, "bc"], pa.large_string()),
        "text": "word",
    }
    received = sent(values)
    assert received["text"] == "word"
    assert received["names"].equals(values["names"])
    for name in ("whole", "empty", "columns", "every other"):
        assert np.array_equal(received[name], values[name])
        assert received[name].dtype == values[name].dtype
    with pytest.raises(ValueError, match="read-only"):
        received["whole"][0] = 1


def test_arrays_lie_in_the_memory_that_all_share():
    big = np.zeros(1 << 20, np.uint8)
    pickled, array = pack((big, big[:])).parts[:2]
    assert pickled.nbytes < 1000
    assert array.nbytes == big.nbytes


@pytest.mark.parametrize("value", [lambda index: b"", threading.Lock()], ids=["lambda", "lock"])
def test_what_no_other_process_can_have_is_refused(value):
    with pytest.raises(UnsendableError, match="pickle"):
        pack(value)


def test_what_belongs_to_the_program_itself_is_refused(monkeypatch):
    monkeypatch.setattr(sent, "__module__", "__main__")
    with pytest.raises(UnsendableError, match="sent belongs to the program itself"):
        pack(partial(sent, 3))


def test_what_is_too_much_is_refused(monkeypatch):
    monkeypatch.setattr(sending, "MOST_BYTES", 1000)
    with pytest.raises(UnsendableError, match=r"they hold 0\.0 GB"):
        pack(np.zeros(1000, np.uint8))


@pytest.mark.parametrize("kind", ["folders", "tars", "parquet", "jpeg", "raw", "digits"])
def test_images_of_a_source_can_be_read_where_they_were_sent(class_folders, tmp_path, kind):
    source = str(class_folders({"cat": 4, "dog": 3}))
    if kind in ("jpeg", "raw"):
        prepare_store(source, tmp_path / "store", CopySettings(short_sides=(9, 18), encoding=kind))
        source = str(tmp_path / "store")
    elif kind == "tars":
        source = in_tars(source, tmp_path / "tars")
    elif kind == "parquet":
        source = in_parquet(source, tmp_path / "table.parquet")
    elif kind == "digits":
        source = "digits"
    images = open_data(source, val_fraction=0.2, split_seed=0).train
    read_all(images)  # What is open is not sent.
    received = sent(images)
    assert np.array_equal(received.labels, images.labels)
    assert list(received.names) == list(images.names)
    for own, other in zip(read_all(images), read_all(received), strict=True):
        assert np.array_equal(own, other)


def read_all(images):
    found = []
    for index in range(min(len(images), 6)):
        image = images.read(index)
        levels = range(len(image.short_sides)) if isinstance(image, Pyramid) else ()
        found += [image.read(place) for place in levels] or [image]
    return found


def in_tars(source, out):
    out.mkdir()
    for name in ("cat", "dog"):
        with tarfile.open(out / f"{name}.tar", "w") as tar:
            tar.add(f"{source}/{name}", name)
    return str(out)


def in_parquet(source, out):
    files = [
        (f"{source}/{name}/{name}_{index:02}.jpg", label)
        for label, name in enumerate(("cat", "dog"))
        for index in range(3)
    ]
    images = []
    for path, _ in files:
        with open(path, "rb") as file:  # noqa: PTH123
            images.append({"bytes": file.read(), "path": None})
    pq.write_table(pa.table({"image": images, "label": [label for _, label in files]}), out)
    return str(out)


def test_rows_of_a_table_are_read_by_what_every_process_has():
    assert sent(partial(getitem, [b"a", b"b"]))(1) == b"b"
