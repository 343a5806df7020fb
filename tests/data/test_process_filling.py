"""Processes that fill batches give what threads give, say what ends them, and end with who asked them."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from multiprocessing import Pipe
from operator import getitem
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from effnet.arch import Preprocessing
from effnet.config import AugmentConfig, DataConfig
from effnet.data import process_filling
from effnet.data.copies import CopySettings
from effnet.data.failures import WorkerError
from effnet.data.filling import TrainPlan, Views
from effnet.data.images import LabelledImages
from effnet.data.jpeg_scan import ScanMemory
from effnet.data.loader import Share, eval_batches, train_batches
from effnet.data.prepare import prepare_store
from effnet.data.process_filling import filler, why_not_sendable
from effnet.data.sources import open_data
from effnet.errors import UserError

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memory without a name")
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
            "read": partial(getitem, files),
        }
        return LabelledImages(**given | more)

    return make


def ours(found, schedule, kind, *, workers=2, augment=None, most_bad=0.05, damaged="skip", **more):
    data = DataConfig(workers=workers, worker_kind=kind, max_bad_fraction=most_bad, damaged=damaged)
    return train_batches(found, schedule, data, augment or AugmentConfig(policy="relative"), seed=3, **more)


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert (one.step, one.settings, one.bad) == (other.step, other.settings, other.bad)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert (one.drawn is None) == (other.drawn is None)
        if one.drawn is not None:
            for name in ("is_mirrored", "operations", "arguments", "places", "patches"):
                assert np.array_equal(getattr(one.drawn, name), getattr(other.drawn, name))


def children():
    """Return the numbers of all processes that this one has started and that run."""
    found = [
        int(number)
        for file in Path("/proc/self/task").glob("*/children")
        for number in file.read_text().split()
    ]
    return {number for number in found if is_running(number)}


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(autouse=True)
def none_left_behind():
    before = children()
    yield
    assert children() == before


@pytest.mark.parametrize(("workers", "place", "damaged"), [(3, "worker", "skip"), (2, "device", "repair")])
def test_batches_are_those_of_threads_and_so_is_what_is_bad(images, two_stages, workers, place, damaged):
    schedule, found = two_stages(IMAGES), images(bad=(3, 8, 9))
    augment = AugmentConfig(method="trivialaugment", cutout=0.5, place=place)
    expected = list(ours(found, schedule, "threads", augment=augment, most_bad=0.2, damaged=damaged))
    assert sum(len(batch.bad) for batch in expected) == 3
    batches = ours(
        found, schedule, "processes", workers=workers, augment=augment, most_bad=0.2, damaged=damaged
    )
    assert_equal(batches, expected)


def test_a_run_that_goes_on_and_shares_get_the_same_from_one_process(images, two_stages):
    schedule, whole = two_stages(IMAGES), images()
    expected = list(ours(whole, schedule, "threads", start_step=2, share=Share(1, 2)))
    assert_equal(ours(whole, schedule, "processes", workers=1, start_step=2, share=Share(1, 2)), expected)


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_a_prepared_store_gives_the_same(class_folders, two_stages, tmp_path, encoding):
    source = class_folders({"cat": 6, "dog": 5})
    prepare_store(str(source), tmp_path / "store", CopySettings(short_sides=(18,), encoding=encoding))
    train = open_data(str(tmp_path / "store"), val_fraction=0.2, split_seed=0).train
    schedule = two_stages(len(train))
    assert_equal(ours(train, schedule, "processes"), list(ours(train, schedule, "threads")))


def test_what_is_known_of_images_goes_to_a_process_and_comes_back(images, stage):
    found, settings = images(bad=(4,)), stage(image_size=16)
    views = Views(
        images=found,
        config=DataConfig(),
        augment=AugmentConfig(),
        most_bad=9,
        found_whole=np.zeros(IMAGES, bool),
        scans=ScanMemory(0),
        known_bad={1: "told before", 2: "told before", 7: "not asked for"},
    )

    def plan(samples):
        pixels = np.empty((len(samples), 16, 16, 3), np.uint8)
        return TrainPlan.of(
            found, settings, views.augment, step=0, seed=0, samples=samples, pixels=pixels
        ), range(len(samples))

    data = DataConfig(workers=1, worker_kind="processes")
    with filler(views, data, seed=0, largest_size=16) as fill:
        batch, rows = plan(range(IMAGES - 7))
        batch.order[:] = [1, 4, *range(9, IMAGES)]
        wrong = fill(batch, rows)
        assert fill(*plan(range(0))) == {}
    assert set(wrong) == {1, 2, 4}
    assert wrong[1] == wrong[2] == "told before"
    assert views.known_bad == {1: "told before", 2: "told before", 4: wrong[4], 7: "not asked for"}
    assert np.flatnonzero(views.found_whole).tolist() == [3, 5, *range(9, IMAGES)]
    assert batch.used.tolist() == [3, 5, *range(9, IMAGES)]


def test_too_many_bad_images_stop_the_run(images, two_stages):
    with pytest.raises(UserError, match=r"data\.max_bad_fraction"):
        list(ours(images(bad=range(12)), two_stages(IMAGES), "processes"))


def test_what_nobody_expects_names_process_and_image(images, two_stages):
    died = r"loader thread effnet-data-\d \(a process\) died at image \d+: KeyError: \d+"
    with pytest.raises(WorkerError, match=died):
        list(ours(images(read=partial(getitem, {})), two_stages(IMAGES), "processes"))


def test_what_a_process_cannot_import_is_told(images, two_stages, monkeypatch):
    module = ModuleType("only_here")
    exec("def read(index): return b''", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(WorkerError, match=r"\(a process\) died: ModuleNotFoundError: .*only_here"):
        list(ours(images(read=module.read), two_stages(IMAGES), "processes", workers=1))


def test_a_process_that_is_killed_is_named(images, two_stages):
    before = children()
    schedule = two_stages(IMAGES)
    with closing(ours(images(), schedule, "processes")) as batches:
        next(batches)
        for pid in children() - before:
            os.kill(pid, signal.SIGKILL)
        why = r"loader process effnet-data-\d has ended with -9; .* memory ran out"
        with pytest.raises(WorkerError, match=why):
            list(batches)


def test_a_process_whose_end_of_the_pipe_somebody_holds_is_named_when_it_dies(
    images, two_stages, monkeypatch
):
    held, before = [], children()

    def held_pipe():
        ours, theirs = Pipe()
        held.append(os.dup(theirs.fileno()))
        return ours, theirs

    monkeypatch.setattr("effnet.data.worker_processes.Pipe", held_pipe)
    monkeypatch.setattr("effnet.data.worker_main._LOOK_SECONDS", 0.1)
    with closing(ours(images(), two_stages(IMAGES), "processes", workers=1)) as batches:
        next(batches)
        for pid in children() - before:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="ended with -9"):
            list(batches)
    for descriptor in held:
        os.close(descriptor)


def test_they_leave_requests_to_stop_to_who_trains_and_are_only_so_many(images, two_stages, monkeypatch):
    monkeypatch.setattr("effnet.data.worker_processes.MOST_PROCESSES", 2)
    schedule, before = two_stages(IMAGES), children()
    with closing(ours(images(), schedule, "processes", workers=5)) as batches:
        found = [next(batches)]
        assert len(children() - before) == 2
        for pid in children() - before:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        found += list(batches)
    assert_equal(found, list(ours(images(), schedule, "threads")))


def test_they_end_when_no_more_is_asked_of_them(images, two_stages):
    before = children()
    with closing(ours(images(), two_stages(IMAGES), "processes")) as batches:
        next(batches)
        assert len(children() - before) == 2
    assert children() == before


@pytest.mark.parametrize("antialias", [False, True])
def test_images_to_evaluate_on_are_those_of_threads(images, antialias):
    found = images(bad=(0, 8))
    seen = Preprocessing(image_size=12, antialias=antialias)
    expected, batches = (
        list(eval_batches(found, seen, batch_size=9, workers=2, worker_kind=kind))
        for kind in ("threads", "processes")
    )
    assert sum(len(batch.bad) for batch in expected) == 2
    for one, other in zip(batches, expected, strict=True):
        assert one.bad == other.bad
        for name in ("images", "labels", "indices"):
            assert torch.equal(getattr(one, name), getattr(other, name))


def test_what_nobody_expects_while_evaluating_names_process_and_image(images):
    found = images(read=partial(getitem, {}))
    died = r"thread effnet-data-0 \(a process\) died at image \d+: KeyError"
    with pytest.raises(WorkerError, match=died):
        list(
            eval_batches(found, Preprocessing(image_size=8), batch_size=9, workers=1, worker_kind="processes")
        )


ORPHANS = """
import os, signal, sys, time
from functools import partial
from multiprocessing import Pipe
from operator import getitem
from pathlib import Path
import numpy as np
from effnet.config import AugmentConfig, DataConfig
from effnet.data.images import LabelledImages
from effnet.data.loader import train_batches
from effnet.schedule.progressive import StageSchedule, StageSettings

print("begins", flush=True)
pixels = np.zeros((8, 9, 9, 3), np.uint8)
images = LabelledImages(class_names=("x",), labels=np.zeros(8, np.int64), names=list("abcdefgh"),
                        read=partial(getitem, pixels))
stage = StageSettings(stage=0, start_step=0, end_step=99, image_size=8, batch_size=4,
                      randaugment_magnitude=0.0, mixup_alpha=0.0, cutmix_alpha=0.0,
                      dropout_rate=0.0, drop_path_rate=0.0)
data = DataConfig(workers=2, worker_kind="processes")
batches = train_batches(images, StageSchedule((stage,), 8, 4), data, AugmentConfig(), seed=0)
next(batches)
started = [pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]
if sys.argv[1] == "killed":
    beside = os.fork()  # It holds open whatever this process holds open.
    if not beside:
        os.closerange(0, 3)
        time.sleep(60)
        os._exit(0)
    print(beside, *started, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
print(os.getpid(), *started, flush=True)
kept = batches  # Nobody closes them.
"""


@pytest.mark.parametrize(("end", "code"), [("killed", -signal.SIGKILL), ("without closing", 0)])
def test_they_end_with_who_trains_however_it_ends_and_never_run_its_program(tmp_path, end, code):
    (tmp_path / "program.py").write_text(ORPHANS)
    command = [sys.executable, str(tmp_path / "program.py"), end]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    first, *lines = done.stdout.splitlines()
    assert (first, len(lines)) == ("begins", 1)
    beside, *left = (int(number) for number in lines[0].split())
    try:
        assert len(left) == 2
        until = time.monotonic() + 30
        while any(is_running(pid) for pid in left) and time.monotonic() < until:
            time.sleep(0.05)
        assert not any(is_running(pid) for pid in left)
    finally:
        if end == "killed":
            os.kill(beside, signal.SIGKILL)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"expect": lambda soon: None}, "fetched many at a time"),
        ({"blocks": (IMAGES,)}, "fetched many at a time"),
        ({"read": lambda index: b""}, "cannot be sent to another process: .*lambda"),
    ],
    ids=["expect", "blocks", "lambda"],
)
def test_images_that_they_cannot_read_are_refused(images, two_stages, more, why):
    found = images(**more)
    assert not why_not_sendable(images())
    with pytest.raises(UserError, match=rf"'processes', but .*{why}.*; set data\.worker_kind=threads"):
        next(ours(found, two_stages(IMAGES), "processes"))


def test_systems_without_such_memory_are_told(images, monkeypatch):
    monkeypatch.setattr(process_filling, "can_start_processes", lambda: False)
    assert "no memory that processes can be given" in why_not_sendable(images())


def test_a_process_need_not_import_torch():
    code = (
        "import sys, effnet.data.worker_main, effnet.data.process_filling; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
