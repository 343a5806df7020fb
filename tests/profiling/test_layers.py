from __future__ import annotations

import pytest

from effnet.arch import NetworkSpec, StageSpec, load_spec, scale
from effnet.arch.accounting import network_cost
from effnet.nn.cost import forward_macs
from effnet.profiling.layers import Layer, layers_of
from effnet.profiling.work import Work

NAMES = ["v1-b0", "v2-s", "resnet-50", "mobilenet-v1"]


def _layers(is_training: bool = True) -> dict[str, Layer]:
    """One MBConv block with a gate, 4 channels in and out, expanded by 2, 6 x 6 pixels behind the stem."""
    stage = StageSpec(
        operation="mbconv", kernel_size=5, stride=1, expand_ratio=2, channels=4, repeats=1, se_ratio=0.25
    )
    spec = NetworkSpec(
        name="one",
        stages=(stage,),
        stem_channels=4,
        head_channels=16,
        num_classes=10,
        image_size=12,
        train_size=12,
    )
    layers = layers_of(spec, image_size=12, batch=3, is_training=is_training)
    return {layer.name: layer for layer in layers}


@pytest.mark.parametrize("name", NAMES)
def test_the_sums_equal_the_accounting_of_the_network(name):
    spec, image_size = scale(load_spec(name), depth=0.3), 75
    layers = layers_of(spec, image_size=image_size, batch=2, is_training=True)
    cost = network_cost(spec, image_size)
    assert sum(layer.count * layer.params for layer in layers) == cost.params
    assert sum(layer.count * layer.macs for layer in layers) == 2 * cost.macs
    assert cost.macs == forward_macs(spec, image_size)
    convolutions = [layer for layer in layers if "1x1" in layer.kind or "x" in layer.kind[-3:]]
    outputs = sum(layer.count * layer.activations for layer in convolutions if layer.macs)
    own = [one for one in cost.layers if "squeeze" not in one.name and one.name not in {"stem", "classifier"}]
    gates = sum(layer.count * layer.activations for layer in layers if layer.kind == "squeeze-excite")
    assert outputs == 2 * sum(one.activations for one in own)
    assert (gates > 0) == any("squeeze" in one.name for one in cost.layers)


def test_answers_have_no_batch_norm_and_the_same_arithmetic():
    spec = load_spec("v2-b0")
    layers = layers_of(spec, image_size=64, batch=1, is_training=False)
    assert "batch norm" not in {layer.kind for layer in layers}
    assert sum(layer.count * layer.macs for layer in layers) == network_cost(spec, 64).macs
    assert {name for layer in layers for name in layer.work(4)} == {"forward"}


def test_layers_that_are_alike_are_one():
    layers = layers_of(load_spec("v2-s"), image_size=32, batch=2, is_training=True)
    counts = {layer.name: layer.count for layer in layers}
    assert counts["stages.2.1.expand.conv"] == 3  # Four repeats, of which the first has other channels.
    assert counts["stages.3.1.drop_path"] == 5


def test_the_work_of_a_block_by_hand():
    """3 images of 6 x 6 pixels: 108 values a channel; two bytes a value, four a weight."""
    layers = _layers()
    pixels = 3 * 6 * 6
    expand = layers["stages.0.0.expand.conv"]
    assert (expand.kind, expand.count, expand.params) == ("1x1 expand", 1, 4 * 8)
    once = Work(macs=pixels * 4 * 8, bytes=2 * pixels * (4 + 8) + 4 * 32)
    assert expand.work(2) == {"forward": once, "input gradient": once, "weight gradient": once}
    depthwise = layers["stages.0.0.depthwise.conv"]
    once = Work(macs=pixels * 8 * 25, bytes=2 * pixels * (8 + 8) + 4 * 8 * 25)
    assert depthwise.work(2) == {"forward": once, "input gradient": once, "weight gradient": once}
    norm = layers["stages.0.0.expand.norm"]
    assert (norm.kind, norm.count, norm.params) == ("batch norm", 2, 16)
    assert norm.work(2) == {
        "forward": Work(macs=0, bytes=2 * pixels * 16 + 4 * 16),
        "backward": Work(macs=0, bytes=2 * pixels * 24 + 2 * 4 * 16),
    }
    activation = layers["stages.0.0.expand.act"]
    assert activation.work(2) == {
        "forward": Work(macs=0, bytes=2 * pixels * 16),
        "backward": Work(macs=0, bytes=2 * pixels * 24),
    }
    gate = layers["stages.0.0.squeeze_excite"]
    assert gate.params == 8 * 1 + 1 + 1 * 8 + 8
    assert gate.work(2) == {
        "forward": Work(macs=3 * (8 + 8), bytes=2 * pixels * 16 + 4 * 25),
        "backward": Work(macs=2 * 3 * (8 + 8), bytes=2 * pixels * 24 + 2 * 4 * 25),
    }
    residual = layers["stages.0.0.drop_path"]
    assert residual.work(2) == {
        "forward": Work(macs=0, bytes=2 * pixels * 12),
        "backward": Work(macs=0, bytes=2 * pixels * 8),
    }


def test_the_ends_of_a_network_by_hand():
    layers = _layers()
    pixels, weights = 3 * 6 * 6, 9 * 3 * 4
    stem = layers["stem.conv"]
    assert stem.work(2) == {
        "forward": Work(macs=pixels * weights, bytes=4 * 3 * 3 * 144 + 2 * pixels * 4 + 4 * weights),
        "weight gradient": Work(macs=pixels * weights, bytes=2 * 3 * 3 * 144 + 2 * pixels * 4 + 4 * weights),
    }
    assert layers["pool"].work(2) == {
        "forward": Work(macs=0, bytes=2 * (pixels * 16 + 3 * 16)),
        "backward": Work(macs=0, bytes=2 * (pixels * 16 + 3 * 16)),
    }
    assert layers["classifier"].macs == 3 * 16 * 10
    assert layers["classifier"].params == 16 * 10 + 10
