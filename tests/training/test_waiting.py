"""What counts as waiting for images, on a processor and on a GPU that is made up."""

import time
from types import SimpleNamespace

import pytest
import torch

from effnet.config import AugmentConfig, Config, DataConfig
from effnet.training import stopwatch, waiting
from effnet.training.waiting import WaitClock, wait_advice


class World:
    """A host and a GPU with clocks of their own; the GPU does what is queued, one thing behind the other."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        self.gpu_is_done_at = 0.0
        monkeypatch.setattr(stopwatch, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(WaitClock, "_mark", lambda clock: self.mark())

    def mark(self):
        """Return an event that the GPU reaches once it has done what is queued."""
        self.gpu_is_done_at = reached = max(self.gpu_is_done_at, self.now)
        return SimpleNamespace(reached=reached, elapsed_time=lambda end: 1000 * (end.reached - reached))

    def batches(self, seconds, count):
        for _ in range(count):
            self.now += seconds
            yield SimpleNamespace()

    def queue(self, seconds):
        self.gpu_is_done_at = max(self.gpu_is_done_at, self.now) + seconds


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def test_on_a_processor_all_time_until_a_batch_comes_is_waiting(world):
    clock = WaitClock(torch.device("cpu"))
    for _ in clock.watch(world.batches(seconds=3.0, count=4)):
        world.now += 1.0
    assert clock.take() == 12.0
    assert clock.take() == 0.0


@pytest.mark.parametrize(
    ("launch", "step", "load", "wait"),
    [
        (1.0, 10.0, 4.0, 0.0),  # the GPU is busy all the time
        (1.0, 10.0, 14.0, 5.0),  # a batch every 15 s for 10 s of work, which begins when the launch does
        (1.0, 2.0, 3.0, 2.0),
        (8.0, 2.0, 1.0, 1.0),  # launching takes longer than the work; only the wait for the batch counts
    ],
)
def test_on_a_gpu_waiting_counts_while_the_gpu_is_idle(world, launch, step, load, wait):
    clock = WaitClock(torch.device("cuda"))
    batches = clock.watch(world.batches(seconds=load, count=21))
    next(batches)
    assert clock.take() == load  # nothing is queued before the first batch
    for _ in range(20):
        world.queue(step)
        world.now += launch
        next(batches)
    assert clock.take() == pytest.approx(20 * wait)
    assert clock.take() == 0.0


def test_what_the_gpu_does_for_a_batch_is_no_waiting(world):
    """As where it cuts the batch out of images that it keeps."""
    clock = WaitClock(torch.device("cuda"))

    def batches():
        for _ in range(11):
            world.now += 0.5
            world.queue(4.0)
            yield SimpleNamespace()

    watched = clock.watch(batches())
    next(watched)
    clock.take()
    for _ in range(10):
        world.now = world.gpu_is_done_at  # so that nothing is left to do
        next(watched)
    assert clock.take() == pytest.approx(10 * 0.5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_real_gpu_that_is_busy_does_not_wait():
    busy, idle = (WaitClock(torch.device("cuda")) for _ in range(2))
    factor = torch.randn(4096, 4096, device="cuda")

    def batches():
        for _ in range(6):
            time.sleep(0.02)
            yield SimpleNamespace()

    for clock, products in ((busy, 200), (idle, 0)):
        watched = clock.watch(batches())
        next(watched)
        torch.cuda.synchronize()
        clock.take()
        for _ in range(5):
            for _ in range(products):
                factor @ factor
            next(watched)
        torch.cuda.synchronize()
    assert busy.take() < idle.take() / 2


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Folders of images and of a prepared store, in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "store"):
        (tmp_path / name).mkdir()
    (tmp_path / "store" / "store.json").touch()


@pytest.mark.parametrize(
    ("workers", "place", "is_gpu", "source", "ways"),
    [
        (
            2,
            "worker",
            True,
            "photos",
            "raise data.workers from 2 to the 16 processors; set augment.place=device; "
            "store small copies of the images with `effnet data prepare`; ",
        ),
        (0, "worker", False, "photos", "store small copies of the images with `effnet data prepare`; "),
        (16, "device", True, "photos", "store small copies of the images with `effnet data prepare`; "),
        (1, "worker", False, "digits", "raise data.workers from 1 to the 16 processors; "),
        (0, "device", True, "https://example.org/store", ""),
        (0, "device", True, "store", ""),
    ],
)
@pytest.mark.usefixtures("made")
def test_advice_names_what_is_not_done_yet(workers, place, is_gpu, source, ways):
    config = Config(data=DataConfig(source=source, workers=workers), augment=AugmentConfig(place=place))
    advice = wait_advice(config, is_gpu=is_gpu, processors=16)
    assert advice == ways + "`effnet tune` measures what is fastest"


@pytest.mark.usefixtures("made")
def test_advice_names_numba_where_it_lacks(monkeypatch):
    monkeypatch.setattr(waiting, "has_numba", lambda: False)
    for source, is_named in (("photos", True), ("store", True), ("digits", False)):
        advice = wait_advice(Config(data=DataConfig(source=source)), is_gpu=False, processors=2)
        assert ("pip install effnet[cpu]" in advice) == is_named


def test_resident_images_are_neither_prepared_nor_moved():
    config = Config(data=DataConfig(source="photos", workers=1, resident=True))
    assert wait_advice(config, is_gpu=True, processors=4) == (
        "raise data.workers from 1 to the 4 processors; `effnet tune` measures what is fastest"
    )


def test_without_randaugment_its_place_is_no_advice():
    config = Config(augment=AugmentConfig(operations=0, place="worker"))
    assert "augment.place" not in wait_advice(config, is_gpu=True, processors=1)
    trivial = Config(augment=AugmentConfig(method="trivialaugment", operations=0, place="worker"))
    assert "augment.place" in wait_advice(trivial, is_gpu=True, processors=1)
