"""Processes that fill batches give what threads give, say what ends them, and end with who asked them."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from multiprocessing import active_children
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from effnet.config import AugmentConfig, DataConfig
from effnet.data.copies import CopySettings
from effnet.data.failures import WorkerError
from effnet.data.forked import shared_flags
from effnet.data.forks import can_fork
from effnet.data.images import LabelledImages
from effnet.data.loader import Share, train_batches
from effnet.data.prepare import prepare_store
from effnet.data.sources import open_data
from effnet.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
IMAGES = 23


@pytest.fixture
def images(picture, encode):
    """Images of both kinds; ``bad`` are cut off."""

    def make(bad=(), count=IMAGES, **more):
        kinds = ("JPEG", "PNG")
        files = [encode(picture(20 + index, 30, index), kinds[index % 2]) for index in range(count)]
        for index in bad:
            files[index] = files[index][:-30]
        given = {
            "class_names": ("even", "odd"),
            "labels": np.arange(count) % 2,
            "names": tuple(f"image {index}" for index in range(count)),
            "read": lambda index: files[index],
        }
        return LabelledImages(**given | more)

    return make


def ours(found, schedule, kind, *, workers=2, augment=None, most_bad=0.05, **more):
    data = DataConfig(workers=workers, worker_kind=kind, max_bad_fraction=most_bad)
    return train_batches(found, schedule, data, augment or AugmentConfig(policy="relative"), seed=3, **more)


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert (one.step, one.settings) == (other.step, other.settings)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert (one.drawn is None) == (other.drawn is None)
        if one.drawn is not None:
            for own, theirs in one.drawn._beside(other.drawn):
                assert np.array_equal(own, theirs)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("place", ["worker", "device"])
def test_batches_are_those_of_threads(images, two_stages, workers, place):
    schedule, augment = two_stages(IMAGES), AugmentConfig(method="trivialaugment", cutout=0.5, place=place)
    expected = list(ours(images(), schedule, "threads", augment=augment))
    assert_equal(ours(images(), schedule, "processes", workers=workers, augment=augment), expected)


def test_a_run_that_goes_on_and_shares_get_the_same(images, two_stages):
    schedule, whole = two_stages(IMAGES), images()
    expected = list(ours(whole, schedule, "threads", start_step=2, share=Share(1, 2)))
    assert_equal(ours(whole, schedule, "processes", start_step=2, share=Share(1, 2)), expected)


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_a_prepared_store_gives_the_same(class_folders, two_stages, tmp_path, encoding):
    source = class_folders({"cat": 6, "dog": 5})
    prepare_store(str(source), tmp_path / "store", CopySettings(short_sides=(18,), encoding=encoding))
    train = open_data(str(tmp_path / "store"), val_fraction=0.2, split_seed=0).train
    schedule = two_stages(len(train))
    assert can_fork(train)
    assert_equal(ours(train, schedule, "processes"), list(ours(train, schedule, "threads")))


def test_bad_images_are_named_as_by_threads(images, two_stages):
    damaged, schedule = images(bad=(3, 8)), two_stages(IMAGES)
    expected = list(ours(damaged, schedule, "threads", workers=1, most_bad=0.2))
    found = list(ours(damaged, schedule, "processes", workers=3, most_bad=0.2))
    assert_equal(found, expected)
    assert [batch.bad for batch in found] == [batch.bad for batch in expected]
    assert sum(len(batch.bad) for batch in found) == 2


def test_too_many_bad_images_stop_the_run(images, two_stages):
    with pytest.raises(UserError, match=r"data\.max_bad_fraction"):
        list(ours(images(bad=range(12)), two_stages(IMAGES), "processes"))
    assert not active_children()


def test_what_nobody_expects_names_process_and_image(images, two_stages):
    def read(index):
        raise ZeroDivisionError("bits are missing")

    died = (
        r"loader thread effnet-data-\d \(a process\) died at image \d+: ZeroDivisionError: bits are missing"
    )
    with pytest.raises(WorkerError, match=died):
        list(ours(images(read=read), two_stages(IMAGES), "processes"))


def test_a_process_that_is_killed_is_named(images, two_stages):
    def read(index):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(
        WorkerError, match=r"loader process effnet-data-\d has ended with -9; .* memory ran out"
    ):
        list(ours(images(read=read), two_stages(IMAGES), "processes"))
    assert not active_children()


def test_they_end_when_no_more_is_asked_of_them(images, two_stages):
    with closing(ours(images(), two_stages(IMAGES), "processes", workers=3)) as batches:
        next(batches)
        assert len(active_children()) == 3
    assert not active_children()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_they_leave_requests_to_stop_to_who_trains(images, two_stages, number):
    schedule = two_stages(IMAGES)
    with closing(ours(images(), schedule, "processes")) as batches:
        found = [next(batches)]
        for child in active_children():
            os.kill(child.pid, number)
        found += list(batches)
    assert_equal(found, list(ours(images(), schedule, "threads")))


ORPHANS = """
import os, signal, sys
from multiprocessing import active_children
import numpy as np
from effnet.config import AugmentConfig, DataConfig
from effnet.data.images import LabelledImages
from effnet.data.loader import train_batches
from effnet.schedule.progressive import StageSchedule, StageSettings

pixels = np.zeros((9, 9, 3), np.uint8)
images = LabelledImages(class_names=("x",), labels=np.zeros(8, np.int64), names=list("abcdefgh"),
                        read=lambda index: pixels)
stage = StageSettings(stage=0, start_step=0, end_step=99, image_size=8, batch_size=4,
                      randaugment_magnitude=0.0, mixup_alpha=0.0, cutmix_alpha=0.0,
                      dropout_rate=0.0, drop_path_rate=0.0)
data = DataConfig(workers=3, worker_kind="processes")
batches = train_batches(images, StageSchedule((stage,), 8, 4), data, AugmentConfig(), seed=0)
next(batches)
print(*(child.pid for child in active_children()), flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
kept = batches  # Nobody closes them.
"""


@pytest.mark.parametrize(("end", "code"), [("killed", -signal.SIGKILL), ("without closing", 0)])
def test_they_end_with_who_trains_however_it_ends(end, code):
    command = [sys.executable, "-c", ORPHANS, end]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    left = [int(number) for number in done.stdout.split()]
    assert len(left) == 3
    until = time.monotonic() + 20
    while any(is_running(pid) for pid in left) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in left)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    "more", [{"expect": lambda soon: None}, {"blocks": (IMAGES,)}], ids=["expect", "blocks"]
)
def test_images_that_they_cannot_read_are_refused(images, two_stages, more):
    found = images(**more)
    assert not can_fork(found)
    with pytest.raises(UserError, match=r"set data\.worker_kind=threads"):
        next(ours(found, two_stages(IMAGES), "processes"))


def test_a_process_that_may_start_none_has_threads(images, monkeypatch):
    assert can_fork(images())
    monkeypatch.setattr("effnet.data.forks.current_process", lambda: SimpleNamespace(daemon=True))
    assert not can_fork(images())


def test_there_are_only_so_many(images, two_stages, monkeypatch):
    monkeypatch.setattr("effnet.data.forked.MOST_FORKS", 2)
    schedule = two_stages(IMAGES)
    with closing(ours(images(), schedule, "processes", workers=5)) as batches:
        found = [next(batches)]
        assert len(active_children()) == 2
        found += list(batches)
    assert_equal(found, list(ours(images(), schedule, "threads")))


def test_flags_are_seen_by_a_process_that_was_forked_later():
    flags = shared_flags(3)
    child = os.fork()
    if not child:
        flags[1] = True
        os._exit(0)
    os.waitpid(child, 0)
    assert flags.tolist() == [False, True, False]
