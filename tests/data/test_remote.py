import errno
import random
import re
import shutil
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from effnet.config import AugmentConfig, DataConfig
from effnet.data import cache, fetching, filling, remote, shards
from effnet.data.copies import CopySettings
from effnet.data.loader import train_batches
from effnet.data.prepare import prepare_store
from effnet.data.remote import open_remote_store
from effnet.data.sources import absolute_source, open_data
from effnet.data.store import open_store, read_manifest
from effnet.errors import UnreachableError, UserError
from effnet.schedule.progressive import StageSchedule

DELAYS = (0.001,) * 9
IMAGES, SHARD = 24, 5


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name, span = self.path.strip("/").split("/")[-1], self.headers["Range"]
        fault = self.server.serve(name, span)
        if fault == "dead":
            self.close_connection = True
            return
        if fault == "busy":
            self.send_error(503)
            return
        path = self.server.folder / name
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        if fault == "damaged":
            content = content[:-9] + bytes(9)
        if span and self.server.knows_ranges:
            start, stop = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", span).groups())
            self.send_response(206)
            content = content[start : stop + 1]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if fault == "dropped" else content)

    def log_message(self, *args):
        pass


class _Server(ThreadingHTTPServer):
    """Serves a folder, as badly as it is told to."""

    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.knows_ranges = folder, True
        self.fault = lambda name: None
        self.requests = []
        self._lock = threading.Lock()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}/store"

    @property
    def counts(self):
        return Counter(name for name, _ in self.requests)

    def serve(self, name, span):
        with self._lock:
            self.requests.append((name, span))
            return self.fault(name)


def _first_times(fault, times=1, of="-24.arrow"):
    """Give a fault to the first requests of each file whose name ends so."""
    seen = Counter()

    def choose(name):
        seen[name] += name.endswith(of)
        return fault if 0 < seen[name] <= times and name.endswith(of) else None

    return choose


@pytest.fixture(scope="module")
def store(tmp_path_factory, encode):
    folder = tmp_path_factory.mktemp("remote")
    rng = np.random.default_rng(0)
    for split, count in (("train", IMAGES), ("val", 6)):
        for index in range(count):
            path = folder / "pets" / split / ("cat", "dog")[index % 2]
            path.mkdir(parents=True, exist_ok=True)
            picture = rng.integers(0, 255, (60 + index, 50, 3)).astype(np.uint8)
            (path / f"{index:02}.jpg").write_bytes(encode(picture, "JPEG", quality=60))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "MOST_IMAGES", SHARD)
        prepare_store(str(folder / "pets"), folder / "store", CopySettings(short_sides=(24, 48)))
    return folder / "store"


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EFFNET_CACHE_GB", "1")
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _expectations_of_less_than_an_epoch(monkeypatch):
    monkeypatch.setattr(filling, "EXPECTED_SAMPLES", 16)


@contextmanager
def _serving(folder):
    server = _Server(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server(store, cached):
    with _serving(store) as server:
        yield server


def _open(server):
    return open_remote_store(server.address, delays=DELAYS)[0]


def _like_local(store):
    """The same images from the folder itself, in the same blocks."""
    shards = read_manifest(store).splits["train"].shards
    return replace(open_store(store)[0], blocks=tuple(shard.images for shard in shards))


def _batches(images, stage, *, start_step=0, workers=3):
    stages = (
        stage(end_step=6, batch_size=5, image_size=16),
        stage(stage=1, start_step=6, end_step=12, batch_size=7, image_size=40),
    )
    schedule = StageSchedule(stages, IMAGES, 5)
    config, augment = DataConfig(workers=workers), AugmentConfig()
    return list(train_batches(images, schedule, config, augment, seed=3, start_step=start_step))


@pytest.fixture(scope="module")
def local_batches(store, stage):
    return _batches(_like_local(store), stage)


def _assert_equal(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert one.step == other.step
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert one.bad == other.bad == ()


def _wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _files(cached, pattern):
    return sorted(path.name for path in cached.glob(f"stores/*/{pattern}"))


# What a run sees


def test_batches_over_a_bad_connection_are_those_of_the_local_store(server, stage, local_batches):
    rng, seen = random.Random(0), Counter()

    def fault(name):
        seen[name] += 1
        return rng.choice(("dropped", "busy", "dead", None)) if seen[name] <= 4 else None

    server.fault = fault
    batches = _batches(_open(server), stage)
    _assert_equal(batches, local_batches)
    assert len(server.requests) > 1.5 * len(server.counts)


def test_each_image_comes_exactly_once_an_epoch(server, stage):
    images = _open(server)
    names = []

    def read(index):
        names.append(images.names[index])
        return images.read(index)

    _batches(replace(images, read=read), stage, workers=1)
    epochs = [names[start : start + IMAGES] for start in range(0, len(names) - IMAGES, IMAGES)]
    assert len(epochs) == 2
    assert all(sorted(epoch) == sorted(images.names) for epoch in epochs)
    assert images.blocks == (SHARD,) * 4 + (4,)


@pytest.mark.parametrize("start_step", [3, 8])
def test_resumed_run_with_an_empty_cache_sees_the_same(server, stage, local_batches, start_step):
    rest = _batches(_open(server), stage, start_step=start_step)
    _assert_equal(rest, local_batches[start_step:])


def test_validation_images_come_too(server, store):
    val = open_data(server.address, val_fraction=0.5, split_seed=0).val
    local = open_store(store)[1]
    assert list(val.names) == list(local.names)
    for index in range(len(val)):
        assert val.read(index).read(1) == local.read(index).read(1)


# Faults


@pytest.mark.parametrize("fault", ["dropped", "busy", "dead", "damaged"])
def test_file_is_asked_for_again(server, store, fault):
    server.fault = _first_times(fault, times=2)
    images, local = _open(server), _like_local(store)
    assert images.read(0).read(0) == local.read(0).read(0)
    assert server.counts["train-00000-24.arrow"] == 3


def test_only_the_piece_that_was_lost_is_asked_for_again(server, store, monkeypatch):
    monkeypatch.setattr(fetching, "PIECE_BYTES", 4096)
    size = (store / "train-00000-48.arrow").stat().st_size
    pieces = [f"bytes={start}-{min(start + 4096, size) - 1}" for start in range(0, size, 4096)]
    assert len(pieces) > 2
    server.fault = lambda name: "dropped" if server.requests[-1][1] == pieces[1] else None
    with pytest.raises(UnreachableError):
        _open(server).read(0).read(1)
    server.requests.clear()
    faults = iter([None, "dropped", "busy", *[None] * 99])
    server.fault = lambda name: next(faults) if name.endswith("-48.arrow") else None
    assert _open(server).read(0).read(1) == _like_local(store).read(0).read(1)
    asked = [span for name, span in server.requests if name == "train-00000-48.arrow"]
    assert asked == [pieces[0], *pieces[1:2] * 3, *pieces[2:]]


def test_server_that_knows_no_ranges_will_do(server, store, monkeypatch):
    monkeypatch.setattr(fetching, "PIECE_BYTES", 4096)
    server.knows_ranges = False
    assert _open(server).read(7).read(1) == _like_local(store).read(7).read(1)


def test_server_that_stops_knowing_ranges_will_do(server, store, monkeypatch):
    monkeypatch.setattr(fetching, "PIECE_BYTES", 4096)

    def fault(name):
        server.knows_ranges = server.counts["train-00000-48.arrow"] <= 1

    server.fault = fault
    assert _open(server).read(0).read(1) == _like_local(store).read(0).read(1)
    assert server.counts["train-00000-48.arrow"] == 2


def test_server_that_is_gone_ends_the_run(server, stage):
    images = _open(server)
    server.fault = lambda name: "dead"
    with pytest.raises(UnreachableError) as caught:
        _batches(images, stage)
    assert re.fullmatch(
        rf"'{server.address}' cannot be read: train-0000\d-\d+.arrow: .+ \(10 attempts in \d+ s\)",
        str(caught.value),
    )
    asked = len(server.requests)
    with pytest.raises(UnreachableError):
        images.read(0).read(0)
    assert len(server.requests) == asked


def test_everybody_is_told_at_once_when_one_has_given_up(server):
    images = open_remote_store(server.address, delays=(0.001, 0.001, 60.0))[0]
    server.fault = lambda name: "busy"
    raised = []

    def read(index):
        try:
            images.read(index).read(0)
        except UnreachableError as error:
            raised.append(str(error))

    waiting = [threading.Thread(target=read, args=(index,)) for index in (0, 1, SHARD)]
    for thread in waiting:
        thread.start()
    _wait_until(lambda: server.counts["train-00000-24.arrow"] == server.counts["train-00001-24.arrow"] == 3)
    server.fault = lambda name: None
    server.folder = server.folder / "nowhere"
    with pytest.raises(UnreachableError, match=r"train-00002-24.arrow: is not there$"):
        images.read(2 * SHARD).read(0)
    for thread in waiting:
        thread.join(timeout=5)
    assert len(raised) == 3
    assert len(set(raised)) == 1


def test_file_that_stays_damaged_ends_the_run(server):
    server.fault = _first_times("damaged", times=99)
    with pytest.raises(UnreachableError, match=r"train-00000-24.arrow is not the file of which store.json"):
        _open(server).read(0).read(0)
    assert server.counts["train-00000-24.arrow"] == fetching.WHOLE_ATTEMPTS


def test_full_disk_is_no_bad_image(server, monkeypatch):
    images = _open(server)

    @contextmanager
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")
        yield

    monkeypatch.setattr(fetching, "whole_file", full)
    with pytest.raises(
        UnreachableError,
        match=r"train-00000-24.arrow cannot be kept in '.*': No space left on device; make room",
    ):
        images.read(0).read(0)


# The cache


def test_second_opening_fetches_the_manifest_only(server):
    for _ in range(2):
        images = _open(server)
        asked = len(server.requests)
        for index in range(IMAGES):
            images.read(index).read(index % 2)
    assert asked == len(server.requests)
    server.requests.clear()
    _open(server)
    assert set(server.counts) == {"store.json"}


def test_other_store_at_the_same_address_is_fetched_anew(server, store, tmp_path):
    assert len(_open(server)) == IMAGES
    shutil.copytree(store, tmp_path / "changed")
    text = (store / "store.json").read_text()
    (tmp_path / "changed" / "store.json").write_text(text.replace('"quality": 90', '"quality": 91'))
    server.folder = tmp_path / "changed"
    server.requests.clear()
    _open(server).read(0).read(0)
    assert set(server.counts) == {
        "store.json",
        "train-index.arrow",
        "val-index.arrow",
        "train-00000-24.arrow",
    }


def test_file_is_fetched_once_for_all_threads_and_processes(server):
    # Two openings know as little of each other as two processes do.
    images = [_open(server) for _ in range(2)]
    server.requests.clear()
    started = threading.Barrier(8)

    def read(number):
        started.wait()
        images[number % 2].read(number // 2).read(0)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.counts == {"train-00000-24.arrow": 1}


@pytest.fixture
def nothing_spared(monkeypatch):
    monkeypatch.setattr(cache, "SPARED_SECONDS", 0.0)


@pytest.mark.usefixtures("nothing_spared")
def test_cache_keeps_its_limit_and_what_was_removed_is_fetched_again(
    server, cached, stage, local_batches, monkeypatch
):
    monkeypatch.setattr(remote, "MOST_OPEN", 2)
    monkeypatch.setattr(remote, "FETCHERS", 1)
    largest = max(path.stat().st_size for path in server.folder.glob("*.arrow"))
    limit = 4 * largest
    monkeypatch.setenv("EFFNET_CACHE_GB", str(limit / 1e9))
    sizes = []
    server.fault = lambda name: sizes.append(sum(path.stat().st_size for path in cached.rglob("*.arrow*")))
    batches = _batches(_open(server), stage, workers=1)
    _assert_equal(batches, local_batches)
    assert largest < max(sizes) <= limit + largest
    assert max(server.counts.values()) > 1


def test_file_that_is_opened_counts_as_used(server, cached):
    _open(server).read(0).read(0)
    (path,) = cached.rglob("train-00000-24.arrow")
    cache.os.utime(path, (0, 0))
    _open(server).read(0).read(0)
    assert path.stat().st_mtime > time.time() - 60


def test_image_of_a_removed_file_stays_readable(server, store, cached):
    images, local = _open(server), _like_local(store)
    assert images.read(0).read(0) == local.read(0).read(0)
    for path in cached.rglob("train-00000-24.arrow"):
        path.unlink()
    assert images.read(1).read(0) == local.read(1).read(0)


@pytest.mark.usefixtures("nothing_spared")
def test_least_recently_used_file_goes_first(cached, monkeypatch):
    cached.mkdir()
    now = time.time()
    for name, age in (("new", 10), ("old", 30), ("older", 40)):
        (cached / name).write_bytes(bytes(1000))
        cache.os.utime(cached / name, (now - age, now - age))
    cache.use_cached(cached / "older")
    monkeypatch.setenv("EFFNET_CACHE_GB", "3e-6")
    cache.make_room(1500)
    assert sorted(path.name for path in cached.iterdir()) == ["older"]
    cache.make_room(2000)
    assert [path.name for path in cached.iterdir()] == ["older"]


def test_files_in_use_are_spared(cached, monkeypatch):
    cached.mkdir()
    for name, age in (("just used", 30), ("used", 90), (".begun.partial", 3_600), (".left.partial", 90_000)):
        (cached / name).write_bytes(bytes(1000))
        cache.os.utime(cached / name, (time.time() - age,) * 2)
    monkeypatch.setenv("EFFNET_CACHE_GB", "1e-9")
    cache.make_room(1500)
    assert sorted(path.name for path in cached.iterdir()) == [".begun.partial", "just used"]


def test_cache_leaves_a_tenth_of_the_disk_free(cached, monkeypatch):
    cached.mkdir()
    (cached / "file").write_bytes(bytes(700))
    monkeypatch.delenv("EFFNET_CACHE_GB")
    usage = shutil._ntuple_diskusage(total=10_000, used=0, free=1_500)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage)
    assert cache.cache_limit() == 700 + 1_500 - 1_000


@pytest.mark.parametrize("limit", ["0", "-1", "much", "nan"])
def test_limit_that_is_none_is_refused(server, monkeypatch, limit):
    monkeypatch.setenv("EFFNET_CACHE_GB", limit)
    with pytest.raises(UserError, match=f"EFFNET_CACHE_GB must be a number above 0, .*, got '{limit}'"):
        _open(server)


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path))
    assert cache.cache_folder() == tmp_path
    monkeypatch.delenv("EFFNET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "effnet"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache" / "effnet"


def test_cache_folder_that_is_a_file_is_refused(server, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        UserError, match=r"the cache folder .* cannot be used: .*; name another one in EFFNET_CACHE"
    ):
        _open(server)


# What is expected


def test_expected_files_are_fetched_ahead_in_order(server, cached, monkeypatch):
    monkeypatch.setattr(remote, "FETCHERS", 1)
    images = _open(server)
    server.requests.clear()
    images.expect(np.arange(IMAGES)[::-1].copy())
    _wait_until(lambda: len(_files(cached, "train-*-24.arrow")) == 5)
    assert [name for name, _ in server.requests] == [
        f"train-0000{shard}-24.arrow" for shard in (4, 3, 2, 1, 0)
    ]
    images.expect(np.arange(IMAGES))
    time.sleep(0.05)
    assert len(server.requests) == 5


def test_levels_that_are_read_are_expected(server, cached):
    images = _open(server)
    images.read(0).read(1)
    images.expect(np.arange(SHARD, 2 * SHARD))
    _wait_until(lambda: _files(cached, "train-00001-*") == ["train-00001-24.arrow", "train-00001-48.arrow"])


def test_no_more_is_expected_than_half_the_cache_holds(server, store, cached, monkeypatch):
    monkeypatch.setattr(remote, "FETCHERS", 1)
    sizes = [(store / f"train-0000{shard}-24.arrow").stat().st_size for shard in range(5)]
    monkeypatch.setenv("EFFNET_CACHE_GB", str(2 * (sum(sizes[:2]) + 1) / 1e9))
    images = _open(server)
    images.expect(np.arange(IMAGES))
    _wait_until(lambda: len(_files(cached, "train-*-24.arrow")) == 2)
    time.sleep(0.05)
    assert _files(cached, "train-*-24.arrow") == ["train-00000-24.arrow", "train-00001-24.arrow"]


def test_expecting_does_not_wait_and_a_lost_server_is_told_to_who_reads(server):
    images = _open(server)
    server.fault = lambda name: "dead"
    images.expect(np.arange(IMAGES))
    with pytest.raises(UnreachableError):
        images.read(0).read(0)
    _wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name == "effnet-fetch"])


# Addresses


def test_address_without_a_store_is_refused(server):
    server.folder = server.folder.parent
    with pytest.raises(UserError) as caught:
        open_data(server.address + "/", val_fraction=0.2, split_seed=0)
    assert str(caught.value) == (
        f"'{server.address}' cannot be read: store.json: is not there; give the address of a "
        "folder that `effnet data prepare` wrote"
    )


def test_server_that_never_answers_is_a_mistake_in_the_address(server):
    server.fault = lambda name: "dead"
    with pytest.raises(
        UserError, match=r"cannot be read: store.json: .* \(4 attempts in \d s\); give the add"
    ):
        _open(server)


def test_page_that_is_no_manifest_is_refused(server, tmp_path):
    (tmp_path / "store.json").write_text("<html>")
    server.folder = tmp_path
    with pytest.raises(UserError, match=r"/store/store.json is not JSON"):
        _open(server)


def test_unknown_kind_of_address_is_refused(cached):
    with pytest.raises(
        UserError, match=r"'ftq://host/store' cannot be read: .*; addresses begin with https://"
    ):
        open_data("ftq://host/store", val_fraction=0.2, split_seed=0)


@pytest.mark.parametrize(("scheme", "package"), [("https", "aiohttp"), ("s3", "s3fs")])
def test_missing_package_is_named(cached, monkeypatch, scheme, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError) as caught:
        open_data(f"{scheme}://bucket/store", val_fraction=0.2, split_seed=0)
    assert (
        str(caught.value)
        == f"to read {scheme}:// addresses a package is missing: pip install 'effnet[remote]'"
    )


def test_any_file_system_of_fsspec_will_do(store, cached):
    images, _ = open_remote_store(f"file://{store}")
    assert images.read(3).read(1) == _like_local(store).read(3).read(1)


def test_address_stays_as_it_is():
    assert absolute_source("s3://bucket/store") == "s3://bucket/store"
