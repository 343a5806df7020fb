import json
from dataclasses import replace

import pytest

from effnet.arch import family
from effnet.arch.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from effnet.arch.scaling import scale
from effnet.errors import UserError
from effnet.weights.timm_config import from_timm_config, to_timm_config

# As timm's hub has it for tf_efficientnetv2_m.in21k_ft_in1k, shortened.
HUB = {
    "architecture": "tf_efficientnetv2_m",
    "num_classes": 1000,
    "num_features": 1280,
    "pretrained_cfg": {
        "tag": "in21k_ft_in1k",
        "input_size": [3, 384, 384],
        "test_input_size": [3, 480, 480],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "num_classes": 1000,
        "first_conv": "conv_stem",
        "classifier": "classifier",
    },
}
PREPROCESSING = Preprocessing(image_size=96, mean=IMAGENET_MEAN, std=IMAGENET_STD, crop_fraction=0.875)


def through_json(config):
    return json.loads(json.dumps(config))


def test_a_config_of_the_hub():
    spec, preprocessing, names = from_timm_config(HUB, "config.json")
    assert spec == replace(family.network("v2-m"), padding="same", norm_epsilon=1e-3, norm_momentum=0.1)
    assert preprocessing == Preprocessing(image_size=480, interpolation="bicubic", crop_mode="squash")
    assert names is None


def test_an_old_config_without_pretrained_cfg():
    old = {"architecture": "efficientnet_b0", "labels": ["a", "b"], "num_classes": 2, "crop_pct": 0.9}
    spec, preprocessing, names = from_timm_config(old | {"input_size": [1, 64, 64]}, "config.json")
    assert (spec.padding, spec.norm_epsilon, spec.in_channels, spec.num_classes) == ("symmetric", 1e-5, 1, 2)
    assert (preprocessing.image_size, preprocessing.crop_fraction) == (64, 0.9)
    assert preprocessing.mean == IMAGENET_MEAN
    assert names == ("a", "b")


def test_the_crop_of_the_test_size_belongs_to_the_test_size():
    changes = {"crop_mode": "center", "crop_pct": 0.875, "test_crop_pct": 0.95}
    pretrained = HUB["pretrained_cfg"] | changes
    assert from_timm_config(HUB | {"pretrained_cfg": pretrained}, "c")[1].crop_fraction == 0.95
    assert (
        from_timm_config(HUB | {"pretrained_cfg": pretrained | {"test_crop_pct": None}}, "c")[1].crop_fraction
        == 0.875
    )


def test_class_names_by_number_are_put_in_order():
    config = HUB | {"num_classes": 11, "label_names": {str(n): f"class {n}" for n in reversed(range(11))}}
    assert from_timm_config(config, "config.json")[2] == tuple(f"class {n}" for n in range(11))


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("name", [name for name in family.names() if "." not in name and name != "resnet-50"])
def test_every_network_goes_there_and_back(name, padding):
    spec = replace(
        family.network(name),
        padding=padding,
        norm_epsilon=1e-4,
        norm_momentum=0.03,
        activation="relu",
        num_classes=3,
        in_channels=1,
    )
    preprocessing = replace(PREPROCESSING, mean=(0.4,), std=(0.2,))
    config = through_json(to_timm_config(spec, ["a", "b", "c"], preprocessing))
    assert from_timm_config(config, "config.json") == (spec, preprocessing, ("a", "b", "c"))


def test_resnet_50_goes_there_and_back_with_what_timm_can_be_told():
    spec = replace(family.network("resnet-50"), activation="silu", num_classes=3)
    config = through_json(to_timm_config(spec, None, PREPROCESSING))
    assert from_timm_config(config, "config.json")[0] == spec
    assert config["model_args"] == {"act_layer": "silu"}
    assert (config["architecture"], config["num_features"]) == ("resnet50", 2048)
    named = [config["pretrained_cfg"][key] for key in ("first_conv", "classifier")]
    assert named == ["conv1", "fc"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"padding": "same"}, "timm's resnet50 has padding symmetric .* trained with same: its logits"),
        ({"norm_epsilon": 1e-3}, "timm's resnet50 has norm_epsilon 1e-05 .* trained with 0.001"),
    ],
)
def test_what_timms_resnet_cannot_be_told_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        to_timm_config(replace(family.network("resnet-50"), **change), None, PREPROCESSING)


@pytest.mark.parametrize(
    ("base", "width", "depth", "guard"),
    [
        ("v2-b0", 0.5, 0.8, False),
        ("v2-b0", 1.3, 1.6, False),
        ("v2-s", 0.5, 0.5, True),
        ("v2-s", 1.25, 1.0, True),
        ("v2-m", 1.0, 0.6, True),
        ("v2-xl", 1.0, 0.25, True),
    ],
)
def test_scaled_networks_of_v2_go_there_and_back(base, width, depth, guard):
    spec = scale(family.network(base), width=width, depth=depth, guard=guard)
    config = through_json(to_timm_config(spec, None, PREPROCESSING))
    back = from_timm_config(config, "config.json")[0]
    assert (back.stages, back.stem_channels, back.head_channels) == (
        spec.stages,
        spec.stem_channels,
        spec.head_channels,
    )


@pytest.mark.parametrize(
    "spec",
    [
        family.network("v1-b0.deeper"),
        family.network("v1-b4.fused1-3"),
        scale(family.network("v1-b0"), width=0.5),
        scale(family.network("v2-m"), width=0.5),
        scale(family.network("v2-s"), width=0.8),  # timm's 10 % rule widens a stage
        family.network("v2-s").with_stages(residual=False),
        family.network("v2-b0").with_stages(kernel_size=5),
        scale(family.network("mobilenet-v2"), width=0.5),
        family.network("resnet-50.stride8"),
    ],
    ids=[
        "v1 deeper",
        "v1 fused",
        "v1 scaled",
        "v2-m narrow",
        "v2-s rounding",
        "no residual",
        "kernel",
        "mobilenet",
        "resnet",
    ],
)
def test_what_timm_cannot_build_is_refused(spec):
    with pytest.raises(UserError, match="timm has no network with the layers of"):
        to_timm_config(spec, None, PREPROCESSING)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "resnet18"}, "'resnet18' of timm is no network of this family"),
        ({"architecture": None}, "of timm is no network of this family"),
        ({"model_args": {"pad_type": "valid"}}, "the padding 'valid' of timm is not known here"),
        ({"model_args": {"rw": True, "se_layer": "eca"}}, "arguments rw, se_layer are not known here"),
        ({"model_args": {"act_layer": "snake"}}, "activation.*'snake'"),
        ({"pretrained_cfg": {"crop_mode": "border"}}, "crop_mode.*'border'"),
    ],
)
def test_what_is_not_known_here_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        from_timm_config(HUB | change, "config.json")


def test_a_config_of_others_is_refused():
    with pytest.raises(UserError, match=r"config\.json is no description of a timm model"):
        from_timm_config({"model_type": "bert"}, "config.json")
