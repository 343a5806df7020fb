"""The memory of a training step, where a processor does not tell."""

from __future__ import annotations

from dataclasses import replace

import pytest

from effnet.arch import NetworkSpec, StageSpec
from effnet.arch.accounting import network_cost
from effnet.config import Config, DataConfig, EmaConfig, OptimizerConfig, ProgressiveConfig, TrainConfig
from effnet.training.experiment import Experiment
from effnet.training.step_memory import step_memory
from effnet.training.unread import prepare_unread

_STAGE = StageSpec(operation="mbconv", kernel_size=3, stride=2, expand_ratio=2, channels=8, repeats=2)
SPEC = NetworkSpec(
    name="tiny", stages=(_STAGE,), stem_channels=8, head_channels=8, image_size=32, train_size=32
)


def run(*, optimizer: OptimizerConfig, ema: float) -> Experiment:
    config = Config(
        data=DataConfig(source="digits", train_images=100, classes=10),
        progressive=ProgressiveConfig(stages=1, image_size=(32, 32)),
        train=TrainConfig(batch_size=16, device="cpu"),
        optimizer=optimizer,
        ema=EmaConfig(decay=ema),
    )
    return replace(prepare_unread(config), spec=replace(SPEC, num_classes=10))


def memory(experiment: Experiment, images: int) -> int:
    return step_memory(experiment, experiment.schedule.stages[0], images)


SGD = OptimizerConfig(name="sgd", momentum=0.0)


def test_memory_grows_with_the_images_alone():
    experiment = run(optimizer=SGD, ema=0.0)
    two, four, forty = (memory(experiment, images) for images in (2, 4, 40))
    assert four - two == pytest.approx((forty - four) / 18, rel=0.02)


def test_optimizer_and_average_have_their_share():
    cost = network_cost(replace(SPEC, num_classes=10), 32)
    plain = memory(run(optimizer=SGD, ema=0.0), 4)
    slots = memory(run(optimizer=OptimizerConfig(name="rmsprop_tf"), ema=0.0), 4)
    average = memory(run(optimizer=SGD, ema=0.99), 4)
    assert slots - plain == pytest.approx(2 * 4 * cost.params, rel=0.05)
    assert average - plain == pytest.approx(4 * cost.params_with_bn_stats, rel=0.05)


def test_weights_and_gradients_stay_whatever_the_images():
    experiment = run(optimizer=SGD, ema=0.0)
    cost = network_cost(replace(SPEC, num_classes=10), 32)
    lasting = 2 * memory(experiment, 2) - memory(experiment, 4)
    assert lasting == pytest.approx(2 * 4 * cost.params + 4 * cost.norm_stats, rel=0.15)


def test_the_backward_pass_needs_what_layers_gave():
    experiment = run(optimizer=SGD, ema=0.0)
    cost = network_cost(replace(SPEC, num_classes=10), 32)
    kept = memory(experiment, 8) - memory(experiment, 4)
    # Of each convolution at least the output, for the norm behind it; with norm and activation thrice.
    assert 4 * cost.activations < kept / 4 < 4 * 4 * cost.activations
