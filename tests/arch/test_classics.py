"""MobileNetV1, MobileNetV2 and ResNet-50, and what scaling makes of them (1905.11946 table 3)."""

from __future__ import annotations

import pytest

from effnet.arch import limit_stride, network, network_cost, scale
from effnet.arch.classics import CLASSICS
from effnet.arch.compound import Coefficients, scale_by
from effnet.arch.non_uniform import scale_non_uniform
from effnet.errors import UserError

# Trainable parameters as timm and torchvision count them, multiply-adds at 224 px as torchvision states them
# (MobileNetV1: 569 million in 1704.04861, table 4).
COSTS = {
    "mobilenet-v1": (4_231_976, "0.569"),
    "mobilenet-v2": (3_504_872, "0.301"),
    "resnet-50": (25_557_032, "4.089"),
}


@pytest.mark.parametrize("name", COSTS)
def test_parameters_and_multiply_adds_are_the_published_ones(name):
    cost = network_cost(network(name), 224)
    assert (cost.params, f"{cost.macs / 1e9:.3f}") == COSTS[name]


def test_their_constants_are_those_of_timm_and_torchvision():
    assert [spec.name for spec in CLASSICS] == list(COSTS)
    for spec in CLASSICS:
        assert (spec.padding, spec.norm_epsilon, spec.norm_momentum) == ("symmetric", 1e-5, 0.1)
        assert (spec.image_size, spec.train_size) == (224, 224)
        assert not any(block.se_channels for block in spec.blocks())
    assert [spec.activation for spec in CLASSICS] == ["relu6", "relu6", "relu"]


def test_their_shortcuts_are_where_the_papers_have_them():
    shortcuts = {
        spec.name: [block.index for block in spec.blocks() if block.has_residual] for spec in CLASSICS
    }
    assert shortcuts["mobilenet-v1"] == []
    assert shortcuts["mobilenet-v2"] == [2, 4, 5, 7, 8, 9, 11, 12, 14, 15]
    assert shortcuts["resnet-50"] == list(range(16))
    resnet = list(network("resnet-50").blocks())
    assert [block.index for block in resnet if block.has_shortcut_conv] == [0, 3, 7, 13]
    assert {block.out_channels // block.hidden_channels for block in resnet} == {4}


# Billions of multiply-adds, as the paper prints them and as they are counted here.
TABLE_3 = [  #        width depth resolution    paper  here
    ("mobilenet-v1", (1.0,  1.0,  1.0),       ( "0.6", "0.57")),
    ("mobilenet-v1", (2.0,  1.0,  1.0),       ( "2.2", "2.22")),
    ("mobilenet-v1", (1.0,  1.0,  2.0),       ( "2.2", "2.27")),
    ("mobilenet-v1", (1.2,  1.4,  1.3),       ( "2.3", "2.47")),
    ("mobilenet-v2", (1.0,  1.0,  1.0),       ( "0.3", "0.30")),
    ("mobilenet-v2", (1.0,  4.0,  1.0),       ( "1.2", "1.22")),
    ("mobilenet-v2", (2.0,  1.0,  1.0),       ( "1.1", "1.14")),
    ("mobilenet-v2", (1.0,  1.0,  2.0),       ( "1.2", "1.20")),
    ("mobilenet-v2", (1.2,  1.4,  1.3),       ( "1.3", "1.44")),
    ("resnet-50",    (1.0,  1.0,  1.0),       ( "4.1", "4.09")),
    ("resnet-50",    (1.0,  4.0,  1.0),       ("16.2", "14.57")),
    ("resnet-50",    (2.0,  1.0,  1.0),       ("14.7", "16.12")),
    ("resnet-50",    (1.0,  1.0,  2.0),       ("16.4", "16.35")),
    ("resnet-50",    (1.2,  1.4,  1.3),       ("16.7", "15.95")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "coefficients", "billions"), TABLE_3)
def test_the_scaled_networks_of_table_3_cost_about_what_the_paper_says(name, coefficients, billions):
    width, depth, resolution = coefficients
    spec = scale_by(network(name), Coefficients(width=width, depth=depth, resolution=resolution))
    macs, (paper, here) = network_cost(spec).macs / 1e9, billions
    assert f"{macs:.2f}" == here
    assert macs == pytest.approx(float(paper), rel=0.11)


def test_a_scaled_bottleneck_keeps_its_ratio_and_rounds_its_middle():
    blocks = list(scale(network("resnet-50"), width=1.2).blocks())
    assert {block.out_channels // block.hidden_channels for block in blocks} == {4}
    middle = [block.hidden_channels for block in blocks if block.position == 0]
    assert middle == [80, 152, 304, 616]  # 76.8, 153.6, 307.2, 614.4


def test_what_is_not_there_is_not_scaled():
    assert scale(network("resnet-50"), width=2.0).head_channels == 0
    assert scale(network("mobilenet-v1"), width=2.0, fixed_ends=True).head_channels == 0


def test_the_pooling_is_the_first_to_give_up_its_stride():
    found = {stride: network(f"resnet-50.stride{stride}") for stride in (32, 16, 8, 2)}
    shapes = {
        stride: (spec.stem_pooling, [stage.stride for stage in spec.stages]) for stride, spec in found.items()
    }
    assert shapes == {
        32: (True, [1, 2, 2, 2]),
        16: (False, [1, 2, 2, 2]),
        8: (False, [1, 1, 2, 2]),
        2: (False, [1, 1, 1, 1]),
    }
    assert network_cost(found[8], 32).layers[-2].output_size == 4
    with pytest.raises(UserError, match="resnet-50 cannot have a stride of 3; 2, 4, 8 and 16 are possible"):
        limit_stride(network("resnet-50"), 3)


@pytest.mark.parametrize(("name", "kind"), [("mobilenet-v1", "separable"), ("resnet-50", "bottleneck")])
def test_only_mbconv_can_be_fused(name, kind):
    with pytest.raises(UserError, match=f"stage 2 of {name} is {kind}, which has no fused form"):
        network(f"{name}.fused2-3")
    assert network("mobilenet-v2.fused1-3").stages[2].operation == "fused_mbconv"


def test_v2s_rule_is_not_for_bottlenecks():
    larger = Coefficients(width=1.4, depth=1.8)
    with pytest.raises(UserError, match="the bottlenecks of resnet-50 are far wider than a stem"):
        scale_non_uniform(network("resnet-50"), larger)
    assert scale_non_uniform(network("mobilenet-v2"), larger).stem_channels == 24
