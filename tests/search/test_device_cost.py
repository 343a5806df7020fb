"""Networks are compared by their ratio to one reference, whatever the machine does meanwhile."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from effnet.arch import NetworkSpec, StageSpec, network_cost
from effnet.config import Config, DataConfig, TrainConfig
from effnet.search.device_cost import DeviceCost
from effnet.search.turns import Budget
from effnet.training import timing

QUICK = Budget(seconds=0.2)
_STAGE = StageSpec(operation="mbconv", kernel_size=3, stride=2, expand_ratio=2, channels=8, repeats=1)
SMALL = NetworkSpec(
    name="small",
    stages=(_STAGE,),
    stem_channels=8,
    head_channels=8,
    image_size=24,
    train_size=16,
    num_classes=7,
)
LARGE = replace(SMALL, name="large", stages=(replace(_STAGE, repeats=3),), image_size=48, train_size=32)
CONFIG = Config(data=DataConfig(source="nowhere"), train=TrainConfig(batch_size=4, device="cpu"))


def test_steps_are_of_the_batch_and_training_size_and_drift_cancels(monkeypatch):
    clock = SimpleNamespace(now=0.0, pace=1e-9, seen=set())

    def step(state, batch, experiment):
        size = batch.settings.image_size
        clock.seen.add((len(experiment.spec.stages), len(batch.labels), size, experiment.spec.num_classes))
        clock.now += clock.pace * network_cost(experiment.spec, size).macs * len(batch.labels)

    monkeypatch.setattr(
        timing, "time", SimpleNamespace(monotonic=lambda: clock.now, process_time=lambda: clock.now)
    )
    monkeypatch.setattr(timing, "train_step", step)
    device = DeviceCost(CONFIG, SMALL, "step_ms", QUICK)
    small, large = (4e-6 * network_cost(spec, spec.train_size).macs for spec in (SMALL, LARGE))
    assert device(SMALL) == pytest.approx(small)
    clock.pace *= 3
    assert device(LARGE) == pytest.approx(large)
    assert device.reference_ms == pytest.approx(small)
    assert clock.seen == {(1, 4, 16, 7), (1, 4, 32, 7)}


@pytest.mark.parametrize("kind", ["step_ms", "latency_ms"])
def test_real_networks_are_measured(kind):
    device = DeviceCost(CONFIG, SMALL, kind, QUICK)
    assert device(LARGE) > 0
