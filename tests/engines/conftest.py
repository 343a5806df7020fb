"""A tiny network, and figures that nobody has measured."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from effnet.arch import NetworkSpec, Preprocessing, StageSpec
from effnet.engines import measuring
from effnet.evaluation.predictor import Predictor
from effnet.nn import EfficientNet

SIDE = 16


@pytest.fixture
def predictor() -> Predictor:
    stage = StageSpec(
        operation="mbconv", kernel_size=3, stride=2, expand_ratio=2, channels=8, repeats=1, se_ratio=0.25
    )
    spec = NetworkSpec(
        name="tiny",
        stages=(stage,),
        stem_channels=8,
        head_channels=16,
        image_size=SIDE,
        train_size=SIDE,
        num_classes=3,
    )
    torch.manual_seed(0)
    network = EfficientNet(spec)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    preprocessing = Preprocessing(image_size=SIDE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return Predictor(network, ("a", "b", "c"), preprocessing)


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A cache that no other test has written to."""
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "own"))
    return tmp_path / "own"


@pytest.fixture(autouse=True)
def written_once(tmp_path_factory, monkeypatch):
    """Exporting the same network takes seconds, so each runtime's file is written once and copied."""
    real = measuring.write_engine

    def write(name, source, folder):
        made = tmp_path_factory.getbasetemp() / f"engine-{name}"
        if not made.exists():
            begun = tmp_path_factory.mktemp("begun")
            real(name, source, begun)
            begun.rename(made)
        shutil.copytree(made, folder, dirs_exist_ok=True)

    monkeypatch.setattr(measuring, "write_engine", write)
