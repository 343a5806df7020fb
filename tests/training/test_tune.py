"""Which loader settings are fastest, with clocks that are made up and once with the real ones."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from effnet.arch import NetworkSpec, StageSpec, spec_to_json
from effnet.config import AugmentConfig, Config, DataConfig, ModelConfig, ProgressiveConfig, TrainConfig
from effnet.data.loader import Batch
from effnet.training import stopwatch, timing
from effnet.training import tune as tune_module
from effnet.training.experiment import Experiment, prepare_experiment
from effnet.training.tune import tune


@pytest.fixture
def experiment(tmp_path) -> Experiment:
    """Two stages: 35 steps of 80 images at 16 px, then 36 at 32 px."""
    stage = StageSpec(operation="mbconv", kernel_size=3, stride=2, expand_ratio=2, channels=8, repeats=1)
    spec = NetworkSpec(
        name="tiny", stages=(stage,), stem_channels=8, head_channels=8, image_size=32, train_size=32
    )
    (tmp_path / "tiny.json").write_text(spec_to_json(spec))
    return prepare_experiment(
        Config(
            model=ModelConfig(network=str(tmp_path / "tiny.json")),
            data=DataConfig(source="digits"),
            progressive=ProgressiveConfig(stages=2, image_size=(16, 32)),
            train=TrainConfig(epochs=4.0, batch_size=80, device="cpu"),
        )
    )


class Machine:
    """A machine on which all takes a known time: nothing goes on beside anything else."""

    def __init__(self, monkeypatch, *, step, load, on_device, processors=16, most_threads=3):
        self.now, self.step, self.load, self.on_device = 0.0, step, load, on_device
        self.most_threads = most_threads
        self.orders: set[tuple[int, int]] = set()
        clock = SimpleNamespace(monotonic=lambda: self.now)
        for module in (tune_module, timing, stopwatch):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(tune_module, "run_batches", self.run_batches)
        for module in (tune_module, timing):
            monkeypatch.setattr(module, "train_step", self.train_step)
        monkeypatch.setattr(tune_module, "thread_count", lambda workers: workers or processors)

    def run_batches(self, experiment, schedule, *, seed):
        settings, data, augment = schedule.stages[0], experiment.config.data, experiment.config.augment
        self.orders.add((data.workers, seed))
        seconds = self.load * (0.5 if augment.place == "device" else 1.0) * settings.image_size
        self.now += 7.0  # Nobody is to count what it takes to get going.
        for step in range(schedule.total_steps):
            self.now += seconds * settings.batch_size / min(data.workers or 1, self.most_threads)
            yield Batch(
                images=torch.zeros(settings.batch_size, 1, 1, 3, dtype=torch.uint8),
                labels=torch.zeros(settings.batch_size, dtype=torch.int64),
                settings=settings,
                step=step,
                drawn=None,
                bad=(),
            )

    def train_step(self, state, batch, experiment):
        assert batch.step == 0
        is_on_device = experiment.config.augment.place == "device"
        self.now += (
            (self.step + self.on_device * is_on_device) * len(batch.labels) * batch.settings.image_size
        )


def test_speeds_are_those_of_the_machine(experiment, monkeypatch):
    # 10 images at 32 px are the most that a step of half a second has.
    machine = Machine(monkeypatch, step=0.048 / 32, load=0.03 / 32, on_device=0.05 / 32)
    tuning = tune(experiment, lambda text: None)
    worker, device = tuning.places
    assert (worker.place, device.place) == ("worker", "device")
    for speed in tuning.places:
        assert [stage.settings for stage in speed.stages] == list(experiment.schedule.stages)
        assert [stage.measured_batch_size for stage in speed.stages] == [20, 10]
        # More threads than three do not help on this machine; twice as many are tried once.
        assert speed.workers == 4
        assert [sorted(stage.loader) for stage in speed.stages] == [[1, 2, 4, 8]] * 2
    small, large = worker.stages
    assert large.network == pytest.approx(1 / 0.048)
    assert large.loader == pytest.approx({1: 1 / 0.03, 2: 2 / 0.03, 4: 3 / 0.03, 8: 3 / 0.03})
    assert large.together == pytest.approx(1 / (0.048 + 0.01))
    assert large.data_wait == pytest.approx(0.01 / 0.058)
    assert small.network == pytest.approx(2 / 0.048)
    assert small.loader[2] == pytest.approx(4 / 0.03)
    large = device.stages[1]
    assert large.network == pytest.approx(1 / 0.098)
    assert large.loader[4] == pytest.approx(3 / 0.015)
    assert large.together == pytest.approx(1 / 0.103)
    assert worker.seconds == pytest.approx(36 * 80 * 0.058 + 35 * 80 * 0.029)
    assert len({seed for workers, seed in machine.orders if workers}) == 4


@pytest.mark.parametrize(
    ("on_device", "changes"),
    [
        (0.0, {"data.workers": 4, "augment.place": "device"}),
        (1.0, {"data.workers": 4, "augment.place": "worker"}),
    ],
)
def test_the_place_with_the_shortest_run_is_taken(experiment, monkeypatch, on_device, changes):
    Machine(monkeypatch, step=0.001, load=0.001, on_device=on_device)
    tuning = tune(experiment, lambda text: None)
    assert tuning.changes == changes
    assert tuning.fastest.seconds == min(speed.seconds for speed in tuning.places)


@pytest.mark.parametrize(("processors", "counts"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (6, [1, 2, 4, 6])])
def test_threads_are_tried_up_to_the_processors(experiment, monkeypatch, processors, counts):
    Machine(monkeypatch, step=1.0, load=1.0, on_device=0.0, processors=processors, most_threads=100)
    tuning = tune(experiment, lambda text: None)
    assert sorted(tuning.places[0].stages[0].loader) == counts
    assert tuning.fastest.workers == processors


def test_a_slow_loader_is_named_with_the_copies_that_would_help(experiment, monkeypatch):
    Machine(monkeypatch, step=0.001, load=0.01, on_device=0.0)
    monkeypatch.setattr(tune_module, "can_be_prepared", lambda source: source == "digits")
    tuning = tune(experiment, lambda text: None)
    assert {stage["bottleneck"] for stage in tuning.to_dict()["places"][1]["stages"]} == {"loader"}
    assert tuning.short_sides == (24, 40, 64)  # evaluation looks at the middle half


@pytest.mark.parametrize(("load", "can_be_prepared"), [(0.01, False), (0.00001, True)])
def test_nothing_is_to_be_prepared_where_that_cannot_help(experiment, monkeypatch, load, can_be_prepared):
    Machine(monkeypatch, step=0.001, load=load, on_device=0.0)
    monkeypatch.setattr(tune_module, "can_be_prepared", lambda source: can_be_prepared)
    assert tune(experiment, lambda text: None).short_sides == ()


def test_without_randaugment_there_is_no_place_to_choose(experiment, monkeypatch):
    Machine(monkeypatch, step=0.001, load=0.001, on_device=0.0)
    plain = replace(experiment, config=replace(experiment.config, augment=AugmentConfig(operations=0)))
    assert [speed.place for speed in tune(plain, lambda text: None).places] == ["worker"]


@pytest.mark.parametrize(
    "augment",
    [
        AugmentConfig(method="trivialaugment", operations=0),
        AugmentConfig(method="autoaugment", operations=0),
        AugmentConfig(operations=0, cutout=0.25),
    ],
    ids=["trivialaugment", "autoaugment", "cutout"],
)
def test_every_other_augmentation_has_a_place_to_choose(experiment, monkeypatch, augment):
    Machine(monkeypatch, step=0.001, load=0.001, on_device=0.0)
    other = replace(experiment, config=replace(experiment.config, augment=augment))
    assert [speed.place for speed in tune(other, lambda text: None).places] == ["worker", "device"]


def test_resident_images_are_measured_on_the_device_alone(experiment, monkeypatch):
    Machine(monkeypatch, step=0.001, load=0.01, on_device=0.0)
    monkeypatch.setattr(tune_module, "can_be_prepared", lambda source: True)
    data = replace(experiment.config.data, resident=True)
    tuning = tune(replace(experiment, config=replace(experiment.config, data=data)), lambda text: None)
    assert [speed.place for speed in tuning.places] == ["device"]
    assert tuning.short_sides == ()


def test_real_steps_and_batches_are_measured(experiment, monkeypatch):
    monkeypatch.setattr(tune_module, "SECONDS", 0.01)
    monkeypatch.setattr(tune_module, "_CPU_STEP_SECONDS", 0.05)
    places = set()
    real = tune_module.train_step

    def step(state, batch, run):
        places.add((run.config.augment.place, batch.drawn is not None))
        return real(state, batch, run)

    monkeypatch.setattr(tune_module, "train_step", step)
    said: list[str] = []
    tuning = tune(experiment, said.append)
    assert places == {("worker", False), ("device", True)}
    assert said[0] == "steps at 16 px"
    document = json.loads(json.dumps(tuning.to_dict()))
    assert document["changes"] == [f"{key}={value}" for key, value in tuning.changes.items()]
    assert document["prepare_short_sides"] == []
    assert [place["place"] for place in document["places"]] == ["worker", "device"]
    for place in document["places"]:
        for stage in place["stages"]:
            assert stage["network"] > 0
            assert stage["together"] > 0
            assert 0 <= stage["data_wait"] <= 1
            assert "1" in stage["loader"]
            steps = stage["end_step"] - stage["start_step"]
            assert stage["seconds"] == pytest.approx(steps * 80 / stage["together"])
