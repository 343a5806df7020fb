"""A network that sees colours without being trained, images of one colour each, and made answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from effnet.arch import NetworkSpec, Preprocessing, StageSpec
from effnet.evaluation.answers import Answers
from effnet.nn import EfficientNet

COLORS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250)}


@pytest.fixture
def preprocessing() -> Preprocessing:
    return Preprocessing(image_size=8)


@pytest.fixture
def make_network() -> Callable[[tuple[str, ...]], EfficientNet]:
    """Make a network whose classes are colours: the class of a plain image has the largest logit."""

    def make(class_names: tuple[str, ...]) -> EfficientNet:
        spec = NetworkSpec(
            name="colors",
            stages=(
                StageSpec(operation="conv", kernel_size=3, stride=1, expand_ratio=1, channels=8, repeats=1),
            ),
            stem_channels=8,
            head_channels=16,
            image_size=8,
            train_size=8,
            num_classes=len(class_names),
        )
        torch.manual_seed(0)
        model = EfficientNet(spec).eval()
        plain = torch.tensor([COLORS[name] for name in class_names]) / 127.5 - 1
        with torch.no_grad():
            head = model.features(plain[:, :, None, None].expand(-1, -1, 8, 8))["head"].mean((2, 3))
            centered = head - head.mean(0)
            # Every colour's feature gets the same logit for its own class, and a smaller one for the others.
            model.classifier.weight.copy_(5 * torch.linalg.pinv(centered).T)
            model.classifier.bias.copy_(-model.classifier.weight @ head.mean(0))
        return model

    return make


@pytest.fixture
def make_image(tmp_path) -> Callable[..., Path]:
    """Write an image of one colour: ``make_image("red", "some/name.png")``."""

    def make(color: str, name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 12, 3), COLORS[color], np.uint8)).save(path)
        return path

    return make


@pytest.fixture(scope="session")
def make_answers() -> Callable[..., Answers]:
    """Make answers from logits and labels: ``make_answers([[1.0, 0.0]], [0])``."""

    def make(logits, labels, *, output="softmax", class_names=None, names=None) -> Answers:
        logits = np.asarray(logits, np.float32)
        return Answers(
            class_names=class_names or tuple(f"class {index}" for index in range(logits.shape[1])),
            names=names or tuple(f"image {index}" for index in range(len(logits))),
            indices=np.arange(len(logits)),
            labels=np.asarray(labels, np.int64),
            logits=logits,
            output=output,
        )

    return make


@pytest.fixture(scope="session")
def draw_answers(make_answers) -> Callable[..., Answers]:
    """Draw answers, some of which are right: ``draw_answers(images=60, classes=4, seed=0)``."""

    def draw(images=60, classes=4, seed=0, *, sharpness=1.5, output="softmax") -> Answers:
        rng = np.random.default_rng(seed)
        labels = rng.integers(classes, size=images)
        logits = rng.normal(size=(images, classes)) + sharpness * np.eye(classes)[labels]
        return make_answers(logits, labels, output=output)

    return draw
