"""Tiny networks and what they answer, and files of them that are written once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from effnet.arch import NetworkSpec, Preprocessing, StageSpec
from effnet.export.card import Card
from effnet.export.engine import Engine
from effnet.export.forms import form_named
from effnet.export.graph import trace
from effnet.export.quantization import Calibration
from effnet.nn import EfficientNet

SIDE = 18
PREPROCESSING = Preprocessing(image_size=SIDE, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.fixture(scope="session")
def preprocessing() -> Preprocessing:
    return PREPROCESSING


def tiny_network(padding: str = "same") -> EfficientNet:
    """Fused blocks, squeeze and excitation, odd sizes inside (18, 9, 5, 3), norms that do something."""
    stages = (
        StageSpec(operation="fused_mbconv", kernel_size=3, stride=2, expand_ratio=2, channels=8, repeats=2),
        StageSpec(
            operation="mbconv",
            kernel_size=5,
            stride=2,
            expand_ratio=4,
            channels=12,
            repeats=2,
            se_ratio=0.25,
        ),
    )
    spec = NetworkSpec(
        name="tiny",
        stages=stages,
        stem_channels=8,
        head_channels=16,
        image_size=SIDE,
        train_size=SIDE,
        num_classes=3,
        padding=padding,
    )
    torch.manual_seed(0)
    network = EfficientNet(spec)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
            nn.init.normal_(norm.running_mean, std=0.2)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return network.eval()


def _noise(count: int, side: int = SIDE) -> Tensor:
    """Images as uint8 N S S C."""
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator)


def _normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (PREPROCESSING.mean, PREPROCESSING.std))
    return (images.permute(0, 3, 1, 2) / 255 - mean) / std


@pytest.fixture(scope="session")
def noise() -> Callable[..., Tensor]:
    return _noise


@pytest.fixture(scope="session")
def normalised() -> Callable[[Tensor], Tensor]:
    return _normalised


@pytest.fixture(scope="session")
def difference(network) -> Callable[..., float]:
    """By how much a file's answers differ from the network's, as a fraction of the largest logit."""

    def of(engine: Engine, count: int = 3, side: int = SIDE) -> float:
        pixels = _normalised(_noise(count, side))
        with torch.no_grad():
            expected = network(pixels)
        answer = engine(pixels)
        assert answer.shape == expected.shape
        assert answer.dtype == torch.float32
        return float((answer - expected).abs().max() / expected.abs().max())

    return of


@pytest.fixture(scope="session")
def network() -> EfficientNet:
    return tiny_network()


@pytest.fixture(scope="session")
def write(network, tmp_path_factory) -> Callable[..., Path]:
    """Return the file of a form, written once: ``write("onnx", batch_size=0, any_size=True)``."""
    written: dict[tuple[object, ...], Path] = {}

    def path_of(
        name: str,
        *,
        batch_size: int = 1,
        any_size: bool = False,
        raw_pixels: bool = False,
        precision: str = "fp32",
    ) -> Path:
        key = (name, batch_size, any_size, raw_pixels, precision)
        if key in written:
            return written[key]
        form = form_named(name)
        graph = trace(
            network,
            PREPROCESSING,
            batch_size=batch_size,
            any_size=any_size,
            raw_pixels=raw_pixels,
            half=precision == "fp16" and form.traces_half,
        )
        card = Card(
            network="tiny",
            parameters=1000,
            class_names=("daisy", "rose", "Straße"),
            preprocessing=PREPROCESSING,
            output="sigmoid",
            pixels="uint8" if raw_pixels else "normalised",
            batch_size=batch_size,
            any_size=any_size,
            form=name,
            precision=precision,
            origin="a test",
            packages={"torch": "2"},
        )
        path = tmp_path_factory.mktemp("exported") / f"model{form.suffix}"
        images = _noise(8)
        pixels = (images if raw_pixels else _normalised(images)).contiguous().numpy()
        calibration = Calibration(pixels=pixels, keep="se") if precision == "int8" else None
        form.write(graph, path, card, calibration)
        written[key] = path
        return path

    return path_of
