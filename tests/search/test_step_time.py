"""What networks cost beside each other, with a made-up clock and once with the real one."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest

from effnet.arch import NetworkSpec, StageSpec
from effnet.arch.accounting import network_cost
from effnet.config import Config, DataConfig, ProgressiveConfig, TrainConfig
from effnet.search.step_time import measure_latency, measure_step, step_images
from effnet.search.turns import Budget
from effnet.training import timing
from effnet.training.experiment import Experiment
from effnet.training.unread import prepare_unread

QUICK = Budget(seconds=0.2)
_STAGE = StageSpec(operation="mbconv", kernel_size=3, stride=2, expand_ratio=2, channels=8, repeats=1)
SMALL = NetworkSpec(
    name="small", stages=(_STAGE,), stem_channels=8, head_channels=8, image_size=32, train_size=32
)
LARGE = replace(SMALL, name="large", stages=(replace(_STAGE, channels=16, repeats=3),))


@pytest.fixture
def experiment() -> Experiment:
    config = Config(
        data=DataConfig(source="digits", train_images=100, classes=10),
        progressive=ProgressiveConfig(stages=2, image_size=(16, 32)),
        train=TrainConfig(epochs=4.0, batch_size=16, device="cpu"),
    )
    return prepare_unread(replace(config, model=replace(config.model, network="v2-b0")))


@pytest.fixture
def clock(monkeypatch):
    """Steps take as long as they have multiply-adds, a nanosecond each."""
    clock = SimpleNamespace(now=0.0, steps=[])

    def step(state, batch, experiment):
        clock.steps.append((experiment.spec, len(batch.labels), batch.settings.image_size))
        macs = network_cost(experiment.spec, batch.settings.image_size).macs
        clock.now += 1e-9 * macs * len(batch.labels)

    monkeypatch.setattr(
        timing, "time", SimpleNamespace(monotonic=lambda: clock.now, process_time=lambda: clock.now)
    )
    monkeypatch.setattr(timing, "train_step", step)
    return clock


def test_the_ratio_is_that_of_the_times_at_the_largest_size(experiment, clock):
    result = measure_step(experiment, LARGE, SMALL, QUICK, images=8)
    macs = [network_cost(replace(spec, num_classes=10), 32).macs for spec in (LARGE, SMALL)]
    assert result.ratio == pytest.approx(macs[0] / macs[1])
    assert result.step_ms == pytest.approx(macs[0] * 8 * 1e-6)
    assert result.reference_ms == pytest.approx(macs[1] * 8 * 1e-6)
    assert (result.images, result.image_size, result.spread) == (8, 32, pytest.approx(0.0))
    assert {(images, size) for _, images, size in clock.steps} == {(8, 32)}
    assert {spec.num_classes for spec, _, _ in clock.steps} == {10}


def test_networks_take_turns(experiment, clock):
    measure_step(experiment, LARGE, SMALL, QUICK)
    names = [spec.name for spec, _, _ in clock.steps]
    changes = sum(before != after for before, after in pairwise(names))
    assert changes >= 6  # Three rounds, however slow the machine is.


def test_steps_and_forward_passes_are_measured(experiment):
    before = experiment.config
    step = measure_step(experiment, LARGE, SMALL, QUICK)
    latency = measure_latency(experiment, LARGE, SMALL, QUICK)
    assert experiment.config == before
    assert min(step.ratio, step.step_ms, step.reference_ms, step.memory_mb, step.rounds) > 0
    assert min(latency.ratio, latency.latency_ms, latency.reference_ms, latency.rounds) > 0
    assert (latency.images, latency.image_size) == (1, experiment.preprocessing.image_size)


def test_a_processor_has_fewer_images_in_a_step_of_a_large_reference(experiment):
    def images(network: NetworkSpec, batch_size: int) -> int:
        settings = replace(experiment.schedule.stages[-1], batch_size=batch_size)
        return step_images(experiment, settings, network)

    wide = replace(LARGE, stem_channels=1024)
    assert images(SMALL, 16) == 16
    assert 4 < images(SMALL, 10**6) < 10**6
    assert images(wide, 10**6) < images(SMALL, 10**6)
    assert images(replace(wide, stages=(replace(_STAGE, kernel_size=9, channels=2048),)), 10**6) >= 4
