"""As much of timm as this project uses, with two tiny networks."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.drop_prob or not self.training:
            return x
        keep = 1 - self.drop_prob
        return x * x.new_empty((len(x), 1, 1, 1)).bernoulli_(keep) / keep


@dataclass(frozen=True)
class PretrainedCfg:
    input_size: tuple[int, int, int] = (3, 16, 16)
    test_input_size: tuple[int, int, int] | None = (3, 20, 20)
    crop_pct: float = 0.95
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)
    num_classes: int = 7
    classifier: str | tuple[str, ...] = "fc"
    fixed_input_size: bool = False
    tag: str | None = None


class TinyNet(nn.Module):
    """Two residual convolutions, named as timm names them; ``fc`` behind global pooling."""

    def __init__(self, num_classes: int, in_chans: int, drop_path_rate: float) -> None:
        super().__init__()
        self.num_features = 8
        self.conv1 = nn.Conv2d(in_chans, 8, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2))
        rates = (drop_path_rate / 2, drop_path_rate)
        self.drops = nn.ModuleList(DropPath(rate) if rate else nn.Identity() for rate in rates)
        self.fc = nn.Linear(8, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        for layer, drop in zip(self.layer1, self.drops, strict=True):
            x = x + drop(layer(x).relu())
        return x

    def forward_head(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def tinynet(num_classes: int = 7, in_chans: int = 3, drop_path_rate: float = 0.0) -> nn.Module:
    return TinyNet(num_classes, in_chans, drop_path_rate)


def plainnet(num_classes: int = 7, in_chans: int = 3) -> nn.Module:
    """Without stochastic depth: the argument is none of its own."""
    return TinyNet(num_classes, in_chans, 0.0)


_NETWORKS = {
    "tinynet": tinynet,
    "plainnet": plainnet,
    "fixednet": tinynet,
    "twinnet": tinynet,
    # Of shipped recipes; a tiny network stands in for them too.
    "resnet50": tinynet,
    "resnet152": tinynet,
}
_CONFIGS = {
    "fixednet": PretrainedCfg(fixed_input_size=True),
    "twinnet": PretrainedCfg(classifier=("head", "head_dist")),
}


def create_model(name: str, pretrained: bool = False, **arguments: object) -> nn.Module:
    model = _NETWORKS[name.partition(".")[0]](**arguments)
    if pretrained:
        if name.startswith("plainnet"):
            raise RuntimeError(f"No pretrained weights exist for {name}.")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.25)
    return model


def get_pretrained_cfg(name: str, allow_unregistered: bool = True) -> PretrainedCfg:
    architecture, _, tag = name.partition(".")
    if tag not in {"", "a1"} and not allow_unregistered:
        raise RuntimeError(f"Invalid pretrained tag ({tag}) for {architecture}.")
    return _CONFIGS.get(architecture, PretrainedCfg())


def install(monkeypatch) -> ModuleType:
    """Make ``import timm`` find this."""
    timm, layers = ModuleType("timm"), ModuleType("timm.layers")
    layers.DropPath = DropPath
    timm.layers, timm.create_model, timm.get_pretrained_cfg = layers, create_model, get_pretrained_cfg
    timm.is_model, timm.list_models = _NETWORKS.__contains__, lambda: list(_NETWORKS)
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "timm.layers", layers)
    return timm
