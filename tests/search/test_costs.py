"""The parts of a step against the network's own accounting."""

from __future__ import annotations

from dataclasses import replace

import pytest

from effnet.arch import NetworkSpec, StageSpec, network
from effnet.arch.accounting import network_cost
from effnet.search.costs import PARTS, step_parts


def parts(spec: NetworkSpec, image_size: int, images: int = 1) -> dict[str, float]:
    return dict(zip(PARTS, step_parts(spec, image_size, images), strict=True))


@pytest.mark.parametrize("name", ["v1-b0", "v2-s", "v1-b4.fused1-5", "resnet-50", "mobilenet-v1"])
def test_nothing_is_left_out(name):
    spec = network(name)
    found, cost = parts(spec, 96), network_cost(spec, 96)
    small = sum(
        layer.macs for layer in cost.layers if "squeeze_excite" in layer.name or layer.name == "classifier"
    )
    assert found["spatial_macs"] + found["pointwise_macs"] + found["depthwise_macs"] == cost.macs - small
    assert (found["params"], found["layers"]) == (cost.params, len(cost.layers))


def stage(operation: str, se_ratio: float = 0.0) -> StageSpec:
    return StageSpec(
        operation=operation,
        kernel_size=5,
        stride=1,
        expand_ratio=4,
        channels=8,
        repeats=1,
        se_ratio=se_ratio,
    )


def tiny(only: StageSpec) -> NetworkSpec:
    return NetworkSpec(
        name="tiny", stages=(only,), stem_channels=8, head_channels=16, image_size=8, train_size=8
    )


def test_an_mbconv_by_hand():
    found = parts(tiny(stage("mbconv", 0.25)), 8)
    assert found["spatial_macs"] == 9 * 3 * 8 * 16
    assert found["pointwise_macs"] == (2 * 8 * 32 + 8 * 16) * 16
    assert found["depthwise_macs"] == 25 * 32 * 16
    assert found["values"] == (8 + 32 + 8 + 16) * 16
    assert found["depthwise_values"] == found["squeeze_values"] == 32 * 16


def test_a_fused_mbconv_by_hand():
    found = parts(tiny(stage("fused_mbconv")), 8)
    assert found["spatial_macs"] == (9 * 3 * 8 + 25 * 8 * 32) * 16
    assert found["pointwise_macs"] == (8 * 32 + 8 * 16) * 16
    assert found["depthwise_macs"] == found["squeeze_values"] == 0.0
    alone = parts(tiny(replace(stage("fused_mbconv"), expand_ratio=1)), 8)
    assert alone["spatial_macs"] == (9 * 3 * 8 + 25 * 8 * 8) * 16


def test_only_what_is_done_for_each_image_grows_with_the_images():
    one, many = parts(network("v1-b0"), 64), parts(network("v1-b0"), 64, 32)
    grown = {name for name in PARTS if many[name] == 32 * one[name]}
    assert grown == set(PARTS) - {"constant", "layers", "params"}
    assert all(many[name] == one[name] for name in set(PARTS) - grown)
