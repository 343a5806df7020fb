"""Parquet files that are read where they are: from a folder, and from a server that counts what it sends."""

import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from effnet.config import AugmentConfig, DataConfig
from effnet.data import streaming
from effnet.data.fetching import RemoteFolder
from effnet.data.loader import train_batches
from effnet.data.parquet import ROW_GROUPS_KEPT, read_parquet
from effnet.data.rows import number_classes
from effnet.data.selection import ALL, Selection
from effnet.data.sources import open_splits
from effnet.data.streaming import read_streamed
from effnet.errors import UnreachableError, UserError
from effnet.schedule.progressive import StageSchedule

DELAYS = (0.001,) * 4
FILES, ROWS, GROUP = 3, 40, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory, encode, picture):
    """120 images in 30 row groups of 3 files."""
    path = tmp_path_factory.mktemp("streamed")
    for number in range(FILES):
        numbers = range(number * ROWS, (number + 1) * ROWS)
        files = [encode(picture(24, 24, each), "PNG") for each in numbers]
        table = pa.table(
            {
                "image": [{"bytes": file, "path": None} for file in files],
                "labels": [[each % 3, 3 + each % 2] for each in numbers],
            }
        )
        pq.write_table(table, path / f"train-{number:05}-of-{FILES:05}.parquet", row_group_size=GROUP)
    return path


@pytest.fixture(scope="module")
def local(folder):
    return number_classes("here", read_parquet(sorted(folder.glob("*")), most_bytes=0), None)[0]


def streamed(address, folder, *, delays=DELAYS):
    place = RemoteFolder(str(address), delays=delays)
    rows = read_streamed(place, [path.name for path in sorted(folder.glob("*.parquet"))], ALL)
    return number_classes("there", rows, None)[0], place


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def batches(images, stage):
    schedule = StageSchedule((stage(end_step=40, batch_size=6, image_size=16),), FILES * ROWS, 6)
    return train_batches(images, schedule, DataConfig(workers=3), AugmentConfig(), seed=3)


def assert_same_run(images, local, stage):
    for ours, theirs in zip(batches(images, stage), batches(local, stage), strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)
        assert ours.bad == theirs.bad == ()


def test_a_run_is_that_of_the_files_themselves(folder, local, stage):
    images, _ = streamed(folder, folder)
    assert images.blocks == local.blocks
    assert list(images.names) == list(local.names)
    assert images.class_names == local.class_names
    assert images.label_sets.values.tolist() == local.label_sets.values.tolist()
    assert_same_run(images, local, stage)


def test_connections_that_break_change_nothing(folder, local, stage, monkeypatch):
    images, place = streamed(folder, folder, delays=10 * DELAYS)
    opening, seen = place.open, iter(range(10**6))

    def flaky(name):
        if next(seen) % 3 != 2:
            raise ConnectionResetError("reset")
        return opening(name)

    monkeypatch.setattr(place, "open", flaky)
    assert_same_run(images, local, stage)


def test_a_connection_that_is_lost_for_good_ends_the_run(folder, stage, monkeypatch):
    images, place = streamed(folder, folder)

    def lost(name):
        raise ConnectionResetError("connection reset")

    monkeypatch.setattr(place, "open", lost)
    with pytest.raises(
        UnreachableError, match=rf"'{folder}' cannot be read: train-.*connection reset \(5 attem"
    ):
        next(batches(images, stage))
    with pytest.raises(UnreachableError):
        images.read(0)


def watch(images, monkeypatch):
    """Note which row groups are read, and how many are held."""
    groups = images.read.__self__
    loaded, held = [], []
    load, keep = groups._load, groups._keep

    def note(file, group):
        loaded.append((file.name, group))
        return load(file, group)

    def count(place, content):
        keep(place, content)
        held.append(len(groups._held))

    monkeypatch.setattr(groups, "_load", note)
    monkeypatch.setattr(groups, "_keep", count)
    return loaded, held


def test_each_row_group_is_fetched_once(folder, stage, monkeypatch):
    images, _ = streamed(folder, folder)
    loaded, _ = watch(images, monkeypatch)
    assert len(list(batches(images, stage))) == 40
    wait_until(lambda: not images.read.__self__._fetchers)
    assert sorted(loaded) == [(f"train-0000{n}-of-00003.parquet", g) for n in range(FILES) for g in range(10)]


def test_no_more_row_groups_are_held_than_may_be(folder, local, stage, monkeypatch):
    monkeypatch.setattr(streaming, "HELD_BYTES", 1)
    images, _ = streamed(folder, folder)
    _, held = watch(images, monkeypatch)
    assert_same_run(images, local, stage)
    assert max(held) == ROW_GROUPS_KEPT


def test_what_will_be_read_is_fetched_before_it_is_read(folder, monkeypatch):
    images, _ = streamed(folder, folder)
    groups = images.read.__self__
    images.expect(np.array([41, 40, 3, 119]))
    wait_until(lambda: not groups._fetchers)
    assert set(groups._held) == {10, 0, 29}
    monkeypatch.setattr(groups, "_load", None)
    assert images.read(42) == images.read(42) != b""


def test_what_is_fetched_for_later_stays_when_more_is_read(folder, monkeypatch):
    monkeypatch.setattr(streaming, "ROW_GROUPS_KEPT", 3)
    monkeypatch.setattr(streaming, "HELD_BYTES", 1)
    images, _ = streamed(folder, folder)
    groups = images.read.__self__
    images.expect(np.array([0, 4]))
    wait_until(lambda: not groups._fetchers)
    for index in (20, 30, 40, 50):
        images.read(index)
    assert {0, 1} < set(groups._held)
    assert len(groups._held) == 3


# From a server


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.wfile.write(self.answer())

    def answer(self):
        content = (self.server.folder / self.path.rpartition("/")[2]).read_bytes()
        total, span = len(content), self.headers["Range"]
        if span:
            start, stop = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", span).groups())
            content = content[start : stop + 1]
            self.server.sent += len(content)
        self.send_response(206 if span else 200)
        if span:
            self.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/{total}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def log_message(self, *args):
        pass


@contextmanager
def serving(folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.folder, server.sent, server.daemon_threads = folder, 0, True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_address[1]}/data"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_only_what_is_needed_is_fetched_from_a_server(tmp_path, encode, picture):
    noise = np.random.default_rng(0)
    files = [encode(noise.integers(0, 256, (80, 80, 3)).astype(np.uint8), "PNG") for _ in range(40)]
    table = pa.table({"image": files, "label": [index % 2 for index in range(40)]})
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=4)
    with serving(tmp_path) as (server, address):
        images, _ = streamed(address, tmp_path)
        total = (tmp_path / "train.parquet").stat().st_size
        assert server.sent < total / 3  # The end of the file, and the labels.
        before = server.sent
        assert [images.read(index) for index in (20, 23)] == [files[20], files[23]]
        assert server.sent - before < total / 5
        before = server.sent
        assert images.read(21) == files[21]
        assert server.sent == before


def test_a_run_from_a_server_is_that_of_the_files(folder, local, stage):
    with serving(folder) as (_, address):
        images, _ = streamed(address, folder)
        assert_same_run(images, local, stage)


# By name


def test_a_data_set_of_the_hub_is_streamed_with_its_names(folder, monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    train, val = open_splits(f"hf:{folder}", Selection(streaming=True))
    assert (len(train), val) == (FILES * ROWS, None)
    assert train.label_sets.of(7).tolist() == [1, 4]
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_images_in_files_of_their_own_cannot_be_streamed(class_folders):
    pytest.importorskip("datasets")
    folder = class_folders({"cat": 1, "dog": 1}, under="train")
    with pytest.raises(UserError, match=r"cannot be streamed, for its files are no parquet files"):
        open_splits(f"hf:{folder}", Selection(streaming=True))
