"""Tiny networks, one of which has its evidence at a known place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from effnet.arch import NetworkSpec, StageSpec
from effnet.nn import EfficientNet

GREY, RED, BLUE = (0.0, 0.0, 0.0), (1.0, -1.0, -1.0), (-1.0, -1.0, 1.0)
"""As normalised; their classes are 0, 1 and 2."""


def _spec(**changes: object) -> NetworkSpec:
    stages = (
        StageSpec(operation="mbconv", kernel_size=3, stride=2, expand_ratio=2, channels=8, repeats=2),
        StageSpec(
            operation="mbconv",
            kernel_size=3,
            stride=1,
            expand_ratio=2,
            channels=12,
            repeats=1,
            se_ratio=0.25,
        ),
    )
    values = {
        "name": "tiny",
        "stages": stages,
        "stem_channels": 8,
        "head_channels": 16,
        "image_size": 33,
        "train_size": 33,
        "num_classes": 4,
    }
    return NetworkSpec(**(values | changes))


@pytest.fixture
def make_model() -> Callable[..., EfficientNet]:
    """A random network in training mode, with batch statistics and dropout that would show."""

    def make(**changes: object) -> EfficientNet:
        generator = torch.Generator().manual_seed(5)
        torch.manual_seed(5)
        model = EfficientNet(_spec(**changes))
        for name, tensor in model.state_dict().items():
            if name.endswith(("norm.weight", "running_var")):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif name.endswith(("norm.bias", "running_mean")):
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
        model.set_dropout(0.5)
        return model

    return make


@pytest.fixture
def model(make_model) -> EfficientNet:
    return make_model()


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(3, 3, 33, 33, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def classes() -> Tensor:
    return torch.tensor([0, 3, 1])


@pytest.fixture
def spotter() -> EfficientNet:
    """A network that answers with the colour of what is not grey, wherever it is."""
    stage = StageSpec(operation="conv", kernel_size=3, stride=2, expand_ratio=1, channels=8, repeats=1)
    torch.manual_seed(0)
    spotter = EfficientNet(
        _spec(name="spotter", stages=(stage,), image_size=32, train_size=32, num_classes=3)
    ).eval()
    plain = torch.tensor([GREY, RED, BLUE])[:, :, None, None].expand(-1, -1, 32, 32)
    with torch.no_grad():
        head = spotter.features(plain)["head"][:, :, 4, 4]
        # A pixel of a colour speaks for its own class only, and a grey one for none.
        spotter.classifier.weight.zero_()
        spotter.classifier.weight[1:] = 20 * torch.linalg.pinv(head)[:, 1:].T
        spotter.classifier.bias.copy_(torch.tensor([0.3, 0.0, 0.0]))
    return spotter


@pytest.fixture
def spotted() -> Tensor:
    """Grey, with a red square from row 4 and column 18, and a blue one from row 20 and column 4, of 8 px."""
    image = torch.zeros(1, 3, 32, 32)
    image[0, :, 4:12, 18:26] = torch.tensor(RED)[:, None, None]
    image[0, :, 20:28, 4:12] = torch.tensor(BLUE)[:, None, None]
    return image
