"""Networks of timm, as far as progressive learning touches them. timm itself is in ``tests/peers``."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from effnet.arch import ExternalSpec, from_dict, load_spec, network, network_cost, spec_from_dict, to_dict
from effnet.errors import UserError
from effnet.nn import build_model, find_spec, forward_macs
from effnet.weights import load_weights, save_weights

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def spec(fake_timm) -> ExternalSpec:
    return find_spec("timm:tinynet")


def test_a_spec_has_what_timm_says_of_its_weights(spec):
    assert (spec.image_size, spec.train_size, spec.classifier) == (20, 16, "fc")
    assert (spec.in_channels, spec.num_classes, spec.has_fixed_size) == (3, 7, False)
    assert spec.preprocessing.std == (0.25, 0.25, 0.25)
    assert spec.preprocessing.crop_fraction == 0.95
    assert spec_from_dict(to_dict(spec), "a file") == spec
    assert spec_from_dict(to_dict(network("v2-s")), "a file") == network("v2-s")


def test_a_tag_names_weights_of_the_same_network(fake_timm):
    tagged = find_spec("timm:tinynet.a1")
    assert (tagged.name, tagged.architecture) == ("timm:tinynet.a1", "tinynet")


def test_logits_are_those_of_timm(spec, fake_timm):
    torch.manual_seed(0)
    model = build_model(spec).eval()
    theirs = fake_timm.create_model("tinynet", num_classes=7).eval()
    names = {f"fc{name.removeprefix('classifier')}" if "classifier" in name else name: name
             for name in model.state_dict()}  # fmt: skip
    state = {
        theirs_name.removeprefix("body."): model.state_dict()[ours] for theirs_name, ours in names.items()
    }
    theirs.load_state_dict(state)
    torch.testing.assert_close(model(IMAGES), theirs(IMAGES))


def test_dropout_acts_before_the_classifier(spec):
    model = build_model(spec).train()
    model.set_dropout(0.99)
    torch.testing.assert_close(model(IMAGES).mean(0), model.classifier.bias, atol=2.0, rtol=0)
    model.set_dropout(0.0)
    torch.testing.assert_close(model(IMAGES), model(IMAGES))


def test_every_block_has_its_share_of_the_drop_path_rate(spec):
    model = build_model(spec)
    assert [drop.drop_prob for drop in model.body.drops] == [0.0, 0.0]
    model.set_drop_path(0.2)
    assert [drop.drop_prob for drop in model.body.drops] == pytest.approx([0.1, 0.2])


def test_a_network_without_stochastic_depth_says_so_when_it_is_asked_for(fake_timm):
    model = build_model("timm:plainnet")
    model.set_drop_path(0.0)
    with pytest.raises(
        UserError, match=r"plainnet has no stochastic depth; set progressive\.drop_path_rate="
    ):
        model.set_drop_path(0.1)


def test_constants_of_batch_norm_can_be_changed(spec):
    norm = build_model(replace(spec, norm_epsilon=1e-3, norm_momentum=0.01)).body.bn1
    assert (norm.eps, norm.momentum) == (1e-3, 0.01)
    norm = build_model(spec).body.bn1
    assert (norm.eps, norm.momentum) == (1e-5, 0.1)


def test_multiply_adds_are_counted_as_those_of_our_own_networks(spec):
    macs = 8 * 8 * 27 * 8 + 2 * (8 * 8 * 72 * 8) + 8 * 7
    assert forward_macs(spec, 16) == macs
    assert forward_macs(network("v2-b0"), 64) == network_cost(network("v2-b0"), 64).macs


def test_weights_are_saved_and_built_from_the_file_alone(spec, tmp_path):
    path, small = tmp_path / "w.safetensors", replace(spec, num_classes=2)
    model = build_model(small).eval()
    save_weights(
        path,
        model.state_dict(),
        small,
        class_names=("a", "b"),
        preprocessing=small.preprocessing,
        provenance="x",
    )
    loaded = load_weights(str(path))
    assert loaded.spec == small
    again = build_model(loaded.spec, weights=loaded).eval()
    assert torch.equal(again(IMAGES), model(IMAGES))

    other = build_model(spec, weights=loaded, class_names=("b", "c", "a"))
    assert torch.equal(other.classifier.weight[[2, 0]], model.classifier.weight)
    assert not other.classifier.weight[1].any()


def test_timm_loads_its_own_weights(spec):
    loaded = load_weights("pretrained", spec)
    model = build_model(loaded.spec, weights=loaded, num_classes=7)
    assert (model.body.conv1.weight == 0.25).all()
    assert (model.classifier.weight == 0.25).all()
    with pytest.raises(UserError, match=r"timm cannot load weights of timm:plainnet: No pretrained weights"):
        load_weights("pretrained", find_spec("timm:plainnet"))


def test_weights_of_one_network_are_not_those_of_another(spec, tmp_path):
    path = tmp_path / "w.safetensors"
    model = build_model(spec)
    save_weights(path, model.state_dict(), spec, class_names=None, preprocessing=None, provenance="x")
    assert load_weights(str(path), find_spec("timm:tinynet.a1")).spec == spec
    for other in ("v2-b0", "timm:plainnet"):
        with pytest.raises(UserError, match=f"holds the weights of timm:tinynet, not of {other}"):
            load_weights(str(path), find_spec(other))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:tinynt", r"timm has no network 'tinynt'; did you mean 'tinynet'\?"),
        ("timm:xxxx", r"timm has no network 'xxxx'; see timm\.list_models\(\)"),
        ("timm:tinynet.a2", r"timm has no weights 'tinynet\.a2': Invalid pretrained tag"),
        ("timm:twinnet", "twinnet has the classifiers head, head_dist; a network must have one"),
    ],
)
def test_what_timm_does_not_have(fake_timm, name, message):
    with pytest.raises(UserError, match=message):
        find_spec(name)


@pytest.mark.parametrize("error", [ImportError("no timm"), RuntimeError("operator nms does not exist")])
def test_without_timm_it_is_said_what_to_install(monkeypatch, error):
    class Broken:
        def find_spec(self, name, *_):
            if name == "timm":
                raise error

    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(UserError, match=r"networks of timm need timm: pip install 'effnet\[timm\]' \(.*: "):
        find_spec("timm:resnet50")


def test_layers_of_timm_are_not_known_without_timm():
    with pytest.raises(UserError, match="the layers of timm:resnet50 are known to timm only"):
        load_spec("timm:resnet50")
    with pytest.raises(UserError, match="name"):
        from_dict(ExternalSpec, {"name": "resnet50", "train_size": 1, "classifier": "fc"}, "x")


def test_checkpointing_is_for_our_own_blocks(spec):
    with pytest.raises(UserError, match=r"gradient_checkpointing is for EfficientNets, not for timm:tinynet"):
        build_model(spec, gradient_checkpointing=True)


def test_kernels_are_for_our_own_layers(spec):
    with pytest.raises(UserError, match=r"train.kernels 'triton' is for EfficientNets, not for timm:tinynet"):
        build_model(spec, kernels="triton")
