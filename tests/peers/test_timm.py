import json
from dataclasses import replace

import pytest
import torch

from effnet.arch import family, network_cost
from effnet.arch.preprocessing import Preprocessing
from effnet.arch.scaling import scale
from effnet.errors import UserError
from effnet.nn import EfficientNet, build_model
from effnet.weights import export_timm, fit_state, load_weights
from effnet.weights.adapt import fit_stem
from effnet.weights.convert import export_state, import_state
from effnet.weights.networks import from_timm_name, timm_name
from effnet.weights.timm_config import from_timm_config

pytestmark = pytest.mark.peers

NETWORKS = [name for name in family.names() if "." not in name]
ARCHITECTURES = sorted({timm_name(name, same_padding=same) for name in NETWORKS for same in (True, False)})
PREPROCESSING = Preprocessing(image_size=72, interpolation="bicubic", crop_fraction=0.9, crop_mode="squash")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_weights_give_the_same_logits_both_ways(
    architecture, timm, make_network, assert_same_logits
):
    spec = replace(from_timm_name(architecture), num_classes=11)
    ours = make_network(spec)
    with torch.device("meta"):
        theirs = timm.create_model(architecture, num_classes=11).eval()
    theirs.load_state_dict(export_state(ours.state_dict(), spec, "timm"), strict=True, assign=True)
    assert_same_logits(ours, theirs)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == network_cost(spec).params
    back = import_state(theirs.state_dict(), spec)
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.state_dict().items())
    norm = theirs.bn1
    assert (norm.eps, norm.momentum) == (spec.norm_epsilon, spec.norm_momentum)


def edited(name, **changes):
    return replace(family.network(name), num_classes=5, **changes)


@pytest.mark.parametrize(
    "spec",
    [
        edited("v2-b0"),
        edited("v1-b0", padding="symmetric", norm_epsilon=1e-4, activation="relu"),
        edited("v2-b0", padding="symmetric", activation="hard_swish", in_channels=4),
        edited("v1-lite0", activation="leaky_relu", in_channels=1),
        replace(scale(family.network("v2-b0"), width=0.5, depth=0.7), num_classes=5, padding="symmetric"),
        replace(scale(family.network("v2-s"), width=0.5, depth=0.3, guard=True), num_classes=5),
        replace(scale(family.network("v2-m"), depth=0.2), num_classes=5),
        edited("mobilenet-v1", padding="same", norm_epsilon=1e-3, activation="relu"),
        edited("mobilenet-v2", in_channels=1),
        edited("resnet-50", activation="silu"),
    ],
    ids=lambda spec: f"{spec.name}-{spec.activation}-{spec.padding}",
)
def test_an_exported_folder_is_created_by_timm_in_one_command(
    spec, timm, make_network, assert_same_logits, tmp_path
):
    ours, names = make_network(spec), list("abcde")
    channels = spec.in_channels
    preprocessing = replace(PREPROCESSING, mean=(0.4,) * channels, std=(0.2,) * channels)
    export_timm(tmp_path, ours.state_dict(), spec, class_names=names, preprocessing=preprocessing)
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert_same_logits(ours, theirs, channels=channels)
    assert theirs.pretrained_cfg["label_names"] == names
    assert timm.data.resolve_model_data_config(theirs) == {
        "input_size": [channels, 72, 72],
        "interpolation": "bicubic",
        "mean": [0.4] * channels,
        "std": [0.2] * channels,
        "crop_pct": 0.9,
        "crop_mode": "squash",
    }
    loaded = load_weights(str(tmp_path))
    assert (loaded.spec.padding, loaded.class_names) == (spec.padding, tuple(names))
    assert loaded.preprocessing == preprocessing


def test_timms_own_export_loads_here(timm, assert_same_logits, tmp_path):
    theirs = timm.create_model("efficientnet_b0", num_classes=5, in_chans=1, act_layer="relu").eval()
    timm.models.save_for_hf(theirs, tmp_path, safe_serialization=True)
    assert "relu" in json.dumps(json.loads((tmp_path / "config.json").read_text())["model_args"])
    loaded = load_weights(str(tmp_path), replace(family.network("v1-b0"), activation="relu"))
    ours = EfficientNet(loaded.spec).eval()
    ours.load_state_dict(loaded.state)
    assert_same_logits(ours, theirs, channels=1)


def test_every_published_config_of_these_networks_is_understood(timm):
    known, seen = set(ARCHITECTURES), 0
    assert known <= set(timm.list_models())
    for name in timm.list_pretrained():
        architecture = name.split(".")[0]
        if architecture in known:
            pretrained = timm.get_pretrained_cfg(name).to_dict()
            config = {"architecture": architecture, "pretrained_cfg": pretrained}
            if not pretrained["num_classes"]:  # some ResNets were released without their classifier
                with pytest.raises(UserError, match="num_classes must be at least 1, got 0"):
                    from_timm_config(json.loads(json.dumps(config)), name)
                continue
            spec, preprocessing, _ = from_timm_config(json.loads(json.dumps(config)), name)
            data = timm.data.resolve_data_config({}, pretrained_cfg=pretrained, use_test_size=True)
            assert spec.num_classes == pretrained["num_classes"]
            assert preprocessing.image_size == data["input_size"][-1]
            assert preprocessing.crop_fraction == data["crop_pct"]
            assert preprocessing.crop_mode == data["crop_mode"]
            assert (preprocessing.mean, preprocessing.std) == (data["mean"], data["std"])
            seen += 1
    assert seen > 60


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_the_stem_is_adapted_as_timm_does(timm, channels):
    from timm.models._manipulate import adapt_input_conv

    kernel = torch.randn(8, 3, 3, 3)
    torch.testing.assert_close(fit_stem(kernel, channels), adapt_input_conv(channels, kernel))


def test_fine_tuning_starts_from_the_same_features(timm, tmp_path):
    theirs = timm.create_model("tf_efficientnetv2_b0", num_classes=6).eval()
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "x.pth.tar")
    loaded = load_weights(str(tmp_path / "x.pth.tar"), family.network("v2-b0"))
    ours = build_model(replace(loaded.spec, num_classes=2)).eval()
    ours.load_state_dict(fit_state(loaded.state, ours.state_dict()))
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(
            ours.features(images)["head"], theirs.forward_features(images), rtol=1e-4, atol=1e-5
        )
