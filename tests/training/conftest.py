"""A network small enough for every test here, with all kinds of layers that matter to training."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from effnet.arch import NetworkSpec, StageSpec, spec_to_json
from effnet.config import (
    AugmentConfig,
    Config,
    DataConfig,
    EmaConfig,
    EvaluateConfig,
    LearningRateConfig,
    ModelConfig,
    OptimizerConfig,
    ProgressiveConfig,
    TrainConfig,
)
from effnet.schedule.progressive import StageSchedule, stage_schedule
from effnet.training import loop


class TinyNetwork(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, 5)
        self.register_buffer("drop_rate", torch.tensor(0.2), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.norm(self.stem(images)).relu().mean((2, 3)))


@pytest.fixture
def make_network() -> Callable[..., nn.Module]:
    def make(*, width: int = 4, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return TinyNetwork(width).to(memory_format=torch.channels_last)

    return make


@pytest.fixture
def backward() -> Callable[[nn.Module, int], None]:
    """Fill the gradients of a network with those of the step's own batch."""

    def run(network: nn.Module, step: int) -> None:
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(8, 3, 6, 6, generator=generator)
        labels = torch.randint(5, (8,), generator=generator)
        network.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()

    return run


@pytest.fixture
def schedule() -> StageSchedule:
    """Three stages of 40 steps: 32, 48 and 64 pixels."""
    progressive = ProgressiveConfig(
        stages=3, image_size=(32, 64), dropout_rate=(0.1, 0.3), mixup_alpha=(0.0, 0.2)
    )
    train = TrainConfig(epochs=12.0, batch_size=10)
    return stage_schedule(progressive, train, train_images=100, train_size=64)


@pytest.fixture
def digits_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """10 steps of digits for the smallest network, evaluated at steps 3, 5, 7, 9 and 10, without plots."""
    monkeypatch.setattr(loop, "plot_schedule", lambda *_: None)
    monkeypatch.setattr(loop, "plot_learning_curve", lambda *_: None)
    stage = StageSpec(operation="mbconv", kernel_size=3, stride=2, expand_ratio=2, channels=8, repeats=1)
    spec = NetworkSpec(
        name="tiny", stages=(stage,), stem_channels=8, head_channels=8, image_size=16, train_size=16
    )
    (tmp_path / "tiny.json").write_text(spec_to_json(spec))
    return Config(
        model=ModelConfig(network=str(tmp_path / "tiny.json")),
        data=DataConfig(source="digits", val_fraction=0.05, workers=2),
        augment=AugmentConfig(operations=0),
        progressive=ProgressiveConfig(stages=1, image_size=(8, 8), mixup_alpha=(0.0, 0.4)),
        train=TrainConfig(epochs=1.0, batch_size=160),
        optimizer=OptimizerConfig(name="adamw", epsilon=1e-8),
        learning_rate=LearningRateConfig(base=0.01, base_batch_size=160, warmup_epochs=0.0),
        ema=EmaConfig(decay=0.9),
        evaluate=EvaluateConfig(every_epochs=0.2),
    )
