"""timm's own networks under progressive learning; see ``tests/nn/test_timm_network.py`` for the rest."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from effnet.api import configure, evaluate, start_run
from effnet.errors import UserError
from effnet.nn import build_model, find_spec, forward_macs
from effnet.weights import load_weights
from effnet.weights.timm_export import export_timm
from effnet.weights.timm_library import external_name

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("timm")]

NAMES = ["resnet18", "resnet50", "regnety_004", "convnext_atto", "mobilenetv3_small_050", "vgg11_bn"]


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_timm_with_the_same_weights(name, timm):
    spec = replace(find_spec(f"timm:{name}"), num_classes=5)
    model = build_model(spec).eval()
    theirs = timm.create_model(name, num_classes=5).eval()
    state = {external_name(key, spec): tensor for key, tensor in model.state_dict().items()}
    theirs.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), theirs(images))


@pytest.mark.parametrize(("name", "gmacs"), [("resnet50", 4.09), ("resnet152", 11.5)])
def test_multiply_adds_are_the_published_ones(name, gmacs):
    assert forward_macs(find_spec(f"timm:{name}"), 224) / 1e9 == pytest.approx(gmacs, rel=0.01)


def test_blocks_have_the_rates_that_timm_would_give_them(timm):
    model = build_model("timm:resnet50")
    model.set_drop_path(0.2)
    theirs = timm.create_model("resnet50", drop_path_rate=0.2)
    rates = [
        [module.drop_prob for module in network.modules() if isinstance(module, timm.layers.DropPath)]
        for network in (model.body, theirs)
    ]
    assert rates[0] == pytest.approx(rates[1])
    assert len(rates[0]) == 15


def test_resnet18_learns_in_stages_is_evaluated_and_goes_back_to_timm(timm, tmp_path):
    changes = [
        "data.classes=0",
        "data.max_train_images=70", "train.epochs=1", "train.batch_size=16", "progressive.stages=2",
        "progressive.image_size=[16,32]", "evaluate.image_size=32", "augment.operations=0",
    ]  # fmt: skip
    config = configure("digits", recipe="v2-s.paper", model="timm:resnet18", changes=changes)
    result = start_run(config, tmp_path / "run", quiet=True)
    assert result.steps == 4
    assert evaluate(result.run).top1 == pytest.approx(result.best_val_top1)

    weights = load_weights(str(tmp_path / "run" / "checkpoints" / "best.safetensors"))
    ours = build_model(weights.spec, weights=weights).eval()
    assert ours.body.bn1.momentum == 0.01  # as the recipe says
    export_timm(
        tmp_path / "timm", weights.state, weights.spec, class_names=None, preprocessing=weights.preprocessing
    )
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images))
    assert json.loads((tmp_path / "timm" / "config.json").read_text())["architecture"] == "resnet18"


def test_a_network_of_one_size_and_one_with_two_classifiers():
    assert find_spec("timm:vit_tiny_patch16_224").has_fixed_size
    with pytest.raises(UserError, match="a network must have one"):
        find_spec("timm:deit_tiny_distilled_patch16_224")
    with pytest.raises(UserError, match=r"timm has no network 'resnet5'; did you mean 'resnet50"):
        find_spec("timm:resnet5")
