from __future__ import annotations

import pytest
import torch
from torch import nn

from effnet.arch import load_spec, scale
from effnet.nn import EfficientNet
from effnet.profiling.kinds import kind_of, parts_of


@pytest.mark.parametrize("name", ["v1-b0", "v2-s", "resnet-50", "mobilenet-v1"])
def test_every_layer_that_does_anything_is_in_exactly_one_part(name):
    with torch.device("meta"):
        model = EfficientNet(scale(load_spec(name), depth=0.3))
    held = [id(layer) for part in parts_of(model) for layer in part.module.modules() if _is_layer(layer)]
    assert sorted(held) == sorted(id(layer) for layer in model.modules() if _is_layer(layer))


def _is_layer(module: nn.Module) -> bool:
    return not list(module.children()) and not isinstance(module, nn.Identity)


def test_the_kinds_of_two_blocks_by_hand():
    with torch.device("meta"):
        kinds = {part.name: part.kind for part in parts_of(EfficientNet(load_spec("v2-s")))}
    assert kinds["stem.conv"] == "stem"
    assert kinds["stages.1.0.expand.conv"] == "convolution 3x3"
    assert kinds["stages.1.0.project.conv"] == "1x1 project"
    block = {
        name.removeprefix("stages.3.1."): kind
        for name, kind in kinds.items()
        if name.startswith("stages.3.1.")
    }
    assert block == {
        "expand.conv": "1x1 expand",
        "expand.norm": "batch norm",
        "expand.act": "activation",
        "depthwise.conv": "depthwise 3x3",
        "depthwise.norm": "batch norm",
        "depthwise.act": "activation",
        "squeeze_excite": "squeeze-excite",
        "project.conv": "1x1 project",
        "project.norm": "batch norm",
        "drop_path": "residual sum",
    }
    assert kinds["head.conv"] == "1x1 head"
    assert kinds["classifier"] == "classifier"


def test_a_layer_of_no_known_kind_is_not_passed_over():
    assert kind_of("odd", nn.LayerNorm(4)) is None
    with pytest.raises(ValueError, match="'1' is a LayerNorm, which is of no known kind"):
        list(parts_of(nn.Sequential(nn.SiLU(), nn.LayerNorm(4))))
