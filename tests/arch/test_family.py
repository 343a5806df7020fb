"""The published networks against the papers' tables and the released unit tests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from effnet.arch import fuse_stages, limit_stride, names, network, network_cost, released_preprocessing
from effnet.errors import UserError

# Trainable parameters, and those with batch-norm statistics; the latter are the released unit test's.
PARAMETERS = {
    "v1-b0": (5_288_548, 5_330_564),
    "v1-b1": (7_794_184, 7_856_232),
    "v1-b2": (9_109_994, 9_177_562),
    "v1-b3": (12_233_232, 12_320_528),
    "v1-b4": (19_341_616, 19_466_816),
    "v1-b5": (30_389_784, 30_562_520),
    "v1-b6": (43_040_704, 43_265_136),
    "v1-b7": (66_347_960, 66_658_680),
    "v1-b8": (87_413_142, 87_793_174),
    "v1-l2": (480_309_308, 481_399_996),
    "v2-b0": (7_139_704, 7_200_312),
    "v2-b1": (8_141_052, 8_212_124),
    "v2-b2": (10_096_086, 10_178_374),
    "v2-b3": (14_358_406, 14_467_622),
    "v2-s": (21_458_488, 21_612_360),
    "v2-m": (54_139_356, 54_431_388),
    "v2-l": (118_515_272, 119_027_848),
    "v2-xl": (208_119_808, 208_896_832),
}

# Billions of multiply-adds at a size in pixels, to as many digits as are known.
MACS = [
    ("v1-b0", 224, "0.386"),
    ("v1-b1", 240, "0.687"),
    ("v1-b2", 260, "0.994"),
    ("v1-b3", 300, "1.827"),
    ("v1-b4", 380, "4.39"),
    ("v1-b5", 456, "10.27"),
    ("v1-b6", 528, "19.07"),
    ("v1-b7", 600, "37.75"),
    ("v1-b8", 672, "62.6"),
    ("v1-l2", 800, "475.7"),
    ("v2-b0", 224, "0.718"),
    ("v2-b0", 192, "0.528"),
    ("v2-b1", 240, "1.197"),
    ("v2-b2", 260, "1.698"),
    ("v2-b3", 300, "3.011"),
    ("v2-b3", 240, "1.908"),
    ("v2-s", 384, "8.366"),
    ("v2-s", 300, "5.31"),
    ("v2-s", 224, "2.85"),
    ("v2-m", 480, "24.58"),
    ("v2-m", 384, "15.7"),
    ("v2-l", 480, "56.08"),
    ("v2-l", 384, "35.9"),
    ("v2-xl", 512, "93.35"),
    ("v2-xl", 384, "52.5"),
]

# Stem, channels of the stages, repeats of the stages, head.
SHAPES = {
    "v1-b0": (32, [16, 24, 40, 80, 112, 192, 320], [1, 2, 2, 3, 3, 4, 1], 1280),
    "v1-b1": (32, [16, 24, 40, 80, 112, 192, 320], [2, 3, 3, 4, 4, 5, 2], 1280),
    "v1-b2": (32, [16, 24, 48, 88, 120, 208, 352], [2, 3, 3, 4, 4, 5, 2], 1408),
    "v1-b3": (40, [24, 32, 48, 96, 136, 232, 384], [2, 3, 3, 5, 5, 6, 2], 1536),
    "v1-b4": (48, [24, 32, 56, 112, 160, 272, 448], [2, 4, 4, 6, 6, 8, 2], 1792),
    "v1-b5": (48, [24, 40, 64, 128, 176, 304, 512], [3, 5, 5, 7, 7, 9, 3], 2048),
    "v1-b6": (56, [32, 40, 72, 144, 200, 344, 576], [3, 6, 6, 8, 8, 11, 3], 2304),
    "v1-b7": (64, [32, 48, 80, 160, 224, 384, 640], [4, 7, 7, 10, 10, 13, 4], 2560),
    "v1-b8": (72, [32, 56, 88, 176, 248, 424, 704], [4, 8, 8, 11, 11, 15, 4], 2816),
    "v1-l2": (136, [72, 104, 176, 344, 480, 824, 1376], [6, 11, 11, 16, 16, 22, 6], 5504),
    "v2-b0": (32, [16, 32, 48, 96, 112, 192], [1, 2, 2, 3, 5, 8], 1280),
    "v2-b1": (32, [16, 32, 48, 96, 112, 192], [2, 3, 3, 4, 6, 9], 1280),
    "v2-b2": (32, [16, 32, 56, 104, 120, 208], [2, 3, 3, 4, 6, 10], 1408),
    "v2-b3": (40, [16, 40, 56, 112, 136, 232], [2, 3, 3, 5, 7, 12], 1536),
    "v2-s": (24, [24, 48, 64, 128, 160, 256], [2, 4, 4, 6, 9, 15], 1280),
    "v2-m": (24, [24, 48, 80, 160, 176, 304, 512], [3, 5, 5, 7, 14, 18, 5], 1280),
    "v2-l": (32, [32, 64, 96, 192, 224, 384, 640], [4, 7, 7, 10, 19, 25, 7], 1280),
    "v2-xl": (32, [32, 64, 96, 192, 256, 512, 640], [4, 8, 8, 16, 24, 32, 8], 1280),
}

BLOCKS = {"v1-b0": 16, "v1-b3": 26, "v1-b7": 55, "v1-l2": 88, "v2-b0": 21, "v2-b1": 27, "v2-b2": 28}
BLOCKS |= {"v2-b3": 32, "v2-s": 40, "v2-m": 57, "v2-l": 79, "v2-xl": 100}

# Size of training, size of evaluation, dropout.
CONSTANTS = {
    "v1-b0": (224, 224, 0.2),
    "v1-b4": (380, 380, 0.4),
    "v1-b7": (600, 600, 0.5),
    "v1-lite4": (300, 300, 0.3),
    "v2-b0": (192, 224, 0.2),
    "v2-b1": (192, 240, 0.2),
    "v2-b2": (208, 260, 0.3),
    "v2-b3": (240, 300, 0.3),
    "v2-s": (300, 384, 0.2),
    "v2-m": (384, 480, 0.3),
    "v2-l": (384, 480, 0.4),
    "v2-xl": (384, 512, 0.4),
}

LITE_PARAMETERS = {
    "v1-lite0": 4_652_008,
    "v1-lite1": 5_416_680,
    "v1-lite2": 6_092_072,
    "v1-lite3": 8_197_096,
    "v1-lite4": 13_006_568,
}


def billions(macs: int, like: str) -> str:
    """Round multiply-adds to as many digits as ``like`` prints."""
    return f"{macs / 1e9:.{len(like.partition('.')[2])}f}"


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_released_ones(name):
    cost = network_cost(network(name))
    assert (cost.params, cost.params_with_bn_stats) == PARAMETERS[name]


@pytest.mark.parametrize(("name", "image_size", "expected"), MACS)
def test_multiply_adds_are_the_published_ones(name, image_size, expected):
    assert billions(network_cost(network(name), image_size).macs, expected) == expected


@pytest.mark.parametrize("name", SHAPES)
def test_widths_and_depths_are_the_published_ones(name):
    spec = network(name)
    channels = [stage.channels for stage in spec.stages]
    repeats = [stage.repeats for stage in spec.stages]
    assert (spec.stem_channels, channels, repeats, spec.head_channels) == SHAPES[name]


@pytest.mark.parametrize("name", BLOCKS)
def test_number_of_blocks_is_the_published_one(name):
    spec = network(name)
    assert spec.num_blocks == BLOCKS[name] == len(list(spec.blocks()))


@pytest.mark.parametrize("name", CONSTANTS)
def test_sizes_and_dropout_are_the_released_ones(name):
    spec = network(name)
    assert (spec.train_size, spec.image_size, spec.dropout_rate) == CONSTANTS[name]


@pytest.mark.parametrize("name", LITE_PARAMETERS)
def test_lite_parameters_are_the_released_ones(name):
    spec = network(name)
    assert network_cost(spec).params == LITE_PARAMETERS[name]
    assert (spec.stem_channels, spec.head_channels, spec.activation) == (32, 1280, "relu6")
    assert not any(block.se_channels for block in spec.blocks())


@pytest.mark.parametrize(
    ("name", "params", "params_21k"),
    [
        ("v2-b0", 5_858_704, 33_839_587),
        ("v2-b1", 6_860_052, 34_840_935),
        ("v2-b2", 8_687_086, 39_463_873),
        ("v2-b3", 12_821_406, 46_394_097),
        ("v2-s", 20_177_488, 48_158_371),
        ("v2-m", 52_858_356, 80_839_239),
        ("v2-l", 117_234_272, 145_215_155),
        ("v2-xl", 206_838_808, 234_819_691),
    ],
)
def test_parameters_without_and_with_the_21k_classifier(name, params, params_21k):
    spec = replace(network(name), num_classes=21_843)
    cost = network_cost(spec)
    assert cost.params == params_21k
    assert cost.params - cost.layers[-1].params == params


@pytest.mark.parametrize(
    ("suffix", "params", "macs"),
    [("fused1-3", "20.9", "9.6"), ("fused1-5", "43.5", "23.0"), ("fused1-7", "132.1", "36.0")],
)
def test_fused_b4_is_the_recount_of_table_3(suffix, params, macs):
    cost = network_cost(network(f"v1-b4.{suffix}"))
    assert (f"{cost.params / 1e6:.1f}", billions(cost.macs, macs)) == (params, macs)


def test_compound_network_of_figure_7_has_the_published_cost():
    assert billions(network_cost(network("v1-b0.compound")).macs, "1.8") == "1.8"
    assert network("v1-b0.higher-resolution").image_size == 448
    assert network("v1-b0.deeper").num_blocks == 64
    assert network("v1-b0.wider").stages[-1].channels == 640


def test_v1_stages_alternate_kernels_and_v2_has_3_x_3_alone():
    assert [stage.kernel_size for stage in network("v1-b0").stages] == [3, 3, 5, 3, 5, 5, 3]
    assert [stage.stride for stage in network("v1-b0").stages] == [1, 2, 2, 2, 1, 2, 1]
    for name in ("v2-b0", "v2-s", "v2-xl"):
        spec = network(name)
        assert {stage.kernel_size for stage in spec.stages} == {3}
        assert [stage.stride for stage in spec.stages][:6] == [1, 2, 2, 2, 1, 2]
        assert [stage.expand_ratio for stage in spec.stages][:6] == [1, 4, 4, 4, 6, 6]
        assert [stage.operation for stage in spec.stages][:4] == ["fused_mbconv"] * 3 + ["mbconv"]
        assert [stage.se_ratio for stage in spec.stages][:4] == [0.0, 0.0, 0.0, 0.25]


def test_every_name_gives_a_network_of_that_name():
    assert len(names()) == len(set(names()))
    for name in names():
        assert network(name).name == name


def test_unknown_network_names_the_nearest():
    with pytest.raises(UserError, match=r"unknown network 'v2-x1'; did you mean 'v2-xl'\?"):
        network("v2-x1")


def test_unknown_base_of_a_fused_network_is_an_error():
    with pytest.raises(UserError, match=r"unknown network 'v9-b4\.fused1-3'"):
        network("v9-b4.fused1-3")


@pytest.mark.parametrize(("first", "last"), [(0, 2), (3, 2), (1, 8)])
def test_fusing_stages_that_are_not_there_is_an_error(first, last):
    with pytest.raises(UserError, match=f"v1-b4 has stages 1 to 7; cannot fuse {first} to {last}"):
        fuse_stages(network("v1-b4"), first=first, last=last)


def test_early_stages_give_up_their_strides_for_small_images():
    strides = {
        total: [stage.stride for stage in network(f"v2-b0.stride{total}").stages] for total in (2, 8, 16)
    }
    assert strides == {2: [1] * 6, 8: [1, 1, 1, 2, 1, 2], 16: [1, 1, 2, 2, 1, 2]}
    assert network("v2-s.stride32").stages == network("v2-s").stages
    assert network_cost(network("v2-b0.stride16"), 32).layers[-2].output_size == 2


def test_suffixes_follow_each_other_and_are_part_of_the_name():
    spec = network("v1-b0.stride16.fused1-3")
    assert spec.name == "v1-b0.stride16.fused1-3"
    assert spec == fuse_stages(limit_stride(network("v1-b0"), 16), first=1, last=3)


@pytest.mark.parametrize("stride", [0, 1, 3, 64])
def test_a_stride_that_cannot_be_had_is_an_error(stride):
    with pytest.raises(
        UserError, match=f"v2-b0 cannot have a stride of {stride}; 2, 4, 8 and 16 are possible"
    ):
        network(f"v2-b0.stride{stride}")


@pytest.mark.parametrize(
    ("name", "interpolation", "crop_mode", "crop_fraction", "mean"),
    [
        ("v1-b0", "bicubic", "center", 0.875, 0.485),
        ("v1-b7", "bicubic", "center", 0.949, 0.485),
        ("v2-b0", "bicubic", "center", 0.875, 0.485),
        ("v2-b3", "bicubic", "center", 0.904, 0.485),
        ("v2-s", "bilinear", "squash", 1.0, 0.5),
        ("v2-xl", "bilinear", "squash", 1.0, 0.5),
    ],
)
def test_preprocessing_is_the_released_one(name, interpolation, crop_mode, crop_fraction, mean):
    spec = network(name)
    preprocessing = released_preprocessing(spec)
    assert preprocessing.image_size == spec.image_size
    assert preprocessing.interpolation == interpolation
    assert preprocessing.crop_mode == crop_mode
    assert preprocessing.crop_fraction == pytest.approx(crop_fraction, abs=6e-4)
    assert preprocessing.mean[0] == mean


def test_v2_s_below_320_px_is_cropped_as_released():
    preprocessing = released_preprocessing(replace(network("v2-s"), image_size=300))
    assert (preprocessing.crop_mode, preprocessing.crop_fraction) == ("center", 300 / 332)
